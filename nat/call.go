package nat

import "time"

// Direction says who announced a call.
type Direction uint8

// Directions of a call. Outgoing is RFC 2637's Outgoing-Call-Request, sent by
// a PNS; incoming its Incoming-Call-Request, sent by a PAC.
const (
	Outgoing Direction = iota
	Incoming
)

func (d Direction) String() string {
	if d == Incoming {
		return "incoming"
	}
	return "outgoing"
}

// State is where a call is in its life.
type State uint8

// States of a call, in the order in which they come.
const (
	Requested   State = iota // announced, not answered
	Connecting               // an incoming call: answered, not yet connected
	Established              // up
	Clearing                 // one side asked to clear it
	Ended                    // over: its GRE flows for a last moment
)

func (s State) String() string {
	return [...]string{"requested", "connecting", "established", "clearing", "ended"}[s]
}

// Call is one PPTP call. Its fields are the table's; others read them.
type Call struct {
	ID         uint64 // counts up from 1, never used again
	Connection *Connection
	Ends       [2]*Mapping // by Side; nil while that side's Call ID is unknown
	Since      time.Time   // when it was announced
	Up         time.Time   // when it was established; zero if it never was
	Over       time.Time   // when it ended
	Reason     string      // why it ended, or why it is refused, in words
	Note       any         // the caller's
	Direction  Direction
	Initiator  Side // the side that announced it
	State      State
	Refused    bool // by us, not by the other side

	kept  bool // by its connection, until its Call IDs are free
	until Deadline
}

// Live reports whether the call has not ended.
func (c *Call) Live() bool { return c.State != Ended }

// Kept reports whether the call lives, or one of its Call IDs is not free yet.
func (c *Call) Kept() bool { return c.kept }

// End returns the mapping of a side, or nil.
func (c *Call) End(s Side) *Mapping { return c.Ends[s] }

// EventKind says what happened to a call.
type EventKind uint8

// Kinds of events.
const (
	CallRequested EventKind = iota
	CallEstablished
	CallEnded
)

func (k EventKind) String() string {
	return [...]string{"call requested", "call established", "call ended"}[k]
}

// Event tells the one who listens what happened to a call.
type Event struct {
	Kind EventKind
	Time time.Time
	Call *Call
}
