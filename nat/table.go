package nat

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Limits bound what clients can make the router hold. A zero is no limit.
//
// Calls that ended hold their Call IDs for a while, so they are limited too:
// as many again, or minPast of them.
type Limits struct {
	CallsPerClient       int
	CallsPerConnection   int
	Calls                int
	ConnectionsPerClient int
	Connections          int
}

// minPast is how many ended calls a limit on calls allows at least, so that
// a client with few calls can redial.
const minPast = 64

// withPast turns a limit on calls into one that includes ended ones.
func withPast(limit int) int {
	if limit == 0 {
		return 0
	}
	return limit + max(limit, minPast)
}

// Timeouts of calls and of the Call IDs that they leave behind.
type Timeouts struct {
	HalfOpen time.Duration // an announced call without an answer ends after this
	Clearing time.Duration // a call that was asked to be cleared ends after this
	Grace    time.Duration // the GRE of an ended call flows on for this
	Rest     time.Duration // a told Call ID is not given again for this
	Renew    time.Duration // after at most this the data plane renews a flow; 0: never
}

// Config of a Table.
type Config struct {
	// Told Call IDs are taken from this range, inclusive; Last is not below
	// First. One ID of it is kept for refused calls.
	First, Last uint16
	Limits      Limits
	Timeouts    Timeouts
	Remember    int         // how many ended calls are kept for Table.Ended
	Notify      func(Event) // may be nil
	// Changed is told of every call whose Record has become another, at times
	// more than once; may be nil.
	Changed func(*Call)
}

// Counters of what the table did since it was made.
type Counters struct {
	CallsRequested   uint64
	CallsEstablished uint64
	CallsEnded       uint64
	RefusedLimit     uint64 // calls refused by a limit
	RefusedExhausted uint64 // calls refused because no Call ID was free
	RefusedAmbiguous uint64 // calls refused because a Call ID came twice
	RefusedKernel    uint64 // calls refused because the data plane failed
	HalfOpenExpired  uint64
	Translated       uint64 // Call IDs told that differ from the real ones
}

// Reasons for which the table refuses a call or a connection. The error's text
// says which limit it was.
var (
	ErrLimit     = errors.New("limit reached")
	ErrExhausted = errors.New("no Call ID is free")

	errClosed = errors.New("control connection is closed")
)

// Table is the table of all calls.
type Table struct {
	Counters Counters

	cfg    Config
	plane  DataPlane
	pool   *pool
	agenda agenda
	// departures finds the mappings whose GRE flows and leaves with a tuple:
	// the last one, and the others by Mapping.next.
	departures map[key]*Mapping

	connections map[*Connection]struct{}
	perClient   map[[4]byte]usage
	calls       map[uint64]*Call // live ones
	held        int              // calls of all connections whose Call IDs are not free
	ended       []*Call          // the last ones, oldest first
	lastID      uint64

	lastConnection uint64
}

// usage is what one client has.
type usage struct {
	connections int32
	calls       int32 // live ones
	held        int32 // those whose Call IDs are not free: live, ended, refused
}

// NewTable returns an empty table. The random numbers choose told Call IDs;
// give it a seeded source to repeat a run.
func NewTable(cfg Config, plane DataPlane, rng *rand.Rand) *Table {
	return &Table{
		cfg: cfg, plane: plane, pool: newPool(cfg.First, cfg.Last, rng),
		departures:  map[key]*Mapping{},
		connections: map[*Connection]struct{}{},
		perClient:   map[[4]byte]usage{},
		calls:       map[uint64]*Call{},
	}
}

// Reconfigure changes limits and timeouts, and the range for calls to come.
// Calls that are up keep what they have.
func (t *Table) Reconfigure(cfg Config) {
	cfg.Notify, cfg.Changed = t.cfg.Notify, t.cfg.Changed
	t.cfg = cfg
	t.pool.setRange(cfg.First, cfg.Last)
}

// Calls calls f for every live call, in no order.
func (t *Table) Calls(f func(*Call)) {
	for _, c := range t.calls {
		f(c)
	}
}

// Len returns how many calls are live.
func (t *Table) Len() int { return len(t.calls) }

// Ended returns the calls that ended last, oldest first. The slice is the
// table's.
func (t *Table) Ended() []*Call { return t.ended }

// Next returns the time of the next thing that Expire has to do.
func (t *Table) Next() (time.Time, bool) { return t.agenda.next() }

// Schedule makes due run at the given time, instead of what d was set to
// before. The connections' stream trackers share the table's agenda with it.
func (t *Table) Schedule(d *Deadline, at time.Time, due func(now time.Time)) {
	t.agenda.set(d, at, due)
}

// Expire ends and forgets what is due.
func (t *Table) Expire(now time.Time) {
	for t.agenda.run(now, 1<<30) {
	}
}

// ExpireSome does so many things that are due, and reports whether that was not
// all. What a client with thousands of calls leaves behind is due all at once,
// and every Call ID of it is a question to the kernel: others need not wait for
// the last of them.
func (t *Table) ExpireSome(now time.Time, most int) bool { return t.agenda.run(now, most) }

func (t *Table) notify(kind EventKind, now time.Time, c *Call) {
	if t.cfg.Notify != nil {
		t.cfg.Notify(Event{kind, now, c})
	}
}

func (t *Table) changed(c *Call) {
	if t.cfg.Changed != nil {
		t.cfg.Changed(c)
	}
}

// use changes what a client has.
func (t *Table) use(client netip.Addr, connections, calls, held int32) {
	u := t.of(client)
	u.connections += connections
	u.calls += calls
	u.held += held
	t.held += int(held)
	if u == (usage{}) {
		delete(t.perClient, client.As4())
	} else {
		t.perClient[client.As4()] = u
	}
}

// of returns what a client has.
func (t *Table) of(client netip.Addr) usage { return t.perClient[client.As4()] }

// over reports whether n is at the limit.
func over[N int | int32](n N, limit int) bool { return limit > 0 && int(n) >= limit }
