package peer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"pptp-alg/e2e/wire"
)

// Call is one call as one of its ends sees it.
type Call struct {
	node    *Node
	session *Session
	remote  netip.Addr // GRE goes there and comes from there
	caller  bool       // this side placed the call
	pns     bool       // this side is the PNS of the call
	id      uint16     // own Call ID
	token   uint64
	// before is the token of the call that had the same Call ID towards the
	// same address until it ended; 0 if there was none. Its last packets may
	// still come, and nothing tells them apart but their contents.
	before uint64

	carry func(wire.GRE) // see Config.Carry

	// guarded by node.mu
	peerID   uint16
	up       bool
	answered chan struct{} // closed when up
	complete chan struct{} // closed when window is known
	window   uint16        // the other side's; see Window
	refused  *RefusedError
	ended    string // why, "" while it lives
	done     chan struct{}

	mu       sync.Mutex
	next     uint32 // next sequence number to send
	sentAny  bool
	last     uint32 // highest received
	received bool
	owesAck  bool
	counter  uint32
	waiting  map[uint32]chan struct{}
	stats    Stats
}

// Stats counts what a call's end saw of its GRE.
type Stats struct {
	Sent, Received   int // packets, acknowledgements alone included
	Questions        int // of the other side, that were answered
	Answers          int // that came back
	Gaps, Reordered  int // missing sequence numbers; numbers out of order
	LateAfterEnd     int // arrived after the call, or one with its ID before it, had ended here
	Early            int // questions before the other side's Call ID was known
	SetLinkInfo, WAN int // control messages about this call
}

// ID is the side's own Call ID.
func (c *Call) ID() uint16 { return c.id }

// PeerID is the other side's Call ID as it was told here.
func (c *Call) PeerID() uint16 {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	return c.peerID
}

// Token is the number that only the two ends of this call share.
func (c *Call) Token() uint64 { return c.token }

// Session is the call's control connection.
func (c *Call) Session() *Session { return c.session }

// Remote is the address that the call's GRE comes from.
func (c *Call) Remote() netip.Addr { return c.remote }

// Done is closed when the call ends.
func (c *Call) Done() <-chan struct{} { return c.done }

// Ended says why the call ended; "" while it lives.
func (c *Call) Ended() string {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	return c.ended
}

// WaitEnd waits for the end of the call.
func (c *Call) WaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.node.cfg.Timeout)
	defer cancel()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%v: wait for its end: %w", c, ctx.Err())
	}
}

// Stats gives the counters so far.
func (c *Call) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

func (c *Call) String() string {
	return fmt.Sprintf("%s: call %d, peer %v call %d", c.node.cfg.Name, c.id, c.remote, c.PeerID())
}

// newCall registers a call of the node's own. It fails if the Call ID is taken
// towards the same remote address: then no packet could be told apart.
func (s *Session) newCall(caller, pns bool, token uint64) (*Call, error) {
	n := s.node
	c := &Call{node: n, session: s, remote: s.remote.Addr(), caller: caller, pns: pns, id: n.cfg.CallID(), token: token,
		done: make(chan struct{}), answered: make(chan struct{}), complete: make(chan struct{}), waiting: map[uint32]chan struct{}{}}
	n.mu.Lock()
	defer n.mu.Unlock()
	key := greKey{c.remote, c.id}
	old := n.calls[key]
	if old != nil && old.ended == "" {
		return nil, fmt.Errorf("own Call ID %d towards %v is in use", c.id, c.remote)
	}
	if old != nil {
		delete(n.tokens, old.token)
		c.before = old.token
	}
	if n.cfg.Carry != nil {
		c.carry = n.cfg.Carry(c)
	}
	n.calls[key], n.tokens[token], s.own[c.id] = c, c, c
	return c, nil
}

// connected notes the other side's Call ID: from now on GRE flows. It says no
// if that had happened before.
func (c *Call) connected(peerID uint16) bool {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	if c.up {
		return false
	}
	c.peerID, c.up = peerID, true
	if c.ended == "" {
		c.session.peers[peerID] = c
	}
	close(c.answered)
	c.node.announce()
	return true
}

// completed notes the receive window of the other side, which comes with the
// last message that it sends to set the call up.
func (c *Call) completed(window uint16) {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	select {
	case <-c.complete:
	default:
		c.window = window
		close(c.complete)
	}
}

// end marks the call as over. The node remembers it until the ID is used again,
// so that late packets are told from stray ones.
func (c *Call) end(why string) {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	if c.ended != "" {
		return
	}
	c.ended = why
	close(c.done)
	if c.session.own[c.id] == c {
		delete(c.session.own, c.id)
	}
	if c.session.peers[c.peerID] == c {
		delete(c.session.peers, c.peerID)
	}
}

// send sends a payload (nil: an acknowledgement alone).
func (c *Call) send(payload []byte) error {
	g := wire.GRE{CallID: c.PeerID(), Payload: payload}
	c.mu.Lock()
	if payload != nil {
		g.HasSeq, g.Sequence = true, c.next
		c.next++
		c.sentAny = true
	}
	if c.owesAck {
		g.HasAck, g.Ack, c.owesAck = true, c.last, false
	}
	c.stats.Sent++
	c.mu.Unlock()
	if !g.HasSeq && !g.HasAck {
		return nil
	}
	return c.node.gre.send(c.remote, wire.EncodeGRE(g))
}

// SendGRE sends a packet for a call that carries something of its own; the Call
// ID is filled in. Numbers are the sender's business.
func (c *Call) SendGRE(g wire.GRE) error {
	g.CallID = c.PeerID()
	return c.node.gre.send(c.remote, wire.EncodeGRE(g))
}

// Up is closed as soon as the other side's Call ID is known.
func (c *Call) Up() <-chan struct{} { return c.answered }

// Complete is closed when the call is set up for good: with the other side's
// Call ID its receive window is known too. That is later than Up for the PNS of
// an incoming call, which has both after Incoming-Call-Connected only.
func (c *Call) Complete() <-chan struct{} { return c.complete }

// Window is how many packets the other side takes unacknowledged, as it said
// when the call was set up; 0 before Complete.
func (c *Call) Window() int {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	return int(c.window)
}

// Acknowledge sends an acknowledgement alone, if one is due.
func (c *Call) Acknowledge() error { return c.send(nil) }

// take handles a packet that arrived for the call.
func (c *Call) take(g wire.GRE) {
	if c.carry != nil {
		c.carry(g)
		return
	}
	var k kind
	var counter uint32
	if len(g.Payload) > 0 {
		var token uint64
		var err error
		switch k, token, counter, err = readStamp(g.Payload); {
		case err != nil:
			c.node.fault("%v: %v", c, err)
			return
		case token == c.before && c.before != c.token:
			c.late()
			return
		case token != c.token:
			c.node.fault("%v: payload of another call: token %016x instead of %016x", c, token, c.token)
			return
		}
	}
	if !c.account(g) || len(g.Payload) == 0 {
		return
	}
	question, answer, reply := askCalled, toldCaller, toldCalled
	if !c.caller {
		question, answer, reply = askCaller, toldCalled, toldCaller
	}
	switch k {
	case question:
		c.node.mu.Lock()
		up := c.up
		c.node.mu.Unlock()
		c.mu.Lock()
		if !up {
			c.stats.Early++ // where to answer is not known yet
			c.mu.Unlock()
			return
		}
		c.stats.Questions++
		c.mu.Unlock()
		if err := c.send(makeStamp(reply, c.token, counter, len(g.Payload))); err != nil {
			c.node.cfg.Log("%v: send answer: %v", c, err)
		}
	case answer:
		c.mu.Lock()
		c.stats.Answers++
		w := c.waiting[counter]
		delete(c.waiting, counter)
		c.mu.Unlock()
		if w != nil {
			close(w)
		}
	default:
		c.node.fault("%v: its own %v came back to it", c, k)
	}
}

// account keeps the books of sequence and acknowledgement numbers. It says no
// to a packet that cannot be this call's.
func (c *Call) account(g wire.GRE) bool {
	ended := c.Ended() != ""
	c.mu.Lock()
	c.stats.Received++
	if ended {
		c.stats.LateAfterEnd++
	}
	if g.HasAck && (!c.sentAny || int32(g.Ack-c.next) >= 0) {
		c.mu.Unlock()
		if c.before != 0 && len(g.Payload) == 0 {
			c.late()
		} else {
			c.node.fault("%v: acknowledgement %d of a packet never sent", c, g.Ack)
		}
		return false
	}
	defer c.mu.Unlock()
	if !g.HasSeq {
		return true
	}
	switch step := int32(g.Sequence - c.last); {
	case !c.received:
		c.last, c.received = g.Sequence, true
	case step > 0:
		c.stats.Gaps += int(step) - 1
		c.last = g.Sequence
	default:
		c.stats.Reordered++
	}
	c.owesAck = true
	return true
}

func (c *Call) late() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.LateAfterEnd++
}

// ask sends one question; the channel closes with the answer.
func (c *Call) ask(size int) (<-chan struct{}, error) {
	k := askCaller
	if !c.caller {
		k = askCalled
	}
	w := make(chan struct{})
	c.mu.Lock()
	c.counter++
	counter := c.counter
	c.waiting[counter] = w
	c.mu.Unlock()
	return w, c.send(makeStamp(k, c.token, counter, size))
}

// ErrNoAnswer says that a GRE packet or its answer was lost.
var ErrNoAnswer = errors.New("no answer")

// Echo sends questions of size bytes one after the other and waits for the
// answer to each. Nothing is sent twice: a lost packet is an error.
func (c *Call) Echo(ctx context.Context, count, size int) error {
	return c.EchoWithin(ctx, c.node.cfg.Timeout, count, size)
}

// EchoWithin is Echo with a patience of one's own for every answer.
func (c *Call) EchoWithin(ctx context.Context, patience time.Duration, count, size int) error {
	for i := range count {
		w, err := c.ask(size)
		if err != nil {
			return fmt.Errorf("%v: send GRE: %w", c, err)
		}
		timer := time.NewTimer(patience)
		select {
		case <-w:
			timer.Stop()
		case <-timer.C:
			return fmt.Errorf("%v: %w to GRE packet %d of %d", c, ErrNoAnswer, i+1, count)
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%v: GRE packet %d of %d: %w", c, i+1, count, ctx.Err())
		}
	}
	return c.Acknowledge()
}

// Traffic is a steady stream of questions on a call.
type Traffic struct {
	call    *Call
	stop    context.CancelFunc
	done    chan struct{}
	sent    int
	answers int // before it began
	err     error
}

// Traffic asks at a steady pace in the background, without waiting for answers.
func (c *Call) Traffic(interval time.Duration, size int) *Traffic {
	ctx, cancel := context.WithCancel(c.node.ctx)
	t := &Traffic{call: c, stop: cancel, done: make(chan struct{}), answers: c.Stats().Answers}
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	if c.node.closed {
		close(t.done)
		return t
	}
	c.node.wg.Add(1)
	go func() {
		defer c.node.wg.Done()
		defer close(t.done)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if _, t.err = c.ask(size); t.err != nil {
					return
				}
				t.sent++
			}
		}
	}()
	return t
}

// Stop ends the stream, gives the last answers a moment, and says how many
// packets were sent and how many of them were never answered.
func (t *Traffic) Stop(ctx context.Context) (sent, lost int, err error) {
	t.stop()
	<-t.done
	for end := time.Now().Add(2 * time.Second); ; {
		lost = t.sent - (t.call.Stats().Answers - t.answers)
		if lost <= 0 || t.err != nil || ctx.Err() != nil || time.Now().After(end) {
			return t.sent, lost, t.err
		}
		time.Sleep(5 * time.Millisecond)
	}
}
