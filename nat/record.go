package nat

import "time"

// Records are what has to be known of calls and mappings to go on with them in
// another process: see Restore. Which connection a call belongs to is the
// caller's to remember.

// CallRecord is what there is to know of a call.
type CallRecord struct {
	ID              uint64
	Direction       Direction
	Initiator       Side
	State           State
	Refused         bool
	Since, Up, Over time.Time // as in Call
	Due             time.Time // when the call ends, or its GRE, without a further message; zero: never
	Reason          string
	Ends            [2]EndRecord // by Side
}

// EndRecord is one side's Call ID in a call.
type EndRecord struct {
	There bool // the side has said it
	HeldRecord
}

// HeldRecord is a told Call ID and what it stands for.
type HeldRecord struct {
	Real, Told uint16
	Spare      bool // Told is the domain's spare ID
	Promised   bool // Told was told, though no call has come of it yet
}

// MappingRecord is what there is to know of a mapping that the data plane
// knows: of one that flows, or whose told Call ID rests.
type MappingRecord struct {
	Path             Path
	Side             Side
	Real, Told, Twin uint16
	Resting          bool
	Due              time.Time // when it is renewed or, if it rests, free; zero: never
	Past             Traffic
}

// Record returns what there is to know of the call.
func (c *Call) Record() CallRecord {
	r := CallRecord{
		ID: c.ID, Direction: c.Direction, Initiator: c.Initiator, State: c.State, Refused: c.Refused,
		Since: c.Since, Up: c.Up, Over: c.Over, Reason: c.Reason, Due: c.Connection.table.agenda.when(&c.until),
	}
	for side, m := range c.Ends {
		if m != nil {
			r.Ends[side] = EndRecord{There: true, HeldRecord: m.Held()}
		}
	}
	return r
}

// Held returns what the mapping's told Call ID stands for.
func (m *Mapping) Held() HeldRecord {
	return HeldRecord{Real: m.Real, Told: m.Told, Spare: m.spare, Promised: m.promised}
}

// Record returns what there is to know of a mapping; false: the data plane
// does not know it.
func (t *Table) Record(m *Mapping) (MappingRecord, bool) {
	return MappingRecord{
		Path: *m.Path, Side: m.Side, Real: m.Real, Told: m.Told, Twin: m.Twin,
		Resting: m.state == mappingResting, Due: t.agenda.when(&m.until), Past: m.Past,
	}, m.known
}

// ArrivalZone returns the number of the zone that GRE towards the mapping's side
// is in as it comes to the router.
func (m *Mapping) ArrivalZone() uint16 { return m.Path.Zone.from(m.Side.Other()) }

// Kept calls f for every call of which a Call ID is not free: live, refused and
// ended ones, in no order.
func (t *Table) Kept(f func(*Call)) {
	seen := map[*Connection]bool{}
	each := func(c *Connection) {
		if seen[c] {
			return
		}
		seen[c] = true
		for _, call := range c.calls {
			f(call)
		}
	}
	for c := range t.connections {
		each(c)
	}
	for _, m := range t.pool.owner { // connections that are closed
		if m.call != nil {
			each(m.call.Connection)
		}
	}
}

// Last returns the highest numbers that were given to a call and to a
// connection.
func (t *Table) Last() (call, connection uint64) { return t.lastID, t.lastConnection }
