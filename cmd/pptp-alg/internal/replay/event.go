package replay

import (
	"fmt"
	"time"

	"pptp-alg/nat"
)

// Kinds of events.
const (
	KindConnection = "connection" // a control connection begins, is not understood, ends
	KindMessage    = "message"    // a control message
	KindCall       = "call"       // a call is requested, established, ends
	KindGRE        = "gre"        // the first GRE of a call from one side
	KindICMP       = "icmp"       // an error about PPTP's packets
	KindMalformed  = "malformed"  // a packet that can't be read
	KindFragment   = "fragment"   // IP fragments
	KindNote       = "note"       // about the capture
)

// Event is something that happened in the capture. All fields but Time, Packet,
// Kind and Text may be empty.
type Event struct {
	Time       time.Time `json:"time"`   // the capture's clock
	Packet     int       `json:"packet"` // its number in the file, counted from 1
	Kind       string    `json:"kind"`
	Connection int       `json:"connection,omitempty"`
	Call       uint64    `json:"call,omitempty"`
	From       string    `json:"from,omitempty"` // "client" or "server"
	Message    string    `json:"message,omitempty"`
	CallID     *ID       `json:"call_id,omitempty"`      // the sender's own
	PeerCallID *ID       `json:"peer_call_id,omitempty"` // the receiver's
	Text       string    `json:"text"`
}

// ID is a Call ID in a message: as it comes to the router, and as it leaves.
type ID struct {
	Arrives uint16 `json:"arrives"`
	Leaves  uint16 `json:"leaves"`
}

func (i ID) String() string {
	if i.Arrives == i.Leaves {
		return fmt.Sprint(i.Arrives)
	}
	return fmt.Sprintf("%d -> %d", i.Arrives, i.Leaves)
}

// maxAlike bounds the events of one kind that only repeat: a flood of malformed
// packets is not a thousand lines.
const maxAlike = 20

// report hands an event on.
func (r *Replay) report(e Event) {
	e.Time, e.Packet = r.now, r.number
	if r.o.Report != nil {
		r.o.Report(&e)
	}
}

// alike reports an event of a kind that may come in floods.
func (r *Replay) alike(e Event) {
	r.floods[e.Kind]++
	switch n := r.floods[e.Kind]; {
	case n < maxAlike:
		r.report(e)
	case n == maxAlike:
		e.Text += "; more of this kind are counted only"
		r.report(e)
	}
}

// about begins an event about a connection.
func (c *conn) about(kind string, from nat.Side, format string, args ...any) Event {
	return Event{Kind: kind, Connection: c.n, From: from.String(), Text: fmt.Sprintf(format, args...)}
}
