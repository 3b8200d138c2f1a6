package nat

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// restart goes on with another table that knows the records only. What is
// nobody's record is given up: Call IDs that are held, unless the caller takes
// them again; spare ones that rest; those that something else uses.
func (m *model) restart() {
	m.note("restart")
	old := m.table
	m.table = NewTable(m.cfg, m, m.rng)
	m.table.Resume(old.Last())
	m.counters, m.restored, m.everEnded = Counters{}, 0, 0

	flows, guarded, renewed := m.flows, m.guarded, m.renewed
	m.flows, m.guarded, m.renewed = map[*Mapping]bool{}, map[mKey]*Mapping{}, map[*Mapping]time.Time{}
	for _, id := range m.ids {
		if id.m == nil || !id.known {
			continue
		}
		r, known := old.Record(id.m)
		if !known {
			m.failf("no record of %+v", id.m)
		}
		x, err := m.table.RestoreMapping(m.now, r)
		if err != nil {
			m.failf("%v", err)
		}
		if flows[id.m] {
			m.flows[x] = true
		}
		if guarded[id.at] == id.m {
			m.guarded[id.at] = x
		}
		m.renewed[x] = renewed[id.m]
		id.m = x
	}
	for _, id := range slices.Clone(m.ids) {
		// A refused call that is over has no record of its Call ID.
		if id.m != nil && !id.known && id.call != nil && id.call.state == Ended {
			id.state = mappingFree
			m.drop(id)
		}
	}
	m.restoreConnections(old)
	m.spares = slices.DeleteFunc(m.spares, func(s *mSpare) bool { return s.resting })
	m.ids = slices.DeleteFunc(m.ids, func(id *mID) bool { return id.m == nil })
	keep := m.rng.IntN(2) == 0
	m.restoreHeld(keep)
	m.restoreTrials(keep)
	m.table.Sweep()
}

func (m *model) restoreConnections(old *Table) {
	var err error
	for _, c := range m.conns {
		if c.c, err = m.table.RestoreConnection(c.c.ID, c.path, c.closed); err != nil {
			m.failf("%v", err)
		}
		list, _, _ := m.connCalls(c)
		for _, call := range list {
			if call.call, err = c.c.Restore(m.now, call.call.Record()); err != nil {
				m.failf("%v", err)
			}
			if call.state == Ended {
				m.everEnded++
			} else if call.inside {
				m.restored++
			}
			for side, id := range call.ends {
				if id != nil && (!id.known || id.state == mappingFree) {
					id.m = call.call.Ends[side]
				}
			}
			if call.why == "grace" && !slices.ContainsFunc(call.ends[:], func(id *mID) bool { return id != nil && id.state == mappingOpen }) {
				call.why = ""
			}
			m.forget(call)
		}
	}
	if m.table.lastID != old.lastID || m.table.lastConnection != old.lastConnection {
		m.failf("numbers go on from %d and %d, not %d and %d", m.table.lastID, m.table.lastConnection, old.lastID, old.lastConnection)
	}
}

func (m *model) restoreHeld(keep bool) {
	for _, h := range m.held {
		switch {
		case keep:
			x, err := h.conn.c.Hold(h.side, h.m.Held())
			if err != nil {
				m.failf("%v", err)
			}
			if h.m = x; h.id != nil {
				h.id.m = x
			}
		case h.id != nil:
			m.drop(h.id)
		default:
			if h.spare.uses--; h.spare.uses == 0 {
				m.spares = slices.DeleteFunc(m.spares, func(s *mSpare) bool { return s == h.spare })
			}
		}
	}
	if !keep {
		m.held = nil
	}
}

func (m *model) restoreTrials(keep bool) {
	m.trials = slices.DeleteFunc(m.trials, func(h *mHeld) bool {
		if h.id.state != mappingOpen || h.id.call != nil {
			return true // the table has discarded it, and the record says so
		}
		h.m = h.id.m
		if keep {
			if x, err := h.conn.c.Claim(h.side, h.m.Told); err != nil || x != h.m {
				m.failf("%v", err)
			}
			return false
		}
		m.drop(h.id)
		return true
	})
}

// Records that cannot be right are refused, and whatever is taken up, the table
// can be emptied again.
func TestRestoreNonsense(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	refused, taken := 0, 0
	for range 3000 {
		var claims []func()
		now := epoch
		table := NewTable(Config{First: 1, Last: 40, Remember: 3, Timeouts: Timeouts{time.Second, time.Second, time.Second, time.Second, time.Hour}},
			quietPlane{}, rng)
		at := func() time.Time {
			if rng.IntN(3) == 0 {
				return time.Time{}
			}
			return now.Add(time.Duration(rng.IntN(20)-10) * time.Second)
		}
		count := func(err error) bool {
			if err != nil && !errors.Is(err, errRecord) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if err != nil {
				refused++
			} else {
				taken++
			}
			return err == nil
		}
		var conns []*Connection
		for range rng.IntN(8) {
			p := testPaths[rng.IntN(3)]
			if rng.IntN(10) == 0 {
				p = Path{}
			}
			_, err := table.RestoreMapping(now, MappingRecord{
				Path: p, Side: Side(rng.IntN(3)), Real: uint16(rng.IntN(4)), Told: uint16(rng.IntN(4)), Twin: uint16(rng.IntN(2)),
				Resting: rng.IntN(4) == 0, Due: at(),
			})
			count(err)
		}
		for range rng.IntN(4) {
			c, err := table.RestoreConnection(uint64(rng.IntN(4)), testPaths[rng.IntN(3)], rng.IntN(5) == 0)
			if count(err) {
				conns = append(conns, c)
			}
		}
		for range rng.IntN(12) {
			if len(conns) == 0 {
				break
			}
			c := conns[rng.IntN(len(conns))]
			end := func() EndRecord {
				return EndRecord{rng.IntN(3) > 0, HeldRecord{uint16(rng.IntN(4)), uint16(rng.IntN(4)), rng.IntN(3) == 0, rng.IntN(3) == 0}}
			}
			switch rng.IntN(8) {
			case 0:
				_, err := c.Hold(Side(rng.IntN(2)), end().HeldRecord)
				count(err)
			case 1:
				if m, err := c.Claim(Side(rng.IntN(2)), uint16(rng.IntN(4))); count(err) {
					claims = append(claims, func() { c.Discard(now, m) }) // as a connection that closes does
				}
			default:
				_, err := c.Restore(now, CallRecord{
					ID: uint64(rng.IntN(30)), Direction: Direction(rng.IntN(3)), Initiator: Side(rng.IntN(3)), State: State(rng.IntN(6)),
					Refused: rng.IntN(3) == 0, Since: at(), Over: at(), Due: at(), Reason: "a reason", Ends: [2]EndRecord{end(), end()},
				})
				count(err)
			}
		}
		table.Sweep()
		for _, discard := range claims {
			discard()
		}
		for _, c := range conns {
			c.Close(now, "over")
		}
		for range 1000 {
			next, ok := table.Next()
			if !ok {
				break
			}
			table.Expire(next)
		}
		if len(table.departures)+len(table.calls)+len(table.perClient)+len(table.connections)+table.held != 0 {
			t.Fatalf("seed %d: left behind: %d flows, %d calls, %v, %d connections", seed, len(table.departures), len(table.calls), table.perClient, len(table.connections))
		}
	}
	if refused == 0 || taken == 0 {
		t.Errorf("%d records refused, %d taken", refused, taken)
	}
}

type quietPlane struct{}

func (quietPlane) Open(*Mapping) error  { return nil }
func (quietPlane) Renew(*Mapping) error { return nil }
func (quietPlane) Close(*Mapping)       {}
func (quietPlane) Free(*Mapping)        {}

// A live call whose Call ID was taken over just before the end of the process
// has lost it.
func TestRestoreWithoutMapping(t *testing.T) {
	table := NewTable(Config{First: 1, Last: 9, Remember: 1}, quietPlane{}, rand.New(rand.NewPCG(1, 1)))
	c, err := table.RestoreConnection(1, testPaths[0], false)
	if err != nil {
		t.Fatal(err)
	}
	r := CallRecord{ID: 4, State: Established, Ends: [2]EndRecord{{There: true, HeldRecord: HeldRecord{Real: 3, Told: 3}}}}
	if _, err := c.Restore(epoch, r); !errors.Is(err, errRecord) {
		t.Fatalf("a live call without its mapping: %v", err)
	}
	if _, err := table.RestoreMapping(epoch, MappingRecord{Path: testPaths[0], Real: 3, Told: 3, Resting: true, Due: epoch.Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	call, err := c.Restore(epoch, r)
	if err != nil || call.Live() || call.Reason == "" || table.Len() != 0 {
		t.Fatalf("%+v, %v", call, err)
	}
}
