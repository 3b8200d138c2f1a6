package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/ppp"
	"pptp-alg/e2e/wire"
)

// Config describes one end of a tunnel.
type Config struct {
	PPP  ppp.Config
	Flow FlowConfig
	// Datagram takes what arrives, on the tunnel's goroutine: it must not
	// block. What it gives is sent back.
	Datagram func(t *Tunnel, datagram []byte) (answer []byte)
}

// Tunnel is PPP over the GRE of one call.
type Tunnel struct {
	cfg  Config
	call *peer.Call
	in   chan wire.GRE
	do   chan func(now time.Time)
	done chan struct{}

	// the goroutine's
	link    *ppp.Link
	flow    *Flow
	reached ppp.Phase

	mu      sync.Mutex
	state   State
	changed chan struct{} // closed and replaced when state changes
}

// State is what a Tunnel looks like from outside.
type State struct {
	Phase         ppp.Phase
	Reached       ppp.Phase // the furthest so far, but for Terminate
	Err           error     // why it ended, or is ending
	Local, Remote netip.Addr
	User          string
	Encryption    string
	Demanded      ppp.Method // by the other side, of this one
	MTU           int
	PPP           ppp.Stats
	Flow          FlowStats
	Packets       int // of GRE that came for the call, of whatever kind
	Dropped       int // of them, for lack of time
	SendErr       error
}

// backlog is how many packets may wait for a tunnel's goroutine.
const backlog = 256

// attach makes a tunnel of a call that is being made: peer.Config.Carry.
func attach(call *peer.Call, cfg Config) *Tunnel {
	t := &Tunnel{cfg: cfg, call: call, link: ppp.New(cfg.PPP), flow: NewFlow(cfg.Flow), in: make(chan wire.GRE, backlog),
		do: make(chan func(time.Time)), done: make(chan struct{}), changed: make(chan struct{})}
	go t.run()
	return t
}

// arrive takes a packet; it never blocks.
func (t *Tunnel) arrive(g wire.GRE) {
	g.Payload = append([]byte(nil), g.Payload...) // the buffer is the node's
	select {
	case t.in <- g:
	default:
		t.mu.Lock()
		t.state.Dropped++
		t.mu.Unlock()
	}
}

// run is the tunnel's goroutine. It ends with the call or with the link.
func (t *Tunnel) run() {
	defer close(t.done)
	defer t.publish()
	select {
	case <-t.call.Complete():
	case <-t.call.Done():
		return
	}
	// Nothing could ever be sent to a side that takes no packet.
	t.cfg.Flow.SendWindow = max(1, t.call.Window())
	t.flow = NewFlow(t.cfg.Flow)
	t.link.Start(time.Now())
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		t.flush()
		if t.link.Phase() == ppp.Dead {
			t.hangUp()
			return
		}
		if d := earliest(t.link.Deadline(), t.flow.Deadline()); d.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(d))
		}
		select {
		case g := <-t.in:
			t.mu.Lock()
			t.state.Packets++
			t.mu.Unlock()
			t.flow.Receive(time.Now(), g)
		case f := <-t.do:
			f(time.Now())
		case <-timer.C:
			t.flow.Tick(time.Now())
			t.link.Tick(time.Now())
		case <-t.call.Done():
			return
		}
	}
}

// flush carries what the layers have to say to each other until they are
// quiet.
func (t *Tunnel) flush() {
	for busy := true; busy; {
		now := time.Now()
		out := t.link.Take()
		for _, p := range out.Phases {
			if p != ppp.Terminate {
				t.reached = max(t.reached, p)
			}
		}
		for _, f := range out.Frames {
			t.flow.Send(now, f)
		}
		for _, d := range out.Datagrams {
			if t.cfg.Datagram == nil {
				continue
			}
			if answer := t.cfg.Datagram(t, d); answer != nil {
				_ = t.link.Send(answer) // as good as lost
			}
		}
		packets, payloads := t.flow.Take()
		for _, g := range packets {
			if err := t.call.SendGRE(g); err != nil {
				t.mu.Lock()
				t.state.SendErr = err
				t.mu.Unlock()
			}
		}
		for _, p := range payloads {
			t.link.Receive(now, p)
		}
		busy = len(out.Frames)+len(out.Datagrams)+len(packets)+len(payloads) > 0
	}
	t.publish()
}

// publish shows the state to everybody else.
func (t *Tunnel) publish() {
	l := t.link
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.state
	s := &t.state
	s.Phase, s.Err, s.Local, s.Remote, s.User = l.Phase(), l.Err(), l.Local(), l.Remote(), l.User()
	s.Encryption, s.Demanded, s.MTU, s.PPP, s.Flow = l.Describe(), l.Demanded(), l.MTU(), l.Stats(), t.flow.Stats()
	s.Reached = t.reached
	if s.Phase != before.Phase || s.Reached != before.Reached || (s.Err == nil) != (before.Err == nil) {
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

// hangUpLimit bounds the wait for the other side's word at the end of a call.
const hangUpLimit = 2 * time.Second

func (t *Tunnel) hangUp() {
	ctx, cancel := context.WithTimeout(context.Background(), hangUpLimit)
	defer cancel()
	_ = t.call.HangUp(ctx) // the call may have ended already
}

// Call is the call that carries the tunnel.
func (t *Tunnel) Call() *peer.Call { return t.call }

// Done is closed when the tunnel is over and its goroutine with it.
func (t *Tunnel) Done() <-chan struct{} { return t.done }

// State gives a picture of the tunnel.
func (t *Tunnel) State() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// Err says why the tunnel ended: PPP's reason, or else the call's.
func (t *Tunnel) Err() error {
	if err := t.State().Err; err != nil {
		return err
	}
	if why := t.call.Ended(); why != "" {
		return errors.New(why)
	}
	return nil
}

// Reach waits until the link is, or was, in a phase at least as far.
func (t *Tunnel) Reach(ctx context.Context, phase ppp.Phase) error {
	for {
		t.mu.Lock()
		s, changed := t.state, t.changed
		t.mu.Unlock()
		switch {
		case s.Reached >= phase:
			return nil
		case s.Err != nil:
			return s.Err
		}
		select {
		case <-changed:
		case <-t.done:
			if t.State().Reached >= phase {
				return nil
			}
			return fmt.Errorf("%v: ended in phase %q: %w", t.call, t.State().Reached, t.Err())
		case <-ctx.Done():
			return fmt.Errorf("%v: wait for PPP, phase %q, %d GRE packets received: %w", t.call, s.Phase, s.Packets, ctx.Err())
		}
	}
}

// act runs f on the tunnel's goroutine and waits for it.
func (t *Tunnel) act(f func(now time.Time)) error {
	ran := make(chan struct{})
	select {
	case t.do <- func(now time.Time) { f(now); close(ran) }:
		<-ran
		return nil
	case <-t.done:
		return fmt.Errorf("%v: %w", t.call, ppp.ErrDown)
	}
}

// Send sends an IPv4 datagram.
func (t *Tunnel) Send(datagram []byte) error {
	var sent error
	if err := t.act(func(time.Time) { sent = t.link.Send(datagram) }); err != nil {
		return err
	}
	return sent
}

// Close ends PPP, then the call, and waits until both are over. When the
// context ends first, the call goes without further ado.
func (t *Tunnel) Close(ctx context.Context) error {
	if err := t.act(t.link.Close); err != nil {
		return nil // over already
	}
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		t.hangUp()
		<-t.done
		return ctx.Err()
	}
}

// Do runs f on the tunnel's goroutine, where Config.Datagram runs too.
func (t *Tunnel) Do(f func()) error { return t.act(func(time.Time) { f() }) }
