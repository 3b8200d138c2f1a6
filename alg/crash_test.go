package alg_test

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// book is what a router has written down, in the way the daemon does: a mapping
// before the data plane has it, everything else before a segment goes on.
type book struct {
	w        *world
	places   map[tuple]bool // changed since
	changed  map[*nat.Call]bool
	touched  map[*alg.Connection]bool
	crashing bool
	calm     bool // no more of it
	counters alg.Counters

	mappings    map[tuple]nat.MappingRecord
	calls       map[uint64]callNote
	connections map[uint64]alg.Record
	last        [2]uint64

	crashes, swept, revived, halves int
}

type callNote struct {
	connection uint64
	nat.CallRecord
}

// crash ends the router at the worst moment.
type crash struct{}

func newBook(w *world) *book {
	return &book{w: w, places: map[tuple]bool{}, changed: map[*nat.Call]bool{}, touched: map[*alg.Connection]bool{},
		mappings: map[tuple]nat.MappingRecord{}, calls: map[uint64]callNote{}, connections: map[uint64]alg.Record{}}
}

// perhaps ends the router, at one of n such moments.
func (b *book) perhaps(n int) {
	if b != nil && b.crashing && !b.calm && b.w.chance(n) {
		panic(crash{})
	}
}

// opening is called before the data plane has a mapping.
func (b *book) opening(m *nat.Mapping) {
	if b == nil {
		return
	}
	b.perhaps(60)
	b.close()
	r, _ := b.w.table.Record(m)
	b.mappings[placeOf(m)] = r
	b.places[placeOf(m)] = true
}

func placeOf(m *nat.Mapping) tuple { return tuple{m.Arrives(), m.Path.Zone} }

func (b *book) mapping(m *nat.Mapping) {
	if b != nil {
		b.places[placeOf(m)] = true
		b.perhaps(200)
	}
}

// commit writes down what has changed.
func (b *book) commit() {
	if b == nil {
		return
	}
	t := b.w.table
	b.close()
	for c := range b.changed {
		if c.Kept() {
			b.calls[c.ID] = callNote{c.Connection.ID, c.Record()}
		} else {
			delete(b.calls, c.ID)
		}
	}
	for c := range b.touched {
		if c.Gone() {
			delete(b.connections, c.Calls().ID)
		} else {
			b.connections[c.Calls().ID] = c.Record()
		}
	}
	b.last[0], b.last[1] = t.Last()
	clear(b.changed)
	clear(b.touched)
}

// close writes down the mappings that have changed.
func (b *book) close() {
	for a := range b.places {
		m := b.w.table.Find(a.Tuple, a.zone.ID)
		if m == nil {
			delete(b.mappings, a)
			continue
		}
		if r, known := b.w.table.Record(m); known {
			b.mappings[a] = r
		} else {
			delete(b.mappings, a)
		}
	}
	clear(b.places)
}

// survive runs the router, and another one in its place when it ends.
func (w *world) survive(run func()) {
	if w.book == nil {
		run()
		return
	}
	defer func() {
		switch r := recover(); r.(type) {
		case nil:
			w.book.commit()
		case crash:
			w.restart()
		default:
			panic(r)
		}
	}()
	w.book.crashing = true
	defer func() { w.book.crashing = false }()
	run()
	w.book.perhaps(150)
}

// restart takes up what is written down. Segments that waited are gone.
func (w *world) restart() {
	b := w.book
	b.crashing = false
	b.crashes++
	w.note("crash and restart")

	w.decided = w.given
	for _, l := range w.links {
		for _, s := range l.streams {
			if s != nil {
				clear(s.waiting)
			}
		}
	}
	clear(b.places)
	clear(b.changed)
	clear(b.touched)
	w.make(rand.New(rand.NewPCG(w.rng.Uint64(), 2)))
	w.table.Resume(b.last[0], b.last[1])
	for a, r := range b.mappings {
		m, err := w.table.RestoreMapping(w.now, r)
		if err != nil {
			w.fail("restore %v: %v", a, err)
			return
		}
		p := w.plane
		p.kept[a] = true
		if r.Resting {
			if p.open[a] != nil {
				w.fail("%v rests, but flows", a)
			}
			continue
		}
		if p.open[a] == nil {
			b.revived++
		}
		p.open[a], p.leaves[tuple{m.Leaves(), m.Path.Zone}] = m, m
	}
	for a := range w.plane.open {
		if _, ok := b.mappings[a]; !ok {
			w.fail("%v flows, but is not written down", a)
		}
	}
	conns := map[uint64]*nat.Connection{}
	for id, r := range b.connections {
		c, err := w.table.RestoreConnection(id, r.Path, r.State == alg.Closed)
		if err != nil {
			w.fail("restore connection: %v", err)
			return
		}
		conns[id] = c
	}
	for _, n := range slices.SortedFunc(maps.Values(b.calls), func(x, y callNote) int { return cmp.Compare(x.ID, y.ID) }) {
		c := conns[n.connection]
		if c == nil && n.State == nat.Ended {
			delete(b.calls, n.ID)
			continue
		}
		if c == nil {
			w.fail("call %d has no connection", n.ID)
			return
		}
		call, err := c.Restore(w.now, n.CallRecord)
		if err != nil {
			w.fail("restore call: %v", err)
			return
		}
		if n.State != nat.Ended && !call.Live() && call.Reason != "its Call ID was given to a newer call" {
			w.fail("call %d did not survive: %s", n.ID, call.Reason)
		}
	}
	for id, r := range b.connections {
		if _, err := w.alg.Restore(w.now, r, conns[id]); err != nil {
			w.fail("restore connection: %v", err)
			return
		}
		for _, s := range r.Streams {
			if s.Partial != nil {
				b.halves++
			}
		}
	}
	b.swept += w.table.Sweep()
	w.checkSame()
	b.commit()
}

// checkSame compares what a restart has with what is written down.
func (w *world) checkSame() {
	w.alg.Connections(func(c *alg.Connection) {
		was, is := w.book.connections[c.Calls().ID], c.Record()
		if is.State != was.State || is.Since != was.Since || is.Flow != was.Flow {
			w.fail("connection %+v is restored as %+v", was, is)
		}
		for i := range is.Streams {
			a, b := was.Streams[i], is.Streams[i]
			if a.Next != b.Next || a.Started != b.Started || a.Seeking != b.Seeking || len(a.Marks) != len(b.Marks) ||
				(a.Partial == nil) != (b.Partial == nil) {
				w.fail("stream %+v is restored as %+v", a, b)
			}
		}
	})
	w.table.Calls(func(c *nat.Call) {
		was, is := w.book.calls[c.ID], c.Record()
		if was.CallRecord != is {
			w.fail("call %+v is restored as %+v", was.CallRecord, is)
		}
	})
}

// TestCrashes runs the random histories with routers that end at any moment:
// before, between and after the effects of a message. What the ends see of each
// other has to be the same as with one that lives.
func TestCrashes(t *testing.T) {
	first, n := uint64(1), uint64(*histories)
	if testing.Short() {
		n /= 10
	}
	if *oneSeed != 0 {
		first, n = *oneSeed, 1
	}
	var total struct{ crashes, swept, revived, halves, established int }
	failures := 0
	for seed := first; seed < first+n; seed++ {
		p := profileOf(seed)
		p.timeouts, p.synSeen = false, true
		w := newWorld(t, seed, p)
		w.book = newBook(w)
		w.make(rand.New(rand.NewPCG(seed, 2))) // which tells the book what changes
		w.run()
		total.crashes += w.book.crashes
		total.swept += w.book.swept
		total.revived += w.book.revived
		total.halves += w.book.halves
		total.established += w.established
		if w.failed {
			if failures++; failures >= 3 {
				break
			}
		}
	}
	t.Logf("seeds %d to %d: %+v", first, first+n-1, total)
	if *oneSeed == 0 && (total.crashes == 0 || total.swept == 0 || total.revived == 0 && !testing.Short() || total.halves == 0 || total.established == 0) {
		t.Errorf("the histories are too tame: %+v", total)
	}
}
