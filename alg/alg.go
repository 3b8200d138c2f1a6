package alg

import (
	"net/netip"
	"time"

	"pptp-alg/nat"
)

// Counters of what the ALG saw and did.
type Counters struct {
	Connections    uint64
	Messages       uint64 // control messages understood
	Split          BySide // of these, those that came in several segments
	Short          BySide // messages that are shorter than their type has it, or have no possible length
	Changed        uint64 // segments changed
	Retransmitted  BySide // segments without a new byte
	Held           uint64 // segments that had to wait for others
	DroppedHeld    uint64 // of these, dropped: too many, or in vain
	DroppedUnknown uint64 // retransmissions of what is no longer known
	DroppedBudget  uint64 // of connections that have too much unacknowledged, when all have
	Resynchronised uint64 // streams taken up again behind bytes that never came by
	Unparsed       uint64 // connections that are not understood
	UnknownCallID  BySide // Call IDs that belong to no call
}

// BySide counts something for each side that sent it, indexed by nat.Side.
type BySide [2]uint64

// Sum is the count of both sides.
func (b BySide) Sum() uint64 { return b[0] + b[1] }

// EventKind says what happened to a connection.
type EventKind uint8

// Kinds of events.
const (
	ConnectionOpened EventKind = iota
	ConnectionUnparsed
	ConnectionClosed
)

func (k EventKind) String() string {
	return [...]string{"control connection opened", "control connection not understood", "control connection closed"}[k]
}

// Event tells the one who listens what happened to a connection.
type Event struct {
	Kind       EventKind
	Time       time.Time
	Connection *Connection
}

// Config of an ALG.
type Config struct {
	// Decide receives every segment that was given to Connection.Segment,
	// once, when it is known what becomes of it.
	Decide func(*Segment, Verdict)
	Notify func(Event) // may be nil
	// Changed is told of every connection whose Record has become another, before
	// the segment that did it is decided, and at times more than once; may be nil.
	Changed func(*Connection)
}

// ALG holds the control connections of a router. It is used by one goroutine
// at a time, together with its table, whose Expire also serves the ALG.
type ALG struct {
	Counters Counters

	cfg    Config
	table  *nat.Table
	flows  map[Flow]*Connection
	budget budget
}

// New returns an ALG whose calls are in the table.
func New(cfg Config, table *nat.Table) *ALG {
	return &ALG{cfg: cfg, table: table, flows: map[Flow]*Connection{}, budget: budget{heldBy: map[netip.Addr]int{}}}
}

// Find returns the connection of a flow, or nil.
func (a *ALG) Find(f Flow) *Connection { return a.flows[f] }

// Connections calls f for every connection, in no order.
func (a *ALG) Connections(f func(*Connection)) {
	for _, c := range a.flows {
		f(c)
	}
}

// Len returns how many connections there are, closed ones that linger included.
func (a *ALG) Len() int { return len(a.flows) }

// Shrink gives back memory that idle connections would need again only when there is something to do. It is for times when
// there is nothing.
func (a *ALG) Shrink() {
	for _, c := range a.flows {
		for side := range c.dirs {
			c.dirs[side].past.shrink()
		}
	}
}

// Open adds a control connection with the NAT that conntrack has for it. It
// replaces one with the same flow. It fails with nat.ErrLimit, wrapped.
func (a *ALG) Open(now time.Time, f Flow, path nat.Path) (*Connection, error) {
	if old := a.flows[f]; old != nil {
		old.Close(now, "control connection opened anew")
	}
	calls, err := a.table.Connect(path)
	if err != nil {
		return nil, err
	}
	c := &Connection{Flow: f, Since: now, alg: a, calls: calls}
	for i := range c.dirs {
		c.dirs[i].conn, c.dirs[i].side = c, nat.Side(i)
	}
	a.flows[f] = c
	a.Counters.Connections++
	a.changed(c)
	a.notify(ConnectionOpened, now, c)
	return c, nil
}

func (a *ALG) changed(c *Connection) {
	if a.cfg.Changed != nil {
		a.cfg.Changed(c)
	}
}

func (a *ALG) notify(kind EventKind, now time.Time, c *Connection) {
	if a.cfg.Notify != nil {
		a.cfg.Notify(Event{kind, now, c})
	}
}
