package tunnel

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"pptp-alg/e2e/inet"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// Client is a node that dials tunnels. Every call that its sessions place, or
// take, becomes a tunnel.
type Client struct {
	*peer.Node
	cfg Config

	mu      sync.Mutex
	tunnels map[*peer.Call]*Tunnel
	pings   map[ping]chan struct{}
}

// ping is what a reply is known by.
type ping struct {
	tunnel  *Tunnel
	id, seq uint16
}

// StartClient starts a node. Without a Datagram in cfg pings of the client's
// address are answered.
func StartClient(node peer.Config, cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, tunnels: map[*peer.Call]*Tunnel{}, pings: map[ping]chan struct{}{}}
	inner := c.cfg.Datagram
	c.cfg.Datagram = func(t *Tunnel, b []byte) []byte {
		if c.pong(t, b) {
			return nil
		}
		return orAnswer(inner, t, b)
	}
	node.ReceiveWindow = advertised(cfg.Flow)
	node.Carry = func(call *peer.Call) func(wire.GRE) {
		t := attach(call, c.cfg)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tunnels[call] = t
		return t.arrive
	}
	var err error
	c.Node, err = peer.Start(node)
	return c, err
}

// advertised is the window that calls tell the other side.
func advertised(cfg FlowConfig) uint16 { return uint16(cfg.withDefaults().ReceiveWindow) }

// orAnswer hands a datagram on, or answers pings.
func orAnswer(inner func(*Tunnel, []byte) []byte, t *Tunnel, b []byte) []byte {
	if inner != nil {
		return inner(t, b)
	}
	return inet.Answer(b, t.link.Local())
}

// Call places a call on a control connection. The tunnel's PPP has begun when
// it returns; see Tunnel.Reach.
func (c *Client) Call(ctx context.Context, s *peer.Session) (*Tunnel, error) {
	call, err := s.OutgoingCall(ctx)
	if err != nil {
		return nil, err
	}
	return c.Tunnel(call), nil
}

// Announce is Call with the roles changed: this side is the PAC, and announces
// a call that came in for the other, the PNS.
func (c *Client) Announce(ctx context.Context, s *peer.Session) (*Tunnel, error) {
	call, err := s.IncomingCall(ctx)
	if err != nil {
		return nil, err
	}
	return c.Tunnel(call), nil
}

// Tunnel finds a call's, whichever side placed it.
func (c *Client) Tunnel(call *peer.Call) *Tunnel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tunnels[call]
}

// Open dials a server and places a call.
func (c *Client) Open(ctx context.Context, to netip.AddrPort) (*Tunnel, error) {
	s, err := c.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return c.Call(ctx, s)
}

// ErrNoPong says that a ping, or the answer to it, was lost.
var ErrNoPong = errors.New("no answer to a ping through the tunnel")

// Ping sends ICMP echo requests of size octets through a tunnel to the other
// end, one after the other, and says how many were answered within the
// patience for each.
func (c *Client) Ping(ctx context.Context, t *Tunnel, count, size int, patience time.Duration) (answered int, err error) {
	s := t.State()
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	for i := range count {
		p := ping{t, binary.BigEndian.Uint16(id[:]), uint16(i)}
		came := make(chan struct{})
		c.mu.Lock()
		c.pings[p] = came
		c.mu.Unlock()
		echo := inet.Echo{Src: s.Local, Dst: s.Remote, ID: p.id, Seq: p.seq, Data: make([]byte, size)}
		if err := t.Send(echo.Datagram()); err != nil {
			return answered, err
		}
		timer := time.NewTimer(patience)
		select {
		case <-came:
			answered++
		case <-timer.C:
			err = fmt.Errorf("%v: %w", t.call, ErrNoPong)
		case <-t.Done():
			err = t.Err()
		case <-ctx.Done():
			err = ctx.Err()
		}
		timer.Stop()
		c.mu.Lock()
		delete(c.pings, p)
		c.mu.Unlock()
		if err != nil && !errors.Is(err, ErrNoPong) {
			return answered, err
		}
	}
	return answered, err
}

// FirstPing pings until the first answer, once a second, and gives up with the
// context. A real server carries nothing yet when IPCP has come up for us: its
// network device follows a moment later.
func (c *Client) FirstPing(ctx context.Context, t *Tunnel) error {
	for {
		if _, err := c.Ping(ctx, t, 1, 0, time.Second); !errors.Is(err, ErrNoPong) {
			return err
		}
	}
}

// pong notices the answer to a ping of Ping.
func (c *Client) pong(t *Tunnel, b []byte) bool {
	e, err := inet.Parse(b)
	if err != nil || !e.Reply {
		return false
	}
	p := ping{t, e.ID, e.Seq}
	c.mu.Lock()
	defer c.mu.Unlock()
	came, ok := c.pings[p]
	if ok {
		close(came)
		delete(c.pings, p)
	}
	return ok
}

// Server is a node that makes a tunnel of every call that comes in, and gives
// each client an address.
type Server struct {
	*peer.Node

	mu      sync.Mutex
	tunnels map[*Tunnel]bool
	free    []netip.Addr
	wg      sync.WaitGroup
}

// StartServer starts a node; Listen comes after. The clients' addresses follow
// that of cfg.PPP.Address; count says how many there are.
func StartServer(node peer.Config, cfg Config, count int) (*Server, error) {
	s := &Server{tunnels: map[*Tunnel]bool{}}
	if !cfg.PPP.Address.Is4() {
		return nil, errors.New("start server: no address inside the tunnel")
	}
	for a := cfg.PPP.Address.Next(); len(s.free) < count; a = a.Next() {
		s.free = append(s.free, a)
	}
	inner := cfg.Datagram
	cfg.Datagram = func(t *Tunnel, b []byte) []byte { return orAnswer(inner, t, b) }
	node.ReceiveWindow = advertised(cfg.Flow)
	node.Carry = func(call *peer.Call) func(wire.GRE) { return s.take(call, cfg).arrive }
	var err error
	s.Node, err = peer.Start(node)
	return s, err
}

// take makes a tunnel of a call. When no address is left, PPP will say so.
func (s *Server) take(call *peer.Call, cfg Config) *Tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) > 0 {
		cfg.PPP.Assign, s.free = s.free[0], s.free[1:]
	}
	t := attach(call, cfg)
	s.tunnels[t] = true
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		<-t.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.tunnels, t)
		if cfg.PPP.Assign.IsValid() {
			s.free = append(s.free, cfg.PPP.Assign)
		}
	}()
	return t
}

// Tunnels gives those that have not ended.
func (s *Server) Tunnels() []*Tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Tunnel
	for t := range s.tunnels {
		out = append(out, t)
	}
	return out
}

// To finds the tunnel to a client by its address inside; nil if there is none.
func (s *Server) To(client netip.Addr) *Tunnel {
	for _, t := range s.Tunnels() {
		if t.State().Remote == client {
			return t
		}
	}
	return nil
}

// Close ends everything at once and waits for all goroutines.
func (s *Server) Close() error {
	err := s.Node.Close()
	s.wg.Wait()
	return err
}

// Close ends everything at once and waits for all goroutines.
func (c *Client) Close() error {
	err := c.Node.Close()
	c.mu.Lock()
	tunnels := c.tunnels
	c.mu.Unlock()
	for _, t := range tunnels {
		<-t.Done()
	}
	return err
}
