package alg_test

import (
	"flag"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

var days = flag.Int("days", 40, "how many simulated days of each kind TestSoak plays")

// TestSoak plays simulated days on one router each: connections, calls, refusals,
// losses, resets, connections that disappear, calls that are never answered, and
// routers that end at any moment and are taken up again. After every day nothing
// may be left, after the last one every Call ID is to be had, and the memory in
// use has not grown since the first tenth of the time.
//
// A failure says its seed: go test ./alg -run Soak -seed N. For longer: -days N.
func TestSoak(t *testing.T) {
	n := *days
	if testing.Short() {
		n = 3
	}
	seed := *oneSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for _, kind := range []struct {
		name    string
		p       profile
		crashes bool
	}{
		{"one router", profile{first: 1, last: 65535, compulsory: true, sameServer: true}, false},
		{"restarts", profile{first: 1, last: 65535, compulsory: true, taken: true}, true},
		{"restarts, few Call IDs", profile{first: 0xfff0, last: 0xffff, compulsory: true, sameServer: true}, true},
		{"restarts, two blocks, limits", profile{first: 0x1234 - 40, last: 0x1300 + 40, taken: true,
			limits: nat.Limits{CallsPerClient: 6, CallsPerConnection: 4, Calls: 15}}, true},
		{"refusing data plane, late segments", profile{first: 1, last: 65535, planeErrors: true, timeouts: true, compulsory: true}, false},
	} {
		t.Run(kind.name, func(t *testing.T) {
			kind.p.synSeen, kind.p.links = true, 6
			w := newWorld(t, seed, kind.p)
			if kind.crashes {
				w.book = newBook(w)
				w.make(rand.New(rand.NewPCG(seed, 2))) // which tells the book what changes
			}
			w.soak(n)
		})
	}
}

// mostGrown is how many bytes more may be in use in the end. Maps keep the size
// of their fullest moment, and that may come late. What the tables keep is looked for by itself; this finds what is kept
// elsewhere, if it is much.
const mostGrown = 192 << 10

func (w *world) soak(n int) {
	w.build()
	var first uint64
	restarts := 0
	for day := 1; day <= n; day++ {
		w.day()
		if w.failed {
			return
		}
		if day == max(n/10, 1) {
			first = w.inUse()
		}
	}
	last := w.inUse()
	if w.book != nil {
		restarts = w.book.crashes
	}
	w.t.Logf("seed %d: %.1f days: %d segments, %d calls came up, %d were refused, %d flows opened, %d renewals, %d restarts, %d bytes in use, %d more than after a tenth",
		w.seed, w.now.Sub(epoch).Hours()/24, w.given, w.established, w.refused, w.plane.opened, w.plane.renews, restarts, last, int64(last-first))
	if last > first+mostGrown {
		w.fail("after a tenth of the days %d bytes were in use, after all %d", first, last)
	}
	// Of a link that disappears, what waits may time out as often as it likes.
	if c := w.alg.Counters; w.book == nil && (c.Unparsed+c.DroppedUnknown != 0 || c.Resynchronised != 0 && !w.p.timeouts) {
		w.fail("streams were lost: %+v", c)
	}
	if w.established < n || w.book != nil && restarts < n {
		w.fail("the days are too tame")
	}
	w.takeAll()
}

// inUse returns how many bytes are in use on the heap.
func (w *world) inUse() uint64 {
	w.trace = nil
	var m runtime.MemStats
	for range 2 { // what has a finalizer goes the second time
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// day plays a day of 24 hours. In the end nothing is left of it.
func (w *world) day() {
	morning := w.now
	if w.book != nil {
		w.book.calm = false
	}
	for _, l := range w.links {
		if !l.up {
			l.open()
		}
	}
	for range 6000 {
		w.step()
		if w.failed {
			return
		}
		if w.quiet() && w.now.Sub(morning) < 6*time.Hour { // an announced call waits ten for its answer
			switch {
			case w.chance(30):
				w.pass(time.Duration(w.rng.IntN(3600)) * time.Second)
			case w.chance(60):
				w.vanish(w.links[w.rng.IntN(len(w.links))])
			}
		}
	}
	// Whatever is on its way is lost, and nobody speaks again.
	for _, l := range w.links {
		if s := l.streams[w.rng.IntN(2)]; l.up && w.chance(3) {
			w.segment(s.emit(s.acked%(len(s.sent)+1), s.acked%(len(s.sent)+1), alg.RST))
		}
		l.kill()
	}
	w.wait(11 * time.Hour)
	w.table.Calls(func(c *nat.Call) {
		if c.State != nat.Established {
			w.fail("nobody answers, and after eleven hours there is %s", describe(c))
		}
	})
	for i := range 3 {
		if w.book != nil {
			w.book.calm = i == 2 // one that ends meanwhile has to be told again
		}
		for _, l := range w.links {
			w.lose(l)
		}
		w.wait(10 * time.Minute)
	}
	w.wait(morning.Add(24 * time.Hour).Sub(w.now))
	if w.failed {
		return
	}
	w.empty()
	if b := w.book; b != nil && len(b.mappings)+len(b.calls)+len(b.connections) != 0 {
		w.fail("still written down: %d mappings, %d calls, %d connections", len(b.mappings), len(b.calls), len(b.connections))
	}
	for _, l := range w.links {
		if len(l.calls) != 0 {
			w.fail("link %d still has %d calls", l.n, len(l.calls))
		}
		for i, s := range l.streams {
			l.streams[i] = &stream{l: l, side: s.side, isn: s.isn, waiting: s.waiting}
		}
	}
	w.calls = nil
}

// quiet reports whether nothing is on its way.
func (w *world) quiet() bool {
	for _, l := range w.links {
		if l.up && (l.closing() || !l.streams[0].idle() || !l.streams[1].idle()) {
			return false
		}
	}
	return true
}

// wait lets a long time pass.
func (w *world) wait(d time.Duration) {
	const step = 5 * time.Minute
	for ; d > 0 && !w.failed; d -= step {
		w.pass(min(d, step))
	}
}

// lose is what the daemon does when conntrack has forgotten a connection.
func (w *world) lose(l *link) {
	w.survive(func() {
		if c := w.alg.Find(l.flow); c != nil {
			c.Lost(w.now)
		}
	})
}

// vanish has both ends of a link disappear without a word.
func (w *world) vanish(l *link) {
	if !l.up {
		return
	}
	w.note("link %d disappears", l.n)
	l.kill()
	if w.book != nil {
		w.book.calm = true
		defer func() { w.book.calm = false }()
	}
	w.lose(l)
	w.pass(10 * time.Minute)
}

// takeAll takes every Call ID of every link, of the first when they are many, and
// gives them back.
func (w *world) takeAll() {
	size := int(w.p.last) - int(w.p.first) + 1
	for _, l := range w.links {
		c, err := w.table.Connect(l.path)
		if err != nil {
			w.fail("connect: %v", err)
			return
		}
		for side := nat.Client; side <= nat.Server; side++ {
			had := map[uint16]*nat.Mapping{}
			for range size {
				m := c.Reserve(side, byte(len(had)))
				if had[m.Told] != nil {
					w.fail("after %d of %d Call IDs for the %v of link %d, %d comes again", len(had), size, side, l.n, m.Told)
					return
				}
				had[m.Told] = m
			}
			for _, m := range had {
				c.Discard(w.now, m)
			}
		}
		c.Close(w.now, "the end")
		if size > 1000 {
			break
		}
	}
	w.wait(10 * time.Minute) // the last ID of all is not given to one call
	w.empty()
}
