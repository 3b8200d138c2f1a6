package alg

import (
	"time"

	"pptp-alg/nat"
)

// maxRecordMarks bounds how many translated bytes of a direction a Record has:
// those that the receiver may still want, of the last sixteen messages at
// least.
const maxRecordMarks = 64

// Record is what there is to know of a control connection to go on with it in
// another process, beside its calls. Segments that wait are not part of it:
// their senders repeat them.
type Record struct {
	ID        uint64 // that of Connection.Calls
	Flow      Flow
	Path      nat.Path
	State     State
	Since     time.Time
	Midstream bool
	Unparsed  string
	Reason    string
	Opened    [2]uint32 // by Side: sequence number behind its SYN
	Known     [2]bool   // Opened is valid
	Streams   [2]StreamRecord
}

// StreamRecord is one direction of a control connection.
type StreamRecord struct {
	Started, Seeking bool
	Next, Edge       uint32 // what was forwarded, and what the receiver is known to have
	Fin              bool
	FinSeq           uint32
	Marks            []Mark
	Forgot           bool   // there were more marks, the last of them
	Floor            uint32 // at this sequence number
	Partial          *PartialRecord
}

// Mark is one byte that was forwarded otherwise than it was sent.
type Mark struct {
	Seq  uint32
	Byte byte
}

// PartialRecord is a message of which only a part was forwarded yet.
type PartialRecord struct {
	Head            []byte // its first bytes as they were sent, as far as they matter
	N, Size, Excess int    // as in the framer
	Typed           bool   // it is a message of a known type
	Own, Peer       FieldRecord
	Call            uint64 // number of the call that it is about; 0: not known
	Mapping         uint16 // told Call ID of the mapping that Announce returned; 0: none
	Err             string // why there is no mapping
	Promised        bool
	Refuse          bool
}

// FieldRecord is what was decided about one Call ID field.
type FieldRecord struct {
	Value uint16
	Known bool
	High  byte
	Sent  bool
	Held  *nat.HeldRecord
}

// Gone reports whether the connection is forgotten.
func (c *Connection) Gone() bool { return c.alg.flows[c.Flow] != c }

// Record returns what there is to know of the connection. It is right between
// two segments.
func (c *Connection) Record() Record {
	r := Record{
		ID: c.calls.ID, Flow: c.Flow, Path: c.calls.Path, State: c.State, Since: c.Since, Midstream: c.Midstream,
		Unparsed: c.Unparsed, Reason: c.Reason, Opened: c.opened, Known: c.known,
	}
	for i := range c.dirs {
		r.Streams[i] = c.dirs[i].record()
	}
	return r
}

func (d *direction) record() StreamRecord {
	r := StreamRecord{
		Started: d.started, Seeking: d.mode == seeking, Next: d.next, Edge: d.past.edge,
		Fin: d.fin, FinSeq: d.finSeq, Forgot: d.past.forgot, Floor: d.past.floor,
	}
	if d.mode == blind || !d.started {
		return r
	}
	// What the receiver has, it does not look at any more.
	marks := d.past.marks
	for len(marks) > 0 && before(marks[0].seq, d.past.edge) {
		marks = marks[1:]
	}
	if drop := len(marks) - maxRecordMarks; drop > 0 {
		r.Forgot, r.Floor = true, marks[drop-1].seq
		marks = marks[drop:]
	}
	for _, m := range marks {
		r.Marks = append(r.Marks, Mark{m.seq, m.b})
	}
	if d.mode == parsing && (d.n > 0 || d.excess > 0) {
		r.Partial = d.partial()
	}
	return r
}

func (d *direction) partial() *PartialRecord {
	f := &d.fields
	p := &PartialRecord{
		Head: append([]byte(nil), d.head[:min(d.n, maxNeeded)]...), N: d.n, Size: d.size, Excess: d.excess,
		Typed: d.layout != nil,
	}
	if d.layout == nil || d.n >= d.layout.needed {
		return p // it was acted upon
	}
	p.Own, p.Peer, p.Promised, p.Refuse = f.own.record(), f.peer.record(), f.promised, f.refuse
	if f.call != nil && f.call.Kept() { // else it was told and forgotten
		p.Call = f.call.ID
	}
	if f.mapping != nil {
		p.Mapping = f.mapping.Told
	}
	if f.err != nil {
		p.Err = f.err.Error()
	}
	return p
}

func (f *callID) record() FieldRecord {
	r := FieldRecord{Value: f.value, Known: f.known, High: f.high, Sent: f.sent}
	if f.held != nil {
		h := f.held.Held()
		r.Held = &h
	}
	return r
}
