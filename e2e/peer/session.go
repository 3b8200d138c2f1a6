package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/e2e/wire"
)

// Session is a control connection.
type Session struct {
	node          *Node
	conn          *net.TCPConn
	local, remote netip.AddrPort
	opener        bool // this side opened the TCP connection
	done          chan struct{}

	// living calls by this side's and the other side's Call ID; guarded by
	// node.mu
	own, peers map[uint16]*Call

	writing  sync.Mutex // one Send at a time
	segments Segments
	gathered []wire.Message // reader's only

	mu       sync.Mutex
	history  []wire.Message // received
	sentTape bytes.Buffer
	readTape bytes.Buffer
	changed  chan struct{} // closed and replaced when history grows
	err      error         // why the session ended
	stopping bool          // it ends because this side wants it to
	echoID   uint32
}

// tapeLimit bounds what is remembered of a stream.
const tapeLimit = 1 << 20

func newSession(n *Node, conn *net.TCPConn, opener bool) *Session {
	return &Session{node: n, conn: conn, opener: opener, segments: n.cfg.Segments,
		own: map[uint16]*Call{}, peers: map[uint16]*Call{},
		local: conn.LocalAddr().(*net.TCPAddr).AddrPort(), remote: conn.RemoteAddr().(*net.TCPAddr).AddrPort(),
		done: make(chan struct{}), changed: make(chan struct{})}
}

// Connect opens the TCP connection and says nothing on it.
func (n *Node) Connect(ctx context.Context, to netip.AddrPort) (*Session, error) {
	return n.ConnectFrom(ctx, 0, to)
}

// ConnectFrom is Connect from a port of one's choice.
func (n *Node) ConnectFrom(ctx context.Context, port uint16, to netip.AddrPort) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	conn, err := dial(ctx, n.cfg.Network, netip.AddrPortFrom(n.cfg.Address, port), to)
	if err != nil {
		return nil, fmt.Errorf("%s: connect to %v: %w", n.cfg.Name, to, err)
	}
	return n.adopt(conn, true)
}

// Dial opens a control connection: TCP, Start-Control-Connection-Request and
// the reply to it.
func (n *Node) Dial(ctx context.Context, to netip.AddrPort) (*Session, error) {
	s, err := n.Connect(ctx, to)
	if err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Start sends Start-Control-Connection-Request and waits for the reply.
func (s *Session) Start(ctx context.Context) error {
	if err := s.Send(s.node.startRequest()); err != nil {
		return err
	}
	m, err := s.Wait(ctx, func(m wire.Message) bool { return m.Type() == wire.TypeStartReply })
	if err != nil {
		return err
	}
	if r := m.(*wire.StartReply); r.Result != wire.StartOK {
		return fmt.Errorf("%v: control connection refused: result %d, error %d", s, r.Result, r.ErrorCode)
	}
	if s.node.cfg.Keepalive > 0 {
		s.node.mu.Lock()
		defer s.node.mu.Unlock()
		if !s.node.closed {
			s.node.wg.Add(1)
			go s.keepalive()
		}
	}
	return nil
}

func (n *Node) startRequest() *wire.StartRequest {
	return &wire.StartRequest{ProtocolVersion: wire.Version, Framing: 3, Bearer: 3, MaximumChannels: 65535, FirmwareRevision: 1,
		HostName: wire.MakeText(n.cfg.Name), Vendor: wire.MakeText("pptp-lab")}
}

func (s *Session) String() string {
	return fmt.Sprintf("%s: control connection with %v", s.node.cfg.Name, s.remote)
}

// Local and Remote are the ends of the TCP connection as seen here.
func (s *Session) Local() netip.AddrPort { return s.local }

// Remote is the other end as seen here.
func (s *Session) Remote() netip.AddrPort { return s.remote }

// Done is closed when the control connection is gone.
func (s *Session) Done() <-chan struct{} { return s.done }

// SetSegments changes how later messages are cut.
func (s *Session) SetSegments(seg Segments) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.segments = seg
}

// Send sends messages, all in one piece unless Segments cuts them.
func (s *Session) Send(messages ...wire.Message) error {
	var b []byte
	var names []string
	for _, m := range messages {
		b = append(b, wire.Encode(m)...)
		names = append(names, wire.Describe(m))
	}
	s.node.cfg.Log("%s > %v: %s", s.node.cfg.Name, s.remote, strings.Join(names, ", "))
	return s.SendBytes(b)
}

// SendBytes sends bytes that need not be messages.
func (s *Session) SendBytes(b []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.write(b)
}

// write sends bytes; s.writing is held.
func (s *Session) write(b []byte) error {
	s.mu.Lock()
	if s.sentTape.Len() < tapeLimit {
		s.sentTape.Write(b)
	}
	s.mu.Unlock()
	_ = s.conn.SetWriteDeadline(time.Now().Add(s.node.cfg.Timeout))
	if err := s.segments.write(s.conn, b); err != nil {
		return fmt.Errorf("%v: send: %w", s, err)
	}
	return nil
}

// Sent and Read give the two byte streams of the connection as they were here.
func (s *Session) Sent() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.sentTape.Bytes())
}

// Read gives the bytes that arrived.
func (s *Session) Read() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.readTape.Bytes())
}

// Received gives the messages that arrived so far.
func (s *Session) Received() []wire.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]wire.Message(nil), s.history...)
}

// Wait waits for a received message, one from before the call included.
func (s *Session) Wait(ctx context.Context, match func(wire.Message) bool) (wire.Message, error) {
	return s.WaitAfter(ctx, 0, match)
}

// WaitAfter is Wait that passes over the first skip messages received.
func (s *Session) WaitAfter(ctx context.Context, skip int, match func(wire.Message) bool) (wire.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, s.node.cfg.Timeout)
	defer cancel()
	for seen := skip; ; {
		s.mu.Lock()
		fresh, changed := s.history[min(seen, len(s.history)):], s.changed
		s.mu.Unlock()
		for _, m := range fresh {
			if match(m) {
				return m, nil
			}
		}
		seen += len(fresh)
		select {
		case <-changed:
			continue
		default:
		}
		select {
		case <-changed:
		case <-s.done:
			s.mu.Lock()
			more, err := len(s.history) > seen, s.err
			s.mu.Unlock()
			if !more {
				return nil, fmt.Errorf("%v: ended while waiting for a message: %w", s, err)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("%v: wait for a message (%d received, last %s): %w", s, seen, s.lastReceived(), ctx.Err())
		}
	}
}

func (s *Session) lastReceived() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.history) == 0 {
		return "none"
	}
	return wire.Describe(s.history[len(s.history)-1])
}

// tape copies what is read.
type tape struct{ s *Session }

func (t tape) Read(p []byte) (int, error) {
	n, err := t.s.conn.Read(p)
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.readTape.Len() < tapeLimit {
		t.s.readTape.Write(p[:n])
	}
	return n, err
}

// serve reads messages until the connection ends.
func (s *Session) serve() {
	r := wire.NewReader(tape{s})
	var err error
	for {
		var m wire.Message
		if m, err = r.Next(); err != nil {
			break
		}
		s.node.cfg.Log("%s < %v: %s", s.node.cfg.Name, s.remote, wire.Describe(m))
		stop := s.handle(m)
		s.mu.Lock()
		s.history = append(s.history, m)
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		if stop {
			break
		}
	}
	_ = s.conn.Close()
	s.mu.Lock()
	s.err = err
	if err == nil {
		s.err = io.EOF
	}
	expected := s.stopping
	s.mu.Unlock()
	var reset bool
	if op := (*net.OpError)(nil); errors.As(err, &op) || errors.Is(err, io.EOF) {
		reset = true // the transport's business, not the messages'
	}
	if err != nil && !reset && !expected {
		s.node.fault("%v: %v", s, err)
	}
	s.endCalls("control connection ended")
	close(s.done)
}

func (s *Session) endCalls(why string) {
	for _, c := range s.Calls() {
		c.end(why)
	}
}

// Calls gives the session's calls that have not ended.
func (s *Session) Calls() []*Call {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	var calls []*Call
	for _, c := range s.own {
		calls = append(calls, c)
	}
	return calls
}

func (s *Session) keepalive() {
	defer s.node.wg.Done()
	ticker := time.NewTicker(s.node.cfg.Keepalive)
	defer ticker.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-s.node.ctx.Done():
			return
		case <-ticker.C:
			if err := s.ping(s.node.ctx, true); err != nil {
				select {
				case <-s.done:
				case <-s.node.ctx.Done():
				default:
					s.node.fault("%v: keepalive: %v", s, err)
				}
				return
			}
		}
	}
}

// Ping sends an Echo-Request and waits for the reply.
func (s *Session) Ping(ctx context.Context) error { return s.ping(ctx, false) }

// ping is Ping; the keepalive's is not sent any more when the connection is
// being stopped, or it would run into a side that no longer reads.
func (s *Session) ping(ctx context.Context, keepalive bool) error {
	s.writing.Lock()
	s.mu.Lock()
	s.echoID++
	id, skip, stopping := s.echoID, len(s.history), s.stopping
	s.mu.Unlock()
	if keepalive && stopping {
		s.writing.Unlock()
		return nil
	}
	m := &wire.EchoRequest{Identifier: id}
	s.node.cfg.Log("%s > %v: %s", s.node.cfg.Name, s.remote, wire.Describe(m))
	err := s.write(wire.Encode(m))
	s.writing.Unlock()
	if err != nil {
		return err
	}
	_, err = s.WaitAfter(ctx, skip, func(m wire.Message) bool {
		r, ok := m.(*wire.EchoReply)
		return ok && r.Identifier == id
	})
	return err
}

// Stop ends the control connection in order: Stop-Control-Connection-Request,
// the reply, FIN. Nothing else is sent after the request.
func (s *Session) Stop(ctx context.Context) error {
	m := &wire.StopRequest{Reason: 1}
	s.node.cfg.Log("%s > %v: %s", s.node.cfg.Name, s.remote, wire.Describe(m))
	s.writing.Lock()
	s.setStopping()
	err := s.write(wire.Encode(m))
	s.writing.Unlock()
	if err != nil {
		return err
	}
	_, err = s.Wait(ctx, func(m wire.Message) bool { return m.Type() == wire.TypeStopReply })
	s.Close()
	return err
}

// Close ends the TCP connection with FIN and waits for the reader.
func (s *Session) Close() {
	s.setStopping()
	_ = s.conn.Close()
	<-s.done
}

// Abort ends the TCP connection with RST.
func (s *Session) Abort() {
	_ = s.conn.SetLinger(0)
	s.Close()
}

// Vanish ends the TCP connection without a word, as a host does that loses its
// power: the routers between go on as if it were there, and the other side until
// it has something to send. It waits until what was sent is acknowledged.
func (s *Session) Vanish() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("%v: vanish: %w", s, err)
	}
	if err := s.Acknowledged(); err != nil {
		return fmt.Errorf("%v: vanish: %w", s, err)
	}
	// A socket under repair (tcp_repair, made for moving connections between
	// machines) is closed silently.
	ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) })
	if err := errors.Join(ctlErr, err); err != nil {
		return fmt.Errorf("%v: vanish: %w", s, err)
	}
	s.Close()
	return nil
}

// Acknowledged waits until the other side has acknowledged all that was sent.
func (s *Session) Acknowledged() error {
	for end := time.Now().Add(s.node.cfg.Timeout); ; time.Sleep(time.Millisecond) {
		n, err := unsent(s.conn)
		switch {
		case n == 0 && err == nil:
			return nil
		case err != nil || time.Now().After(end):
			return fmt.Errorf("%v: %d bytes were not acknowledged: %w", s, n, errors.Join(err, os.ErrDeadlineExceeded))
		}
	}
}

func (s *Session) setStopping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
}
