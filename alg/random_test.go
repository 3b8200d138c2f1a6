package alg_test

import (
	"flag"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

var (
	lines     = flag.Int("lines", 60, "how many lines of a failing history to print")
	oneSeed   = flag.Uint64("seed", 0, "run only the random history with this seed")
	histories = flag.Int("histories", 3000, "how many random histories to run")
)

// TestRandomHistories runs whole histories of links, calls and TCP segments
// through an ALG and compares with the world's own idea of each.
//
// A failing history says its seed: go test ./alg -run RandomHistories -seed N
func TestRandomHistories(t *testing.T) {
	first, n := uint64(1), uint64(*histories)
	if testing.Short() {
		n /= 10
	}
	if *oneSeed != 0 {
		first, n = *oneSeed, 1
	}
	var total struct{ segments, established, refused, held, changed, again, mappings, renews, lives int }
	failures := 0
	for seed := first; seed < first+n; seed++ {
		w := newWorld(t, seed, profileOf(seed))
		w.run()
		total.segments += w.given
		total.established += w.established
		total.refused += w.refused
		total.held += int(w.alg.Counters.Held)
		total.changed += int(w.alg.Counters.Changed)
		total.again += int(w.alg.Counters.Retransmitted.Sum())
		total.mappings += w.plane.opened
		total.renews += w.plane.renews
		for _, l := range w.links {
			total.lives += l.life
		}
		if w.failed {
			if failures++; failures >= 3 {
				break
			}
		}
	}
	t.Logf("seeds %d to %d: %+v", first, first+n-1, total)
	if *oneSeed == 0 && (total.established == 0 || total.refused == 0 || total.held == 0 || total.again == 0 || total.renews == 0) {
		t.Errorf("the histories are too tame: %+v", total)
	}
}

// profileOf chooses by seed what may happen in a history.
func profileOf(seed uint64) profile {
	p := profile{first: 1, last: 65535, synSeen: seed%8 != 0, compulsory: seed%2 == 0, taken: seed%3 == 0, sameServer: seed%5 < 3}
	switch seed % 7 {
	case 1:
		p.timeouts = true
	case 2:
		p.planeErrors = true
	case 3: // two blocks of 256: high bytes change, halves of Call IDs have to wait
		p.first, p.last = 0x1234-40, 0x1300+40
	case 4:
		p.first, p.last, p.taken = 0xfff0, 0xffff, false
	case 5:
		p.limits = nat.Limits{CallsPerClient: 6, CallsPerConnection: 4, Calls: 15}
	}
	return p
}

// run plays one history.
func (w *world) run() {
	w.build()
	for range 200 + w.rng.IntN(1200) {
		w.step()
		if w.failed {
			return
		}
	}
	w.end()
	if w.failed {
		return
	}
	w.empty()
	c := w.alg.Counters
	if w.book != nil {
		c = w.book.counters
	}
	if c.Unparsed+c.Resynchronised+c.DroppedUnknown != 0 || c.UnknownCallID.Sum() != 0 && !w.p.refuses() && !w.shut {
		w.fail("counters: %+v", c)
	}
}

// build makes hosts and links.
func (w *world) build() {
	clients := make([]*host, 1+w.rng.IntN(3))
	servers := make([]*host, 1+w.rng.IntN(3))
	if w.p.sameServer {
		servers = servers[:1]
	}
	newHost := func(a, b, c, d byte) *host {
		return &host{addr: netip.AddrFrom4([4]byte{a, b, c, d}), used: map[netip.Addr]map[uint16]bool{}}
	}
	for i := range clients {
		clients[i] = newHost(10, 0, 0, byte(2+i))
	}
	for i := range servers {
		servers[i] = newHost(203, 0, 113, byte(2+i))
	}
	public := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	links := 1 + w.rng.IntN(4)
	if w.p.links > 0 {
		links = w.p.links
	}
	for n := range links {
		l := &link{w: w, n: n, icrp: w.rng.IntN(3)}
		a, b := clients[w.rng.IntN(len(clients))], servers[w.rng.IntN(len(servers))]
		l.path.Hosts = [2]nat.Host{{Real: a.addr, Told: public}, {Real: b.addr, Told: b.addr}}
		if w.chance(3) { // a port is forwarded to the server, as well
			l.path.Hosts[nat.Server].Told = public
		}
		if w.chance(6) {
			l.path.Hosts[nat.Client].Told = a.addr
		}
		if w.chance(2) { // the PNS is called
			l.path.Mark = 1
		}
		l.flow = alg.Flow{Client: netip.AddrPortFrom(a.addr, uint16(40000+n)), Server: netip.AddrPortFrom(b.addr, 1723)}
		for i, h := range []*host{a, b} {
			l.peers[i] = &peer{l: l, side: nat.Side(i), host: h, accel: w.chance(3)}
		}
		w.links = append(w.links, l)
	}
	for _, l := range w.links {
		l.open()
	}
}

// step does one random thing.
func (w *world) step() {
	l := w.links[w.rng.IntN(len(w.links))]
	side := nat.Side(w.rng.IntN(2))
	s := l.streams[side]
	if !l.up {
		if w.chance(20) {
			l.open()
		}
		return
	}
	if l.gentle && l.streams[0].through >= lengths[sccrq] && l.streams[1].through >= lengths[sccrp] {
		l.gentle = false
	}
	switch n := w.rng.IntN(100); {
	case n < 12:
		l.peers[side].act()
	case n < 40:
		s.transmit()
	case n < 65:
		s.route(false)
	case n < 85:
		if len(s.toPeer) > 0 {
			i := 0
			if w.chance(3) {
				i = w.rng.IntN(len(s.toPeer))
			}
			g := s.toPeer[i]
			s.toPeer = append(s.toPeer[:i], s.toPeer[i+1:]...)
			if !w.chance(6) {
				w.arrive(g)
			}
		}
	case n < 90: // a bare acknowledgement, which the router need not see
		if s.top > 0 && !l.gentle {
			if s.acked > len(s.sent) {
				return
			}
			g := s.emit(s.acked, s.acked, 0)
			if w.chance(3) {
				w.segment(g)
			} else {
				w.arrive(g)
			}
		}
	case n < 98:
		w.pass(time.Duration(w.rng.IntN(40)) * time.Millisecond)
	case n == 98 && w.chance(6) && !l.gentle:
		l.peers[side].shut()
	case n == 99 && w.chance(20) && !l.gentle:
		w.segment(s.emit(s.acked%(len(s.sent)+1), s.acked%(len(s.sent)+1), alg.RST))
		if len(s.toPeer) > 0 || w.book != nil { // its sender does not repeat it
			l.kill()
		}
	}
	l.finish()
}

// transmit puts a segment of the stream on its way to the router.
func (s *stream) transmit() {
	w := s.l.w
	if s.acked >= s.end() && !w.chance(15) || len(s.sent) == 0 {
		return
	}
	if s.l.gentle {
		if s.through < len(s.sent) {
			w.segment(s.emit(s.through, min(len(s.sent), s.through+s.piece()), 0))
		} else if s.acked < len(s.sent) {
			w.segment(s.emit(s.acked, min(len(s.sent), s.acked+s.piece()), 0))
		}
		return
	}
	a := 0
	switch w.rng.IntN(8) {
	case 0, 1, 2: // what is oldest
		a = s.acked
	case 3: // something between
		a = s.acked + w.rng.IntN(max(1, s.top-s.acked))
	case 4: // something that has arrived
		a = max(0, s.acked-w.rng.IntN(400))
	default: // what is new
		a = s.top
	}
	a = min(a, len(s.sent))
	b := min(len(s.sent), a+s.piece())
	var flags alg.Flags
	if s.fin && b == len(s.sent) && !w.chance(3) {
		flags = alg.FIN
	}
	if a == b && flags == 0 {
		return
	}
	g := s.emit(a, b, flags)
	if w.chance(8) {
		w.note("link %d %v [%d,%d) lost before the router", s.l.n, s.side, a, b)
		return
	}
	s.toRouter = append(s.toRouter, g)
	if w.chance(10) {
		twin := *g
		s.toRouter = append(s.toRouter, &twin)
	}
}

// piece is a length to cut off. Cuts after a few bytes are common, so that
// many fall into headers and Call IDs.
func (s *stream) piece() int {
	w := s.l.w
	switch w.rng.IntN(5) {
	case 0:
		return 1 + w.rng.IntN(3)
	case 1:
		return 8 + w.rng.IntN(12)
	case 2:
		return 1 + w.rng.IntN(200)
	default:
		return 1 + w.rng.IntN(1460)
	}
}

// route gives the router a segment that is on its way.
func (s *stream) route(inOrder bool) {
	if len(s.toRouter) == 0 {
		return
	}
	i := 0
	if !inOrder && s.l.w.chance(3) {
		i = s.l.w.rng.IntN(len(s.toRouter))
	}
	g := s.toRouter[i]
	s.toRouter = append(s.toRouter[:i], s.toRouter[i+1:]...)
	s.l.w.segment(g)
}

// pass lets time pass, but not so much that the router gives up on a segment
// which waits, where the history does not want that.
func (w *world) pass(d time.Duration) {
	later := w.now.Add(d)
	for _, l := range w.links {
		for _, s := range l.streams {
			for range 50 {
				if !s.overdue(later) {
					break
				}
				s.rescue()
			}
		}
	}
	w.now, w.expiring = later, true
	w.survive(func() { w.table.Expire(w.now) })
	w.expiring = false
}

func (s *stream) overdue(at time.Time) bool {
	w := s.l.w
	if s.l.dead || w.p.timeouts && s.expiries < 2 {
		return false
	}
	for _, since := range s.waiting {
		if at.Sub(since) > 800*time.Millisecond {
			return true
		}
	}
	return false
}

// rescue sends what the router waits for.
func (s *stream) rescue() {
	end := min(len(s.sent), s.through+1400)
	if s.through < end {
		s.l.w.segment(s.emit(s.through, end, 0))
	}
}

// finish notes that a link is closed on both sides.
func (l *link) finish() {
	a, b := l.streams[0], l.streams[1]
	if l.up && a.fin && b.fin && a.acked == a.end() && b.acked == b.end() {
		l.kill()
	}
	if l.up && a.idle() && b.idle() {
		l.release()
	}
	if w := l.w; w.chance(200) {
		for _, x := range w.links {
			if x.up && (x.closing() || !x.streams[0].idle() || !x.streams[1].idle()) {
				return
			}
		}
		w.pass(time.Duration(1+w.rng.IntN(100)) * time.Second)
	}
}

// end brings everything to an end and lets time pass.
func (w *world) end() {
	// What was written arrives.
	for range 400 {
		busy := false
		for _, l := range w.links {
			if !l.up {
				continue
			}
			for _, s := range l.streams {
				for len(s.toRouter) > 0 {
					s.route(true)
				}
				if s.acked < s.end() {
					busy = true
					a := min(s.acked, len(s.sent))
					b := min(len(s.sent), a+1460)
					var flags alg.Flags
					if s.fin && b == len(s.sent) {
						flags = alg.FIN
					}
					w.segment(s.emit(a, b, flags))
				}
				for len(s.toPeer) > 0 {
					g := s.toPeer[0]
					s.toPeer = s.toPeer[1:]
					w.arrive(g)
				}
				if l.up {
					w.arrive(s.emit(min(s.acked, len(s.sent)), min(s.acked, len(s.sent)), 0))
				}
			}
			l.finish()
		}
		w.pass(10 * time.Millisecond)
		if !busy || w.failed {
			break
		}
	}
	for _, l := range w.links {
		for _, s := range l.streams {
			if l.up && s.prefix != len(s.sent) {
				w.fail("link %d: the stream of the %v stuck at %d of %d", l.n, s.side, s.prefix, len(s.sent))
				return
			}
		}
	}
	if w.book != nil {
		// What waits for a gap after a restart is not waited for twice, but that is not due yet.
		w.book.calm, w.book.counters = true, w.alg.Counters
	}
	for _, l := range w.links {
		c := w.alg.Find(l.flow)
		if c == nil {
			continue
		}
		switch w.rng.IntN(3) {
		case 0:
			if l.up {
				s := l.streams[w.rng.IntN(2)]
				w.segment(s.emit(len(s.sent), len(s.sent), alg.RST))
			}
			if c.State != alg.Closed && l.up {
				w.fail("link %d is %v after a reset", l.n, c.State)
			}
		case 1:
			c.Close(w.now, "the end")
		}
		c.Lost(w.now)
	}
	for range 100 {
		w.now = w.now.Add(10 * time.Second)
		w.table.Expire(w.now)
	}
	if len(w.table.Ended()) > 5 {
		w.fail("remembers %d calls", len(w.table.Ended()))
	}
	_ = fmt.Sprint
}
