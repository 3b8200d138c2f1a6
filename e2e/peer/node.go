package peer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pptp-alg/e2e/wire"
)

// Port is where PPTP servers listen (RFC 2637 section 4.3).
const Port = 1723

// Config describes a node. Only Address is needed.
type Config struct {
	Name    string // for messages; default: the address
	Network Network
	Address netip.Addr // TCP and GRE come from here

	// CallID chooses the node's own Call IDs; default: Counting(1).
	CallID func() uint16
	// Answer decides about calls that the other side requests. The default
	// connects all of them.
	Answer func(request wire.Message) Answer
	// DisconnectPeerID puts the other side's Call ID into
	// Call-Disconnect-Notify, as some servers do against RFC 2637 section 2.13.
	DisconnectPeerID bool

	// Carry makes calls carry something else than the package's own questions
	// and answers: it is called for every new call and gives what takes the
	// call's GRE, whichever side placed it. It must not block. See Call.Up.
	Carry func(*Call) func(wire.GRE)
	// Stray takes GRE that belongs to no call, instead of a Fault.
	Stray func(from netip.Addr, g wire.GRE)

	Segments Segments
	// Gather holds back the answers to call requests until there are this many
	// on a connection, and sends them in one write.
	Gather int
	// ReceiveWindow is how many packets of a call the other side is told that
	// it may send unacknowledged (RFC 2637 section 2.7); default 64.
	ReceiveWindow uint16
	// Keepalive is the interval between Echo-Requests; 0 sends none.
	Keepalive time.Duration
	// Timeout bounds every wait that has no closer deadline; default 10 s.
	Timeout time.Duration
	// Log receives a line for every control message, sent and received.
	Log func(format string, args ...any)
}

// Answer is the answer to a call request.
type Answer struct {
	Result, ErrorCode uint8
	Silent            bool          // none at all
	Delay             time.Duration // before it is sent
}

// Fixed always chooses the same Call ID.
func Fixed(id uint16) func() uint16 { return func() uint16 { return id } }

// Counting chooses id, id+1 and so on, passing 65535 to 0.
func Counting(id uint16) func() uint16 {
	var next atomic.Uint32
	next.Store(uint32(id))
	return func() uint16 { return uint16(next.Add(1) - 1) }
}

// Node is one address that speaks PPTP.
type Node struct {
	cfg    Config
	gre    *greSocket
	ctx    context.Context // ends with the node
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	calls     map[greKey]*Call
	tokens    map[uint64]*Call
	sessions  map[*Session]bool
	listeners []*net.TCPListener
	accepted  []*Session // waiting for Accept
	faults    []string
	notify    chan struct{} // closed and replaced when accepted or calls grow
	otherGRE  int           // GRE packets that are not PPTP's
}

// greKey finds a call for an arriving packet: its sender and our own Call ID.
type greKey struct {
	from netip.Addr
	id   uint16
}

// Start opens the node's GRE socket.
func Start(cfg Config) (*Node, error) {
	if cfg.Name == "" {
		cfg.Name = cfg.Address.String()
	}
	if cfg.CallID == nil {
		cfg.CallID = Counting(1)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.ReceiveWindow == 0 {
		cfg.ReceiveWindow = 64
	}
	if cfg.Answer == nil {
		cfg.Answer = func(wire.Message) Answer { return Answer{Result: wire.ResultConnected} }
	}
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	gre, err := openGRE(cfg.Network, cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	n := &Node{cfg: cfg, gre: gre, calls: map[greKey]*Call{}, tokens: map[uint64]*Call{}, sessions: map[*Session]bool{}, notify: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.wg.Add(1)
	go n.receive()
	return n, nil
}

// Name is the node's name.
func (n *Node) Name() string { return n.cfg.Name }

// Address is the node's address.
func (n *Node) Address() netip.Addr { return n.cfg.Address }

// Close ends everything at once and waits for all goroutines.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	listeners := n.listeners
	var sessions []*Session
	for s := range n.sessions {
		sessions = append(sessions, s)
	}
	n.mu.Unlock()
	n.cancel()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, s := range sessions {
		_ = s.conn.Close()
	}
	err := n.gre.close()
	n.wg.Wait()
	return err
}

// faultLimit bounds the list of faults; a broken lab has millions.
const faultLimit = 100

func (n *Node) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	n.cfg.Log("%s: FAULT: %s", n.cfg.Name, text)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.faults) < faultLimit {
		n.faults = append(n.faults, text)
	}
}

// Faults gives what should not have happened, nil if all is well.
func (n *Node) Faults() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.faults...)
}

// Forgive takes faults that were to be expected off the list, and counts them.
func (n *Node) Forgive(expected func(string) bool) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.faults)
	n.faults = slices.DeleteFunc(n.faults, expected)
	return before - len(n.faults)
}

// OtherGRE counts arrived GRE packets that are not PPTP's.
func (n *Node) OtherGRE() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.otherGRE
}

// SendGRE sends raw bytes of protocol 47, whatever they are.
func (n *Node) SendGRE(to netip.Addr, packet []byte) error { return n.gre.send(to, packet) }

// Listen accepts control connections on a TCP port of the node's address.
func (n *Node) Listen(port uint16) error {
	l, err := listen(n.cfg.Network, netip.AddrPortFrom(n.cfg.Address, port))
	if err != nil {
		return fmt.Errorf("listen at %s: %w", n.cfg.Name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		_ = l.Close()
		return net.ErrClosed
	}
	n.listeners = append(n.listeners, l)
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		for {
			conn, err := l.AcceptTCP()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = n.adopt(conn, false)
			}
		}
	}()
	return nil
}

// adopt starts serving a TCP connection.
func (n *Node) adopt(conn *net.TCPConn, opener bool) (*Session, error) {
	s := newSession(n, conn, opener)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	n.sessions[s] = true
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		s.serve()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.sessions, s)
	}()
	return s, nil
}

// Accept waits for the next control connection on which the other side's
// Start-Control-Connection-Request was answered.
func (n *Node) Accept(ctx context.Context) (*Session, error) {
	var s *Session
	err := n.await(ctx, "accept a control connection", func() bool {
		if len(n.accepted) == 0 {
			return false
		}
		s, n.accepted = n.accepted[0], n.accepted[1:]
		return true
	})
	return s, err
}

// FindCall waits for the call with a token: the other end of somebody's call.
func (n *Node) FindCall(ctx context.Context, token uint64) (*Call, error) {
	var found *Call
	err := n.await(ctx, fmt.Sprintf("find call %016x", token), func() bool {
		found = n.tokens[token]
		return found != nil && found.up
	})
	return found, err
}

// Calls gives the node's calls that are up.
func (n *Node) Calls() []*Call {
	n.mu.Lock()
	defer n.mu.Unlock()
	var calls []*Call
	for _, c := range n.calls {
		if c.up && c.ended == "" {
			calls = append(calls, c)
		}
	}
	return calls
}

// await waits until right, called with n.mu held, says so.
func (n *Node) await(ctx context.Context, what string, right func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	for {
		n.mu.Lock()
		ok, notify := right(), n.notify
		n.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-notify:
		case <-n.ctx.Done():
			return fmt.Errorf("%s at %s: %w", what, n.cfg.Name, net.ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("%s at %s: %w", what, n.cfg.Name, ctx.Err())
		}
	}
}

// announce wakes everybody in await. n.mu is held.
func (n *Node) announce() {
	close(n.notify)
	n.notify = make(chan struct{})
}

// receive hands arriving GRE packets to the calls.
func (n *Node) receive() {
	defer n.wg.Done()
	buffer := make([]byte, 65536)
	for {
		from, b, err := n.gre.receive(buffer)
		if err != nil {
			return
		}
		g, err := wire.DecodeGRE(b)
		if errors.Is(err, wire.ErrNotEnhanced) {
			n.mu.Lock()
			n.otherGRE++
			n.mu.Unlock()
			continue
		}
		if err != nil {
			n.fault("GRE from %v: %v", from, err)
			continue
		}
		n.mu.Lock()
		c := n.calls[greKey{from, g.CallID}]
		n.mu.Unlock()
		if c == nil && n.cfg.Stray != nil {
			n.cfg.Stray(from, g)
			continue
		}
		if c == nil {
			n.fault("GRE from %v for Call ID %d, which is nobody's here", from, g.CallID)
			continue
		}
		c.take(g)
	}
}

func newToken() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:]) | 1
}
