package alg

import (
	"errors"
	"fmt"
	"time"

	"pptp-alg/nat"
)

// errRecord says that a record cannot be right.
var errRecord = errors.New("impossible record")

// Restore takes up a connection. Its calls, which are restored already, are in
// calls. What was sent while nobody looked has passed as it was, so the
// connection counts as one that was first seen in the middle of its life.
func (a *ALG) Restore(now time.Time, r Record, calls *nat.Connection) (*Connection, error) {
	if r.State > Closed || a.flows[r.Flow] != nil || !r.Flow.Client.IsValid() || !r.Flow.Server.IsValid() {
		return nil, fmt.Errorf("%w of control connection %v", errRecord, r.Flow)
	}
	c := &Connection{
		Flow: r.Flow, State: r.State, Since: r.Since, Midstream: true, Unparsed: r.Unparsed, Reason: r.Reason,
		alg: a, calls: calls, opened: r.Opened, known: r.Known, passed: r.Unparsed != "",
	}
	for i := range c.dirs {
		d := &c.dirs[i]
		d.conn, d.side = c, nat.Side(i)
		if err := d.restore(r.Streams[i]); err != nil {
			// The next message is found, and the calls are right.
			d.giveBack(now)
			d.restart(seeking)
		}
		if r.Unparsed != "" {
			d.giveBack(now)
			d.restart(blind)
		}
	}
	a.flows[r.Flow] = c
	switch c.State {
	case Closing:
		a.table.Schedule(&c.until, now.Add(closingLinger), func(now time.Time) { c.close(now, c.Reason) })
	case Closed:
		a.table.Schedule(&c.until, now.Add(closedLinger), c.remove)
	}
	return c, nil
}

// restore takes up one direction. An error says that it cannot go on in the middle
// of its message.
func (d *direction) restore(r StreamRecord) error {
	if !r.Started {
		return nil
	}
	d.started, d.next, d.fin, d.finSeq, d.restored = true, r.Next, r.Fin, r.FinSeq, true
	d.past = history{edge: r.Edge, forgot: r.Forgot, floor: r.Floor}
	for _, m := range r.Marks {
		d.past.marks = append(d.past.marks, mark{m.Seq, m.Byte})
	}
	// A gap is what was sent while nobody looked. It is waited for once.
	d.giveUps = maxGiveUps - 1
	if r.Seeking {
		d.mode = seeking
		return nil
	}
	if p := r.Partial; p != nil {
		return d.resume(p)
	}
	return nil
}

// resume goes on in the middle of a message.
func (d *direction) resume(p *PartialRecord) error {
	bad := fmt.Errorf("%w of a message from the %v", errRecord, d.side)
	if p.N < 0 || p.Excess < 0 || p.Excess > overstatedLength || len(p.Head) != min(p.N, maxNeeded) ||
		p.Size == 0 && p.N >= headerSize || p.Size != 0 && (p.N >= p.Size || p.Size > 1<<16-1) {
		return bad
	}
	copy(d.head[:], p.Head)
	d.n, d.size, d.excess = p.N, p.Size, p.Excess
	if !p.Typed || p.Size == 0 {
		return nil
	}
	d.kind = MessageType(be16(d.head[offMessageType:]))
	d.layout = layoutOf(d.kind)
	if d.layout == nil || p.N < headerSize || p.Size < d.layout.length {
		return bad
	}
	f := &d.fields
	f.promised, f.refuse = p.Promised, p.Refuse
	if p.Err != "" {
		f.err = errors.New(p.Err)
	}
	// The call may have been over and forgotten since this was written down.
	f.call = d.conn.calls.Call(p.Call)
	if f.call != nil && d.layout.peer != 0 && f.call.End(d.side.Other()) == nil {
		return fmt.Errorf("%w: it answers call %d", bad, p.Call)
	}
	var err error
	if p.Mapping != 0 {
		if f.mapping, err = d.conn.calls.Claim(d.side, p.Mapping); err != nil {
			return fmt.Errorf("%w: %w", bad, err)
		}
	}
	for _, field := range [...]struct {
		id *callID
		r  FieldRecord
	}{{&f.own, p.Own}, {&f.peer, p.Peer}} {
		*field.id = callID{value: field.r.Value, known: field.r.Known, high: field.r.High, sent: field.r.Sent}
		if field.r.Held != nil {
			if field.id.held, err = d.conn.calls.Hold(d.side, *field.r.Held); err != nil {
				return fmt.Errorf("%w: %w", bad, err)
			}
		}
	}
	return nil
}

// missed finds the call that a reply is for whose request passed untranslated,
// before we came or while nobody looked.
func (d *direction) missed(now time.Time, told uint16) *nat.Call {
	other, dir := d.side.Other(), nat.Outgoing
	if d.kind == IncomingCallReplyType {
		dir = nat.Incoming
	}
	// The request may be known, and have been repeated meanwhile: then the other
	// side was told two Call IDs for it, and this is the later one.
	if old := d.conn.calls.Own(other, told); old != nil && old.State == nat.Requested && !old.Refused && old.Direction == dir {
		d.conn.calls.End(now, old, "its request was repeated while nobody translated")
	}
	return d.conn.calls.Adopt(now, other, dir, told)
}
