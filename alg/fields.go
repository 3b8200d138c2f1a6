package alg

import (
	"time"

	"pptp-alg/nat"
)

// fields is what was decided about the Call IDs of the current message. A
// message can come in pieces, so decisions are made as early as its bytes have
// to go on, and kept for the rest.
type fields struct {
	own, peer callID
	call      *nat.Call    // the call that the message is about, once known
	mapping   *nat.Mapping // an answer's own Call ID, until the call is known
	err       error        // why an answer's own Call ID could not be mapped
	promised  bool         // an answer's own Call ID was told before its result came
	refuse    bool         // turn the answer into a refusal
}

// callID is one Call ID field.
type callID struct {
	value uint16 // what is written, once known
	known bool
	high  byte // its high byte, forwarded before the low one came
	sent  bool // high was forwarded
	held  *nat.Mapping
}

// keep returns the ID as it was sent, but for a high byte that has gone on
// already in another form.
func (f *callID) keep(id uint16) uint16 {
	if f.sent {
		return uint16(f.high)<<8 | id&0xff
	}
	return id
}

// translate translates the fields among the message's next k bytes, which
// begin at the segment's payload offset i and are in head already. It returns
// how many of them can go on: k, or k-1 if the last one is half a Call ID.
func (d *direction) translate(now time.Time, s *Segment, i, k int) int {
	lo, hi := d.n, d.n+k
	put := func(at int, b byte) {
		if at >= lo && at < hi {
			if s.Payload[i+at-lo] != b {
				d.past.mark(s.dataSeq()+uint32(i+at-lo), b)
			}
			s.set(i+at-lo, b)
		}
	}
	for _, f := range [...]struct {
		off int
		id  *callID
	}{{d.layout.own, &d.fields.own}, {d.layout.peer, &d.fields.peer}} {
		if f.off == 0 || f.off+callIDSize <= lo || f.off >= hi {
			continue
		}
		if !f.id.known && f.off+1 == hi {
			// The message is cut inside the field. The low byte may be among
			// the segments that wait.
			if low, ok := d.peek(s.dataSeq() + uint32(i+k)); ok {
				d.head[f.off+1] = low
				d.decide(now, f.id, hi+1)
			} else if high, ok := d.half(f.id, d.head[f.off]); ok {
				f.id.high, f.id.sent = high, true
				put(f.off, high)
				continue
			} else {
				return k - 1
			}
		}
		if !f.id.known {
			d.decide(now, f.id, hi)
		}
		put(f.off, byte(f.id.value>>8))
		put(f.off+1, byte(f.id.value))
	}
	if d.fields.promised && hi > d.layout.result {
		d.fields.promised = false
		d.announce(now, &d.fields.own, be16(d.head[d.layout.own:]))
	}
	if d.fields.refuse && d.head[d.layout.result] == resultOK {
		put(d.layout.result, resultGeneralError)
		put(d.layout.result+1, errorNoResource)
	}
	return k
}

// decide chooses what is written into a field of which both bytes are known.
// have is how many bytes of the message are.
func (d *direction) decide(now time.Time, id *callID, have int) {
	id.known = true
	if id == &d.fields.peer {
		d.decidePeer(now, id)
		return
	}
	own := be16(d.head[d.layout.own:])
	calls := d.conn.calls
	switch d.kind {
	case OutgoingCallRequestType, IncomingCallRequestType:
		dir := nat.Outgoing
		if d.kind == IncomingCallRequestType {
			dir = nat.Incoming
		}
		d.fields.call = calls.Request(now, d.side, dir, own, id.held)
		id.held = nil // the call's now
		id.value = d.fields.call.End(d.side).Told
	case OutgoingCallReplyType, IncomingCallReplyType:
		d.decideAnswer(now, id, own, have)
	case CallDisconnectNotifyType:
		// The RFC has the sender's own ID here, some servers send the
		// receiver's. One that is live goes first, and of two live ones that
		// of a call which the receiver asked to clear: it waits for this.
		call, theirs := calls.Own(d.side, own), calls.Peer(d.side.Other(), own)
		if theirs != nil && theirs != call && (call == nil || !call.Live() && theirs.Live() ||
			theirs.State == nat.Clearing && call.State != nat.Clearing) {
			d.fields.call, id.value = theirs, theirs.End(d.side.Other()).Real
			return
		}
		d.refer(id, call, own)
	default:
		d.refer(id, calls.Own(d.side, own), own)
	}
}

// refer writes the told form of the sender's own ID of a known call.
func (d *direction) refer(id *callID, call *nat.Call, own uint16) {
	d.fields.call, id.value = call, id.keep(own)
	if call != nil {
		id.value = call.End(d.side).Told
	} else {
		d.conn.alg.Counters.UnknownCallID[d.side]++
	}
}

// decideAnswer maps the own Call ID of a reply that accepts a call. When the
// message is cut before the result, it is promised only: other replies have
// any number there, and no call may suffer from that.
func (d *direction) decideAnswer(now time.Time, id *callID, own uint16, have int) {
	if have <= d.layout.result {
		id.held = d.conn.calls.Promise(d.side, own, id.held)
		id.value, d.fields.promised = id.held.Told, true
		return
	}
	id.value = id.keep(own)
	d.answered(now, be16(d.head[d.layout.peer:]))
	if m := d.announce(now, id, own); m != nil {
		id.value = m.Told
	}
}

// announce maps the own Call ID of a reply whose call and result are known, if
// it accepts the call.
func (d *direction) announce(now time.Time, id *callID, own uint16) *nat.Mapping {
	f := &d.fields
	if d.head[d.layout.result] != resultOK || f.call == nil || f.refuse {
		d.giveBack(now)
		return nil
	}
	m, err := d.conn.calls.Announce(now, d.side, own, id.held)
	if err != nil {
		d.giveBack(now)
		f.err, f.refuse = err, true
		return nil
	}
	id.held, f.mapping = nil, m
	return m
}

// answered finds the call that a reply is for.
func (d *direction) answered(now time.Time, told uint16) {
	f := &d.fields
	if f.call != nil {
		return
	}
	other := d.side.Other()
	f.call = d.conn.calls.Peer(other, told)
	if f.call == nil && d.conn.Midstream {
		f.call = d.missed(now, told)
	}
	// An answer that accepts what is over here, say because it came too late,
	// would make a call whose GRE goes nowhere.
	f.refuse = f.call != nil && (f.call.Refused || !f.call.Live())
}

// decidePeer translates the receiver's Call ID back.
func (d *direction) decidePeer(now time.Time, id *callID) {
	told := be16(d.head[d.layout.peer:])
	other := d.side.Other()
	if d.layout.own != 0 {
		d.answered(now, told)
	} else {
		d.fields.call = d.conn.calls.Peer(other, told)
	}
	if call := d.fields.call; call != nil {
		id.value = call.End(other).Real
		return
	}
	id.value = id.keep(told)
	d.conn.alg.Counters.UnknownCallID[d.side]++
}

// half decides the high byte of a field whose low byte has not come. It fails
// when that depends on the low byte.
func (d *direction) half(id *callID, high byte) (byte, bool) {
	calls := d.conn.calls
	if id.sent {
		return id.high, true
	}
	if id == &d.fields.own {
		switch d.kind {
		case OutgoingCallRequestType, OutgoingCallReplyType, IncomingCallRequestType, IncomingCallReplyType:
			id.held = calls.Reserve(d.side, high)
			return byte(id.held.Told >> 8), true
		}
	}
	choice, known, clash := high, false, false
	offer := func(from, to byte) {
		if from == high {
			clash = clash || known && to != choice
			choice, known = to, true
		}
	}
	if id == &d.fields.own {
		calls.Blocks(d.side, offer)
	}
	if id == &d.fields.peer || d.kind == CallDisconnectNotifyType {
		calls.Blocks(d.side.Other(), func(real, told byte) { offer(told, real) })
	}
	return choice, !clash || d.guess
}

// giveBack frees what was taken for an own Call ID that is not mapped.
func (d *direction) giveBack(now time.Time) {
	f := &d.fields
	if f.own.held != nil {
		d.conn.calls.Discard(now, f.own.held)
		f.own.held = nil
	}
	if f.mapping != nil {
		d.conn.calls.Discard(now, f.mapping)
		f.mapping = nil
	}
}
