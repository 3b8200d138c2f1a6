package alg

import (
	"slices"
	"time"

	"pptp-alg/nat"
)

// Policy for segments that have to wait. TCP sends again what is dropped, so
// these bound delay and memory, not correctness.
const (
	maxHeld      = 64              // segments that one direction may hold
	maxHeldBytes = 64 << 10        // and their payload
	holdTime     = time.Second     // how long one waits for what comes before it
	halfTime     = 5 * time.Second // how long one waits for the rest of a Call ID
	maxGiveUps   = 3               // so often the same gap may time out
)

// direction is the TCP stream from one side to the other. It puts segments in
// order, gives new bytes to the framer once, and repeats the forwarded copy in
// everything that was sent before.
type direction struct {
	conn *Connection
	side nat.Side // the sender

	started bool
	next    uint32 // sequence number of the first byte that was not forwarded yet
	past    history
	framer

	held      []*Segment // what waits, in order; the first may be forwarded but for its last byte
	heldBytes int
	giveUps   int
	until     nat.Deadline

	fin    bool
	finSeq uint32

	restored bool // and nothing was forwarded since
}

// outcome is what forward did with a segment.
type outcome uint8

const (
	forwarded outcome = iota
	waits             // for bytes that come before it, or for the rest of a Call ID
	unknown           // repeats bytes that are no longer known
	tooMuch           // is unacknowledged already
)

// start sets where the stream begins, or where we begin to see it.
func (d *direction) start(now time.Time, seq uint32, m mode) {
	d.giveBack(now)
	if d.conn.passed {
		m = blind
	}
	d.started, d.restored, d.next = true, false, seq
	before := len(d.past.buf)
	d.past.reset(seq)
	d.remember(before)
	d.restart(m)
	d.conn.alg.changed(d.conn)
}

// segment forwards a segment and those that waited for it, or holds it.
func (d *direction) segment(now time.Time, s *Segment) {
	if !d.started {
		d.start(now, s.dataSeq(), seeking)
	}
	if len(d.held) == 0 {
		switch d.forward(now, s) {
		case forwarded:
			d.release(now, s)
			return
		case unknown:
			d.conn.drop(s, &d.conn.alg.Counters.DroppedUnknown)
			return
		case tooMuch:
			d.conn.drop(s, &d.conn.alg.Counters.DroppedBudget)
			return
		}
	}
	d.hold(now, s)
	d.drain(now)
	for d.holdsTooMuch() {
		d.conn.drop(d.unhold(len(d.held)-1), &d.conn.alg.Counters.DroppedHeld)
	}
}

// forward brings the segment's bytes into the form in which the receiver is to
// see them.
func (d *direction) forward(now time.Time, s *Segment) outcome {
	seq := s.dataSeq()
	end := seq + uint32(len(s.Payload))
	switch {
	case len(s.Payload) == 0:
		return forwarded
	case d.mode == blind:
		if int32(seq-d.next) > 1<<30 {
			before := len(d.past.buf)
			d.past = history{edge: d.next} // sequence numbers come round
			d.remember(before)
		}
		d.past.overlay(s, seq, d.next)
		return forwarded
	case after(seq, d.next) && d.mode == seeking:
		d.start(now, seq, seeking) // what we missed is no loss while nothing is known
	case after(seq, d.next):
		return waits
	case d.past.lost(seq, end, d.next):
		return unknown
	}
	if after(end, d.next) && d.mustWait(int(end-d.next)) {
		return tooMuch
	}
	d.past.overlay(s, seq, d.next)
	if !after(end, d.next) {
		d.conn.alg.Counters.Retransmitted[d.side]++
		return forwarded
	}
	from := int(d.next - seq)
	n, err := d.consume(now, s, from)
	before := len(d.past.buf)
	d.past.add(s.Payload[from : from+n])
	d.remember(before)
	d.next += uint32(n)
	d.giveUps, d.restored = 0, false
	d.conn.alg.changed(d.conn)
	switch {
	case err != nil:
		d.conn.unparsed(now, d.side, err)
	case from+n < len(s.Payload):
		return waits
	}
	return forwarded
}

// release lets a forwarded segment go.
func (d *direction) release(now time.Time, s *Segment) {
	if s.Flags&FIN != 0 {
		d.fin, d.finSeq = true, s.dataSeq()+uint32(len(s.Payload))
		d.conn.alg.changed(d.conn)
		d.conn.finished(now, d.side)
	}
	d.conn.decide(s, Accept)
}

// hold keeps a segment until the bytes before it have come.
func (d *direction) hold(now time.Time, s *Segment) {
	i, _ := slices.BinarySearchFunc(d.held, s, func(a, b *Segment) int {
		if before(b.dataSeq(), a.dataSeq()) {
			return 1
		}
		return -1 // equal ones stay in the order in which they came
	})
	d.held = slices.Insert(d.held, i, s)
	d.heldBytes += len(s.Payload)
	d.holding(1)
	d.conn.alg.Counters.Held++
	if len(d.held) == 1 {
		d.conn.alg.table.Schedule(&d.until, now.Add(d.patience()), d.expire)
	}
}

// unhold takes a segment out of those that wait.
func (d *direction) unhold(i int) *Segment {
	s := d.held[i]
	d.held = slices.Delete(d.held, i, i+1)
	d.heldBytes -= len(s.Payload)
	d.holding(-1)
	if len(d.held) == 0 {
		d.held = nil
		d.until.Clear()
	}
	return s
}

// drain forwards what no longer has to wait.
func (d *direction) drain(now time.Time) {
	for len(d.held) > 0 {
		switch d.forward(now, d.held[0]) {
		case forwarded:
			d.release(now, d.unhold(0))
		case unknown:
			d.conn.drop(d.unhold(0), &d.conn.alg.Counters.DroppedUnknown)
		case tooMuch:
			d.conn.drop(d.unhold(0), &d.conn.alg.Counters.DroppedBudget)
		case waits:
			return
		}
	}
}

// peek returns a byte that has come but was not forwarded yet.
func (d *direction) peek(seq uint32) (byte, bool) {
	for _, s := range d.held {
		if at := int32(seq - s.dataSeq()); at >= 0 && int(at) < len(s.Payload) {
			return s.Payload[at], true
		}
	}
	return 0, false
}

// patience is how long what waits may wait.
func (d *direction) patience() time.Duration {
	if d.halved() {
		return halfTime
	}
	return holdTime
}

// halved reports whether what waits is half a Call ID, not for earlier bytes.
func (d *direction) halved() bool { return !after(d.held[0].dataSeq(), d.next) }

// expire deals with segments that waited too long.
func (d *direction) expire(now time.Time) {
	if len(d.held) == 0 {
		return
	}
	if d.halved() {
		// The rest of a Call ID does not come; perhaps its sender waits for
		// the first half to be acknowledged.
		d.guess = true
		d.drain(now)
		d.guess = false
	} else if d.giveUps++; d.giveUps < maxGiveUps {
		for len(d.held) > 0 {
			d.conn.drop(d.unhold(len(d.held)-1), &d.conn.alg.Counters.DroppedHeld)
		}
	} else {
		// The missing bytes went another way. Go on without them.
		d.conn.alg.Counters.Resynchronised++
		d.start(now, d.held[0].dataSeq(), seeking)
		d.drain(now)
	}
	if len(d.held) > 0 {
		d.conn.alg.table.Schedule(&d.until, now.Add(d.patience()), d.expire)
	}
}

// acknowledged takes note of what the receiver has.
func (d *direction) acknowledged(now time.Time, ack uint32) {
	switch {
	case d.mode == blind && after(ack, d.next):
		ack = d.next // what came after the stream became blind is not remembered
	case d.mode == blind:
	case !d.started:
		d.start(now, ack, seeking)
	case after(ack, d.next) && d.fin && ack == d.finSeq+1 && d.next == d.finSeq:
		ack = d.next
	case after(ack, d.next):
		// The receiver has bytes that never came by here.
		if d.mode != seeking {
			d.conn.alg.Counters.Resynchronised++
		}
		d.start(now, ack, seeking)
		d.drain(now)
	}
	before := len(d.past.buf)
	d.past.acknowledge(ack, d.next)
	d.remember(before)
}

// abandon lets go of everything that waits.
func (d *direction) abandon(v Verdict) {
	for len(d.held) > 0 {
		d.conn.decide(d.unhold(0), v)
	}
}
