package alg

import (
	"fmt"
	"net/netip"
	"time"

	"pptp-alg/nat"
)

// Flow names a control connection by the addresses and ports that its segments
// have where they are seen: the real ones of both ends.
type Flow struct {
	Client, Server netip.AddrPort
	Zone           nat.Zone
}

func (f Flow) String() string { return fmt.Sprintf("%v -> %v", f.Client, f.Server) }

// State is where a control connection is in its life.
type State uint8

// States of a control connection.
const (
	Starting    State = iota // opened, no Start-Control-Connection-Reply yet
	Established              // up
	Refused                  // the other side did not want it
	Stopping                 // a Stop-Control-Connection-Request was sent
	Closing                  // one side closed its TCP stream
	Closed                   // both did, or it was reset or disappeared
)

func (s State) String() string {
	return [...]string{"starting", "established", "refused", "stopping", "closing", "closed"}[s]
}

// Lives of connections that are over, or seem to be.
const (
	closedLinger  = 30 * time.Second // retransmissions still pass
	closingLinger = 2 * time.Minute  // one side closed, the other did not
	lostLinger    = 90 * time.Second // keepalives come every 60 s (RFC 2637, section 3.1.4)
	overLinger    = 5 * time.Second  // conntrack has waited before it forgot
)

// Connection is one control connection. Its exported fields are to be read.
type Connection struct {
	Flow      Flow
	State     State
	Since     time.Time
	Midstream bool   // first seen in the middle of its life
	Unparsed  string // why it is not understood; empty if it is
	Reason    string // why it was refused, or else why it ended
	Note      any    // the caller's

	alg    *ALG
	passed bool // Ignore
	calls  *nat.Connection
	dirs   [2]direction
	opened [2]uint32 // sequence number behind each side's SYN
	known  [2]bool   // opened is valid
	lost   bool
	until  nat.Deadline
}

// Calls returns the connection's calls.
func (c *Connection) Calls() *nat.Connection { return c.calls }

// Path returns the way between the connection's ends.
func (c *Connection) Path() nat.Path { return c.calls.Path }

// Reopens reports whether the segment begins another connection between the
// same addresses and ports. The caller then closes this one and opens a new
// one, whose NAT may differ.
func (c *Connection) Reopens(s *Segment) bool {
	d := &c.dirs[s.From]
	if s.Flags&SYN == 0 {
		// The beginning may have passed unseen. What follows the end of a
		// connection and is far from its sequence numbers is another one.
		// So is what comes after a time in which nobody looked and is far behind.
		return d.started && len(s.Payload) > 0 &&
			(c.State == Closed && uint32(s.Seq-d.next+maxHistory) > 2*maxHistory ||
				d.restored && before(s.Seq, d.next-maxHistory))
	}
	return d.started && (!c.known[s.From] || c.opened[s.From] != s.Seq+1)
}

// Segment takes a segment of the connection. Each segment is decided once,
// through Config.Decide: this one, now or later, and those that waited for it.
func (c *Connection) Segment(now time.Time, s *Segment) {
	d, back := &c.dirs[s.From], &c.dirs[s.From.Other()]
	if c.lost {
		c.lost = false
		c.until.Clear()
	}
	if s.Flags&RST != 0 {
		c.close(now, fmt.Sprintf("control connection reset by the %v", s.From))
		c.decide(s, Accept)
		return
	}
	if s.Flags&SYN != 0 && !d.started {
		c.opened[s.From], c.known[s.From] = s.Seq+1, true
		d.start(now, s.Seq+1, parsing)
		if s.Flags&ACK != 0 && !back.started {
			c.opened[s.From.Other()], c.known[s.From.Other()] = s.Ack, true
			back.start(now, s.Ack, parsing)
		}
	}
	if !d.started && !back.started {
		c.Midstream = true
	}
	if s.Flags&ACK != 0 {
		back.acknowledged(now, s.Ack)
	}
	d.segment(now, s)
}

// Ignore lets the connection's segments pass as they are from now on, because
// somebody else translates it. Its end is still noticed.
func (c *Connection) Ignore(now time.Time, reason string) {
	c.Unparsed, c.passed = reason, true
	for i := range c.dirs {
		c.dirs[i].giveBack(now)
		c.dirs[i].restart(blind)
		c.dirs[i].drain(now)
	}
	c.alg.changed(c)
}

// found notes that a message was found in the middle of the stream.
func (c *Connection) found() {
	if c.State == Starting {
		c.State = Established
	}
}

// unparsed stops translating: the bytes are not PPTP.
func (c *Connection) unparsed(now time.Time, side nat.Side, err error) {
	if c.Unparsed == "" {
		c.Unparsed = fmt.Sprintf("from the %v: %v", side, err)
		c.alg.Counters.Unparsed++
		c.alg.notify(ConnectionUnparsed, now, c)
	}
	for i := range c.dirs {
		c.dirs[i].giveBack(now)
		c.dirs[i].restart(blind)
	}
	// The segments of this side that wait go on as soon as the one that was
	// not understood has.
	c.dirs[side.Other()].drain(now)
	c.alg.changed(c)
}

// finished notes the end of one side's stream. PPTP's calls end with the
// control connection (RFC 2637, section 3.1.2).
func (c *Connection) finished(now time.Time, side nat.Side) {
	if c.dirs[side.Other()].fin {
		c.close(now, fmt.Sprintf("control connection closed by the %v", side.Other()))
		return
	}
	if c.State == Closed || c.State == Closing {
		return
	}
	reason := fmt.Sprintf("control connection closed by the %v", side)
	c.State = Closing
	c.because(reason)
	c.alg.changed(c)
	c.calls.EndAll(now, reason)
	c.alg.table.Schedule(&c.until, now.Add(closingLinger), func(now time.Time) { c.close(now, reason) })
}

// Lost says that conntrack no longer knows the connection. It ends unless it
// shows a sign of life before its next keepalive is overdue.
func (c *Connection) Lost(now time.Time) {
	c.missing(now, lostLinger)
}

// Over says that conntrack saw the end of the connection, and has forgotten it
// since. Its last segments did not come by here: our rules were gone, say.
func (c *Connection) Over(now time.Time) { c.missing(now, overLinger) }

// missing ends the connection after a while, unless it shows a sign of life.
func (c *Connection) missing(now time.Time, linger time.Duration) {
	if c.State == Closed || c.State == Closing || c.lost {
		return
	}
	c.lost = true
	c.alg.table.Schedule(&c.until, now.Add(linger), func(now time.Time) {
		c.lost = false
		c.close(now, "control connection disappeared")
	})
}

// Close ends the connection and its calls at once.
func (c *Connection) Close(now time.Time, reason string) {
	c.close(now, reason)
	c.remove(now)
}

func (c *Connection) close(now time.Time, reason string) {
	if c.State == Closed {
		return
	}
	c.State = Closed
	c.because(reason)
	c.alg.changed(c)
	for i := range c.dirs {
		c.dirs[i].giveBack(now)
	}
	c.calls.Close(now, reason)
	c.alg.notify(ConnectionClosed, now, c)
	c.alg.table.Schedule(&c.until, now.Add(closedLinger), c.remove)
}

// because notes why the connection is over. The first reason is the cause of the
// others.
func (c *Connection) because(reason string) {
	if c.Reason == "" {
		c.Reason = reason
	}
}

// remove forgets the connection.
func (c *Connection) remove(now time.Time) {
	c.until.Clear()
	for i := range c.dirs {
		c.dirs[i].giveBack(now)
		c.dirs[i].abandon(Accept)
		before := len(c.dirs[i].past.buf)
		c.dirs[i].past = history{}
		c.dirs[i].remember(before)
	}
	if c.alg.flows[c.Flow] == c {
		delete(c.alg.flows, c.Flow)
	}
	c.alg.changed(c)
}

func (c *Connection) decide(s *Segment, v Verdict) {
	if s.Changed {
		c.alg.Counters.Changed++
	}
	c.alg.cfg.Decide(s, v)
}

func (c *Connection) drop(s *Segment, counter *uint64) {
	*counter++
	c.decide(s, Drop)
}
