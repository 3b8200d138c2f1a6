package alg_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// This file is a small world around an ALG: hosts, a router, links that lose,
// repeat, reorder and cut. It shares no code with the ALG: offsets are written
// out again, and TCP is the most naive one that works.

var be = binary.BigEndian

// profile says what may happen in a world.
type profile struct {
	first, last uint16
	limits      nat.Limits
	planeErrors bool // the data plane fails at times: calls may be refused
	taken       bool // it answers ErrTaken at times
	timeouts    bool // what waits may wait too long
	synSeen     bool // the router sees the SYN with ACK
	compulsory  bool // PACs announce calls
	sameServer  bool // one server for all
	links       int  // 0: as it comes
}

func (p profile) refuses() bool {
	return p.planeErrors || p.taken || p.limits != nat.Limits{} || p.last-p.first < 1000
}

// world is everything in one history.
type world struct {
	t     testing.TB
	seed  uint64
	rng   *rand.Rand
	p     profile
	now   time.Time
	table *nat.Table
	alg   *alg.ALG
	plane *plane
	book  *book // of a router that may crash; nil: it does not
	links []*link
	calls []*call // by stamp
	trace []string

	given, decided int
	expiring       bool
	failed         bool
	refused        int
	shut           bool // some connection was closed
	established    int
	events         map[alg.EventKind]int
}

func (w *world) fail(format string, args ...any) {
	if w.failed {
		return
	}
	w.failed = true
	w.table.Calls(func(c *nat.Call) { w.note("the table has %v", describe(c)) })
	for _, c := range w.table.Ended() {
		w.note("the table had %v", describe(c))
	}
	if n := len(w.trace); n > *lines {
		w.trace = w.trace[n-*lines:]
	}
	w.t.Errorf("seed %d: %s\nhistory ends:\n  %s", w.seed, fmt.Sprintf(format, args...), strings.Join(w.trace, "\n  "))
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%v ", w.now.Sub(epoch))+fmt.Sprintf(format, args...))
	if len(w.trace) > 4000 {
		w.trace = append(w.trace[:0], w.trace[2000:]...)
	}
}

func describe(c *nat.Call) string {
	text := fmt.Sprintf("%v -> %v: %v %v by the %v", c.Connection.Path.Hosts[0], c.Connection.Path.Hosts[1], c.State, c.Direction, c.Initiator)
	for side, m := range c.Ends {
		if m != nil {
			text += fmt.Sprintf(", %v %d told %d open %v", nat.Side(side), m.Real, m.Told, m.Open())
		}
	}
	return text + " " + c.Reason
}

var epoch = time.Date(2024, 2, 29, 23, 59, 58, 0, time.UTC)

func newWorld(t testing.TB, seed uint64, p profile) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), p: p, now: epoch, events: map[alg.EventKind]int{}}
	w.plane = &plane{w: w, open: map[tuple]*nat.Mapping{}, kept: map[tuple]bool{}, leaves: map[tuple]*nat.Mapping{}}
	w.make(rand.New(rand.NewPCG(seed, 2)))
	return w
}

// make makes a router that knows nothing.
func (w *world) make(rng *rand.Rand) {
	cfg := nat.Config{
		First: w.p.first, Last: w.p.last, Limits: w.p.limits,
		Timeouts: nat.Timeouts{HalfOpen: 10 * time.Hour, Clearing: 10 * time.Hour, Grace: 3 * time.Second, Rest: 60 * time.Second, Renew: 40 * time.Second},
		Remember: 5,
	}
	ac := alg.Config{Decide: w.decide, Notify: func(e alg.Event) { w.events[e.Kind]++ }}
	if b := w.book; b != nil {
		cfg.Changed = func(c *nat.Call) { b.changed[c] = true }
		ac.Changed = func(c *alg.Connection) { b.touched[c] = true }
	}
	w.table = nat.NewTable(cfg, w.plane, rng)
	w.alg = alg.New(ac, w.table)
}

// chance is true in one of n cases.
func (w *world) chance(n int) bool { return w.rng.IntN(n) == 0 }

// tuple is a GRE tuple in a zone.
type tuple struct {
	nat.Tuple
	zone nat.Zone
}

// plane is a data plane that remembers.
type plane struct {
	w      *world
	open   map[tuple]*nat.Mapping // by the tuple that arrives
	kept   map[tuple]bool         // open, or closed and not free
	leaves map[tuple]*nat.Mapping
	opened int
	renews int
}

var errPlane = errors.New("no memory for another entry")

func (p *plane) Open(m *nat.Mapping) error {
	w := p.w
	a, l := tuple{m.Arrives(), m.Path.Zone}, tuple{m.Leaves(), m.Path.Zone}
	switch {
	case m.Told == 0:
		w.fail("opened a mapping with told Call ID 0")
	case p.kept[a]:
		w.fail("opened %v, which another mapping has", a)
	case p.leaves[l] != nil:
		return nat.ErrAmbiguous
	case w.p.taken && w.chance(12):
		return nat.ErrTaken
	case w.p.planeErrors && w.chance(25):
		return errPlane
	}
	w.book.opening(m)
	p.open[a], p.kept[a], p.leaves[l] = m, true, m
	p.opened++
	w.book.perhaps(60)
	return nil
}

func (p *plane) Renew(m *nat.Mapping) error {
	if p.open[tuple{m.Arrives(), m.Path.Zone}] != m {
		p.w.fail("renewed %v, which is not open", m.Arrives())
	}
	p.renews++
	return nil
}

func (p *plane) Close(m *nat.Mapping) {
	a := tuple{m.Arrives(), m.Path.Zone}
	if p.open[a] != m {
		p.w.fail("closed %v, which is not open", a)
	}
	delete(p.open, a)
	delete(p.leaves, tuple{m.Leaves(), m.Path.Zone})
	p.w.book.mapping(m)
}

func (p *plane) Free(m *nat.Mapping) {
	a := tuple{m.Arrives(), m.Path.Zone}
	if p.open[a] != nil || !p.kept[a] {
		p.w.fail("freed %v: open %v, kept %v", a, p.open[a] != nil, p.kept[a])
	}
	delete(p.kept, a)
	p.w.book.mapping(m)
}

// link is a control connection and what carries it.
type link struct {
	w       *world
	n       int
	path    nat.Path
	flow    alg.Flow
	streams [2]*stream // by the side that sends
	peers   [2]*peer
	pseudo  [12]byte // for the checksum
	up      bool
	dead    bool // reset or given up
	gentle  bool // the router did not see how it began: spare it
	icrp    int  // how Incoming-Call-Replies are written
	calls   []*call
	life    int
}

// field marks a byte of a stream that the router may change.
type field uint8

const (
	plain field = iota
	callIDField
	resultField // result code 1, or the error code behind it
)

// ownID is a place in a stream where a sender tells its own Call ID. GRE has to
// flow when the byte at until goes on: for an answer, its result.
type ownID struct {
	at    int
	until int
	call  *call
	id    uint16
	side  nat.Side
}

// stream is what one side of a link sends.
type stream struct {
	l     *link
	side  nat.Side
	isn   uint32 // sequence number of the first byte
	sent  []byte
	marks []field
	own   []ownID // not forwarded yet
	fin   bool
	top   int // highest offset that was emitted
	acked int // what the sender knows to have arrived
	// at the router
	first    []int // the value of each byte as first forwarded; -1: not yet
	through  int   // all bytes below were forwarded
	ackShown int   // highest acknowledgement that the router was shown
	expiries int   // in a row, after which what waited was dropped
	expired  time.Time
	toRouter []*seg
	toPeer   []*seg
	waiting  map[*seg]time.Time
	// at the receiver
	got    []int
	prefix int
	parsed int
	gotFIN bool
}

// seg is a segment.
type seg struct {
	s       *stream
	off     int
	payload []byte
	flags   alg.Flags
	ack     int // offset in the other stream
	seq     uint32
	filler  uint16
	pseudo  [12]byte
	*alg.Segment
}

func (s *stream) end() int {
	if s.fin {
		return len(s.sent) + 1
	}
	return len(s.sent)
}

func (s *stream) back() *stream { return s.l.streams[s.side.Other()] }

// ackNow is what the receiver of the stream acknowledges.
func (s *stream) ackNow() int {
	if s.gotFIN {
		return s.prefix + 1
	}
	return s.prefix
}

func (s *stream) idle() bool {
	return s.prefix == len(s.sent) && len(s.toRouter) == 0 && len(s.waiting) == 0 && len(s.toPeer) == 0
}

// write appends a message to the stream.
func (s *stream) write(b []byte, marks map[int]field, own *ownID) {
	base := len(s.sent)
	if own != nil {
		o := *own
		o.at, o.until = o.at+base, o.until+base
		s.own = append(s.own, o)
	}
	for i, c := range b {
		s.sent = append(s.sent, c)
		s.marks = append(s.marks, marks[i])
		s.first = append(s.first, -1)
		s.got = append(s.got, -1)
	}
}

// naiveChecksum is the TCP checksum from scratch.
func naiveChecksum(parts ...[]byte) uint16 {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	sum := 0
	for i := 0; i < len(all); i += 2 {
		sum += int(all[i])<<8 + int(all[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(0xffff - sum)
}

func (g *seg) checksum(payload []byte) uint16 {
	h := make([]byte, 20)
	be.PutUint32(h[4:], g.seq)
	be.PutUint32(h[8:], g.Segment.Ack)
	h[12], h[13] = 5<<4, byte(g.flags)
	be.PutUint16(h[14:], g.filler)
	return naiveChecksum(g.pseudo[:], h, payload)
}

// emit makes a segment of the stream's bytes from a to b.
func (s *stream) emit(a, b int, flags alg.Flags) *seg {
	if flags&alg.RST == 0 {
		flags |= alg.ACK
	}
	g := &seg{s: s, off: a, payload: append([]byte{}, s.sent[a:b]...), flags: flags, ack: s.back().ackNow(),
		seq: s.isn + uint32(a), filler: uint16(s.l.w.rng.Uint32()), pseudo: s.l.pseudo}
	if flags&alg.SYN != 0 {
		g.seq--
	}
	end := b
	if flags&alg.FIN != 0 {
		end++
	}
	s.top = max(s.top, end)
	return g
}

// segment gives a segment to the router, which may end of it.
func (w *world) segment(g *seg) { w.survive(func() { w.take(g) }) }

// take takes a segment in the way the daemon does.
func (w *world) take(g *seg) {
	s, l := g.s, g.s.l
	g.Segment = &alg.Segment{From: s.side, Seq: g.seq, Ack: s.back().isn + uint32(g.ack), Flags: g.flags,
		Payload: append([]byte{}, g.payload...), Packet: g}
	g.Segment.Checksum = g.checksum(g.payload)
	c := w.alg.Find(l.flow)
	if c != nil && c.Reopens(g.Segment) {
		c.Close(w.now, "reopened")
		c = nil
	}
	w.given++
	s.waiting[g] = w.now
	if g.flags&alg.ACK != 0 {
		s.back().ackShown = max(s.back().ackShown, g.ack)
	}
	if c == nil {
		if len(g.payload) == 0 && g.flags&alg.SYN == 0 {
			w.decide(g.Segment, alg.Accept)
			return
		}
		var err error
		if c, err = w.alg.Open(w.now, l.flow, l.path); err != nil {
			if !errors.Is(err, nat.ErrLimit) {
				w.fail("open: %v", err)
			}
			w.decide(g.Segment, alg.Drop)
			return
		}
	}
	c.Segment(w.now, g.Segment)
}

// decide is what the router does with a verdict.
func (w *world) decide(as *alg.Segment, v alg.Verdict) {
	g := as.Packet.(*seg)
	s := g.s
	w.book.perhaps(100)
	w.book.commit()
	w.book.perhaps(100)
	if _, ok := s.waiting[g]; !ok {
		w.fail("link %d: segment [%d,%d) of the %v decided twice", s.l.n, g.off, g.off+len(g.payload), s.side)
		return
	}
	delete(s.waiting, g)
	w.decided++
	w.note("link %d %v [%d,%d) %v: verdict %v %d", s.l.n, s.side, g.off, g.off+len(g.payload), g.flags, v, w.alg.Counters)
	if as.From != s.side || as.Seq != g.seq || as.Flags != g.flags || len(as.Payload) != len(g.payload) {
		w.fail("the router changed more than payload and checksum")
		return
	}
	if sum := g.checksum(as.Payload); sum != as.Checksum {
		w.fail("checksum %#04x, from scratch %#04x", as.Checksum, sum)
	}
	if v != alg.Accept {
		if w.expiring && s.expired != w.now {
			s.expired = w.now
			s.expiries++
		}
		return
	}
	for i, b := range as.Payload {
		at := g.off + i
		switch {
		case s.marks[at] == plain && b != s.sent[at]:
			w.fail("link %d: byte %d of the %v changed from %#02x to %#02x", s.l.n, at, s.side, s.sent[at], b)
		case s.first[at] < 0:
			s.first[at] = int(b)
		case s.first[at] != int(b) && (w.book == nil || at >= s.ackShown):
			w.fail("link %d: byte %d of the %v repeated as %#02x, was %#02x", s.l.n, at, s.side, b, s.first[at])
		}
	}
	for s.through < len(s.first) && s.first[s.through] >= 0 {
		s.through++
		s.expiries = 0
	}
	if !s.l.dead && s.l.streams[s.side] == s { // else of a connection that was
		s.tell()
		s.toPeer = append(s.toPeer, g)
	}
}

// tell checks that GRE already flows for every Call ID that was just told.
func (s *stream) tell() {
	w := s.l.w
	for len(s.own) > 0 {
		o := s.own[0]
		if s.through <= o.until {
			return
		}
		s.own = s.own[1:]
		told := uint16(s.first[o.at]<<8 | s.first[o.at+1])
		m := w.plane.open[tuple{s.l.arrives(o.side, told), s.l.path.Zone}]
		if m == nil || m.Real != o.id || m.Leaves() != s.l.leaves(o.side, o.id) {
			if w.p.refuses() || o.call.notify || s.l.closing() {
				continue // checked when the answer arrives, or over already
			}
			w.fail("link %d: call %d: Call ID %d of the %v told as %d, but no GRE flows there", s.l.n, o.call.stamp, o.id, o.side, told)
			return
		}
	}
}

// arrives and leaves are the tuples of the contract, written out again.
func (l *link) arrives(x nat.Side, told uint16) nat.Tuple {
	h := l.path.Hosts
	if x == nat.Client {
		return nat.Tuple{Src: h[nat.Server].Real, Dst: h[nat.Client].Told, CallID: told}
	}
	return nat.Tuple{Src: h[nat.Client].Real, Dst: h[nat.Server].Told, CallID: told}
}

func (l *link) leaves(x nat.Side, real uint16) nat.Tuple {
	h := l.path.Hosts
	if x == nat.Client {
		return nat.Tuple{Src: h[nat.Server].Told, Dst: h[nat.Client].Real, CallID: real}
	}
	return nat.Tuple{Src: h[nat.Client].Told, Dst: h[nat.Server].Real, CallID: real}
}

// arrive gives a segment to its receiver.
func (w *world) arrive(g *seg) {
	s := g.s
	if g.flags&alg.RST != 0 {
		s.l.kill()
		return
	}
	if g.flags&alg.ACK != 0 {
		s.back().acked = max(s.back().acked, g.ack)
	}
	payload := g.payload
	if g.Segment != nil {
		payload = g.Payload
	}
	for i, b := range payload {
		at := g.off + i
		if at < s.prefix {
			continue // a receiver does not look at what it has
		}
		if s.got[at] >= 0 && s.got[at] != int(b) {
			w.fail("link %d: the receiver has byte %d of the %v as %#02x and as %#02x", s.l.n, at, s.side, s.got[at], b)
		}
		s.got[at] = int(b)
	}
	for s.prefix < len(s.got) && s.got[s.prefix] >= 0 {
		s.prefix++
	}
	if g.flags&alg.FIN != 0 && s.prefix == g.off+len(g.payload) {
		s.gotFIN = true
	}
	s.l.peers[s.side.Other()].read(s)
	if s.gotFIN && !s.back().fin {
		s.l.peers[s.side.Other()].shut()
	}
}

// kill ends a link without ceremony.
func (l *link) kill() {
	l.dead, l.up = true, false
	for _, s := range l.streams {
		s.toRouter, s.toPeer = nil, nil
	}
	for _, c := range l.calls {
		c.over = [2]bool{true, true}
	}
	l.release()
}

// release lets the Call IDs of calls be used again that are over on both
// sides, when nothing on the way speaks of them.
func (l *link) release() {
	if !l.dead && (!l.streams[0].idle() || !l.streams[1].idle()) {
		return
	}
	rest := l.calls[:0]
	for _, c := range l.calls {
		if c.over[0] && c.over[1] {
			for side, has := range c.has {
				if has {
					delete(l.peers[side].host.used[l.other(nat.Side(side))], c.ids[side])
				}
			}
			continue
		}
		rest = append(rest, c)
	}
	l.calls = rest
}

// other is the address under which a side's host keeps its Call IDs apart.
func (l *link) other(side nat.Side) netip.Addr {
	if side == nat.Server {
		return netip.Addr{} // a server's Call IDs differ from each other, whoever calls
	}
	return l.path.Hosts[nat.Server].Told
}

// size returns the number of elements of an unexported map or slice.
func size(x any, name string) int { return reflect.ValueOf(x).Elem().FieldByName(name).Len() }

// empty checks that nothing is left after everything ended.
func (w *world) empty() {
	if n := w.alg.Len(); n != 0 {
		w.fail("%d connections are left", n)
	}
	if n := w.alg.Holding(); n != 0 {
		w.fail("%d segments are held", n)
	}
	for _, l := range w.links {
		for _, s := range l.streams {
			if n := len(s.waiting); n != 0 {
				w.fail("%d segments were never decided", n)
			}
		}
	}
	if w.given != w.decided {
		w.fail("%d segments given, %d decided", w.given, w.decided)
	}
	checkEmpty(w.fail, w.table)
	if len(w.plane.open) != 0 || len(w.plane.kept) != 0 || len(w.plane.leaves) != 0 {
		w.fail("left in the data plane: %d open, %d kept", len(w.plane.open), len(w.plane.kept))
	}
}

// checkEmpty checks that a table holds nothing.
func checkEmpty(fail func(string, ...any), table *nat.Table) {
	if n := table.Len(); n != 0 {
		fail("%d calls are live", n)
	}
	if at, ok := table.Next(); ok {
		fail("something is due at %v", at)
	}
	for _, name := range []string{"departures", "connections", "perClient", "calls"} {
		if n := size(table, name); n != 0 {
			fail("table.%s has %d left", name, n)
		}
	}
	pool := reflect.ValueOf(table).Elem().FieldByName("pool").Elem()
	for _, name := range []string{"owner", "used", "spare"} {
		if n := pool.FieldByName(name).Len(); n != 0 {
			fail("table.pool.%s has %d left", name, n)
		}
	}
}
