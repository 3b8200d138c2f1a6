package nat

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// The model knows the rules of the package and nothing of its structures: it
// keeps everything in slices and looks through all of it for every question.
// Where the table is free to choose, among free Call IDs, the model checks that
// the choice is a lawful one and takes it over.

type model struct {
	t     *testing.T
	rng   *rand.Rand
	table *Table
	cfg   Config
	now   time.Time
	log   []string

	conns  []*mConn
	calls  []*mCall // not forgotten, in order
	ids    []*mID   // with an owner, in the order in which they were opened
	spares []*mSpare
	held   []*mHeld
	trials []*mHeld

	counters  Counters
	everEnded int
	restored  int // calls that the present table did not see requested

	// What the table asked of the data plane.
	attempts []attempt // in the present step
	flows    map[*Mapping]bool
	guarded  map[mKey]*Mapping
	renewed  map[*Mapping]time.Time
	faults   int // of 100 opens
}

type mConn struct {
	c      *Connection
	path   Path
	closed bool
}

type mCall struct {
	call    *Call
	conn    *mConn
	state   State
	refused bool
	inside  bool // was one of the table's calls, not refused at once
	ends    [2]*mID
	spare   *mSpare
	due     time.Time
	why     string // which timer is set; "" for none
	reason  string
}

type mKey struct {
	src, dst netip.Addr
	zone     uint16 // that packets with this tuple are in
	id       uint16
}

type mID struct {
	m       *Mapping // nil for a flow that is not ours
	at      mKey     // as it arrives
	leave   mKey
	side    Side
	real    uint16
	state   mappingState
	known   bool
	call    *mCall
	conn    *mConn
	due     time.Time // end of its rest, or next renewal
	timed   bool
	renewed time.Time
}

type mSpare struct {
	at      mKey
	uses    int
	due     time.Time
	resting bool
}

type mHeld struct {
	m     *Mapping
	conn  *mConn
	side  Side
	high  byte
	id    *mID
	spare *mSpare

	promised bool
	real     uint16 // if promised
}

type attempt struct {
	m    *Mapping
	told uint16
	err  error
}

func (k mKey) sameDomain(o mKey) bool { return k.src == o.src && k.dst == o.dst && k.zone == o.zone }

func arrivesAt(p *Path, s Side, told uint16) mKey {
	return mKey{p.Hosts[s.Other()].Real, p.Hosts[s].Told, zoneFrom(p, s.Other()), told}
}

func leavesAt(p *Path, s Side, real uint16) mKey {
	return mKey{p.Hosts[s.Other()].Told, p.Hosts[s].Real, zoneFrom(p, s), real}
}

// zoneFrom returns the zone of what a side sends.
func zoneFrom(p *Path, s Side) uint16 {
	switch {
	case p.Zone.Direction == ZoneBoth, p.Zone.Direction == ZoneFromClient && s == Client,
		p.Zone.Direction == ZoneFromServer && s == Server:
		return p.Zone.ID
	}
	return 0
}

func (m *model) failf(format string, args ...any) {
	m.t.Helper()
	last := m.log
	if len(last) > 40 {
		last = last[len(last)-40:]
	}
	m.t.Fatalf("%s\nrange %d-%d, timeouts %+v, limits %+v\nhistory:\n%s", fmt.Sprintf(format, args...),
		m.cfg.First, m.cfg.Last, m.cfg.Timeouts, m.cfg.Limits, strings.Join(last, "\n"))
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%6.1fs ", m.now.Sub(epoch).Seconds())+fmt.Sprintf(format, args...))
}

// The model is the data plane as well, and sees that calls are well formed.

var errKernel = errors.New("kernel says no")

func (m *model) Open(x *Mapping) error {
	a := x.Arrives()
	k := mKey{a.Src, a.Dst, zoneFrom(x.Path, x.Side.Other()), a.CallID}
	switch {
	case k != arrivesAt(x.Path, x.Side, x.Told):
		m.failf("Open of %v, which is not how GRE arrives", a)
	case x.Told == 0:
		m.failf("Call ID 0 is told")
	case m.guarded[k] != nil:
		m.failf("Open of %v, which was not freed", a)
	case m.flows[x]:
		m.failf("Open of a mapping that is open")
	case x.Open():
		m.failf("the mapping is open before its flow is")
	}
	for _, id := range m.ids {
		if id.state == mappingOpen && m.flows[id.m] && id.leave == leavesAt(x.Path, x.Side, x.Real) && id.m.Twin == x.Twin {
			m.failf("Open of %+v, which the kernel cannot tell from %+v", x, id.m)
		}
	}
	var err error
	switch n := m.rng.IntN(100); {
	case n < m.faults/2:
		err = fmt.Errorf("wrapped: %w", ErrTaken)
	case n < m.faults*3/4:
		err = fmt.Errorf("wrapped: %w", ErrAmbiguous)
	case n < m.faults:
		err = errKernel
	}
	m.attempts = append(m.attempts, attempt{x, x.Told, err})
	if err == nil {
		m.flows[x], m.guarded[k] = true, x
	}
	return err
}

func (m *model) Renew(x *Mapping) error {
	if !m.flows[x] {
		m.failf("Renew of a mapping that is not open")
	}
	m.renewed[x] = m.now
	return nil
}

func (m *model) Close(x *Mapping) {
	if !m.flows[x] {
		m.failf("Close of a mapping that is not open")
	}
	delete(m.flows, x)
}

func (m *model) Free(x *Mapping) {
	k := arrivesAt(x.Path, x.Side, x.Told)
	if m.flows[x] || m.guarded[k] != x {
		m.failf("Free of a mapping that is not closed")
	}
	delete(m.guarded, k)
}

// Naive answers.

func (m *model) inRange(id uint16) bool { return id >= m.cfg.First && id <= m.cfg.Last && id != 0 }

func (m *model) owned(k mKey) bool {
	return slices.ContainsFunc(m.ids, func(id *mID) bool { return id.at == k })
}

func (m *model) spareOf(k mKey) *mSpare {
	for _, s := range m.spares {
		if s.at.sameDomain(k) {
			return s
		}
	}
	return nil
}

func (m *model) unused(k mKey) bool {
	s := m.spareOf(k)
	return k.id != 0 && !m.owned(k) && (s == nil || s.at != k)
}

func (m *model) free(k mKey) bool { return m.inRange(k.id) && m.unused(k) }

func (m *model) room(k mKey) bool {
	n := 0
	for _, id := range m.ids {
		if id.at.sameDomain(k) && m.inRange(id.at.id) {
			n++
		}
	}
	return n+2 <= int(m.cfg.Last)-int(max(m.cfg.First, 1))+1
}

// available reports whether there is an ID to give, in one block or in all.
func (m *model) available(k mKey, block int) bool {
	if !m.room(k) {
		return false
	}
	for id := int(m.cfg.First); id <= int(m.cfg.Last); id++ {
		k.id = uint16(id)
		if (block == noBlock || id>>8 == block) && m.free(k) {
			return true
		}
	}
	return false
}

func (m *model) connCalls(c *mConn) (list []*mCall, live, asking int) {
	for _, call := range m.calls {
		if call.conn == c {
			list = append(list, call)
			if call.state != Ended {
				if call.inside {
					live++
				} else {
					asking++
				}
			}
		}
	}
	return
}

func (m *model) clientCalls(client netip.Addr) (conns, live, held int) {
	for _, c := range m.conns {
		if c.path.Hosts[Client].Real != client {
			continue
		}
		if !c.closed {
			conns++
		}
		list, n, _ := m.connCalls(c)
		live, held = live+n, held+len(list)
	}
	return
}

func (m *model) live() (n int) {
	for _, call := range m.calls {
		if call.state != Ended && call.inside {
			n++
		}
	}
	return
}

func past(limit int) int {
	if limit == 0 {
		return 1 << 30
	}
	return limit + max(limit, minPast)
}

func (m *model) pastLimit(c *mConn) string {
	l := m.cfg.Limits
	list, _, _ := m.connCalls(c)
	_, _, held := m.clientCalls(c.path.Hosts[Client].Real)
	switch {
	case len(m.calls) >= past(l.Calls):
		return "in total, ended"
	case held >= past(l.CallsPerClient):
		return "of client " + c.path.Hosts[Client].Real.String() + ", ended"
	case len(list) >= past(l.CallsPerConnection):
		return "of one control connection, ended"
	}
	return ""
}

func (m *model) limit(c *mConn) string {
	l := m.cfg.Limits
	_, ofConn, _ := m.connCalls(c)
	_, ofClient, _ := m.clientCalls(c.path.Hosts[Client].Real)
	switch {
	case l.Calls > 0 && m.live() >= l.Calls:
		return fmt.Sprintf("%d calls in total", l.Calls)
	case l.CallsPerClient > 0 && ofClient >= l.CallsPerClient:
		return fmt.Sprintf("%d calls of client %v", l.CallsPerClient, c.path.Hosts[Client].Real)
	case l.CallsPerConnection > 0 && ofConn >= l.CallsPerConnection:
		return fmt.Sprintf("%d calls of one control connection", l.CallsPerConnection)
	}
	return m.pastLimit(c)
}

// Steps of the model.

// conflict returns whether the ID is ambiguous, after ending what makes way.
func (m *model) conflict(c *mConn, side Side, real uint16) bool {
	k := leavesAt(&c.path, side, real)
	for _, old := range slices.Backward(slices.Clone(m.ids)) {
		if old.state != mappingOpen || old.leave != k {
			continue
		}
		switch {
		case old.call == nil:
			return true
		case old.call.state == Ended || old.call.state == Clearing:
		case old.conn == c:
			continue
		case old.conn.path.Hosts[Client].Real != c.path.Hosts[Client].Real:
			return true
		}
		m.end(old.call, "newer call")
		m.closeID(old)
	}
	return false
}

// announce follows what the table did to map an ID. It returns the mapping or
// what the error has to be.
func (m *model) announce(c *mConn, side Side, real uint16, h *mHeld) (*mID, error) {
	if c.closed {
		return nil, errClosed
	}
	if h != nil && h.spare != nil {
		return nil, ErrExhausted
	}
	if m.conflict(c, side, real) {
		return nil, ErrAmbiguous
	}
	k := arrivesAt(&c.path, side, real)
	block := noBlock
	if h != nil {
		block = int(h.id.at.id >> 8)
	}
	if h != nil && h.promised {
		return m.keep(c, side, real, h)
	}
	triedReal, triedHeld := false, false
	for i, a := range m.attempts {
		at := k
		at.id = a.told
		ofHeld := h != nil && at == h.id.at
		own := !triedReal && (h != nil && h.id.at.id == real ||
			m.room(k) && m.free(k) && (block == noBlock || int(real>>8) == block))
		switch {
		case own && a.told != real:
			m.failf("told %d for %d, which was free", a.told, real)
		case own: // kept
		case h != nil && !triedHeld && !ofHeld:
			m.failf("told %d for %d, though %d was held", a.told, real, h.id.at.id)
		case ofHeld && triedHeld:
			m.failf("tried %d again", a.told)
		case ofHeld: // the one that is held
		case !m.free(at):
			m.failf("told %d for %d, which is not free", a.told, real)
		case !m.room(k):
			m.failf("told %d, the last ID of its domain", a.told)
		case block != noBlock && int(a.told>>8) != block:
			m.failf("told %d, outside block %d", a.told, block)
		case block == noBlock && a.told>>8 != real>>8 && m.available(k, int(real>>8)):
			m.failf("told %d for %d, whose block has room", a.told, real)
		}
		triedReal = triedReal || a.told == real
		triedHeld = triedHeld || ofHeld
		if a.err == nil {
			if i != len(m.attempts)-1 {
				m.failf("an open too many")
			}
			if h != nil {
				m.drop(h.id)
			}
			return m.opened(c, side, real, a, at), nil
		}
		if !errors.Is(a.err, ErrTaken) {
			if i != len(m.attempts)-1 {
				m.failf("tried again after %v", a.err)
			}
			return nil, a.err
		}
		if !ofHeld {
			m.ids = append(m.ids, &mID{at: at, state: mappingResting, due: m.now.Add(m.cfg.Timeouts.Rest), timed: true})
		}
	}
	if len(m.attempts) == maxTaken {
		return nil, ErrTaken
	}
	if h != nil && !triedHeld || m.available(k, block) {
		m.failf("gave up on %d, though there is an ID (held %v)", real, h != nil)
	}
	return nil, ErrExhausted
}

// keep is announce where the told ID is promised.
func (m *model) keep(c *mConn, side Side, real uint16, h *mHeld) (*mID, error) {
	if len(m.attempts) != 1 || m.attempts[0].told != h.id.at.id {
		m.failf("promised %d, opened %v", h.id.at.id, m.attempts)
	}
	if err := m.attempts[0].err; err != nil {
		return nil, err
	}
	m.drop(h.id)
	return m.opened(c, side, real, m.attempts[0], h.id.at), nil
}

func (m *model) opened(c *mConn, side Side, real uint16, a attempt, at mKey) *mID {
	leave := leavesAt(&c.path, side, real)
	if want := m.twin(leave); a.m.Twin != want {
		m.failf("twin %d, want %d", a.m.Twin, want)
	}
	id := &mID{m: a.m, at: at, leave: leave, side: side, real: real, state: mappingOpen, known: true, conn: c}
	if m.cfg.Timeouts.Renew > 0 {
		id.timed = true
		m.renewal(id)
	}
	m.ids = append(m.ids, id)
	if a.told != real {
		m.counters.Translated++
	}
	return id
}

// renewal takes over the time at which an open mapping is renewed next, of
// which the table is free to choose the last quarter of the period.
func (m *model) renewal(id *mID) {
	every := m.cfg.Timeouts.Renew
	if !id.m.Open() {
		id.due = m.now.Add(every) // closed in the same turn, as will be seen
		return
	}
	id.due = m.table.agenda.when(&id.m.until)
	if id.due.After(m.now.Add(every)) || id.due.Before(m.now.Add(every-every/renewSpread)) {
		m.failf("renewal at %v, every %v", id.due.Sub(epoch), every)
	}
}

func (m *model) drop(id *mID) {
	i := slices.Index(m.ids, id)
	if i < 0 {
		m.failf("model: no such ID")
	}
	m.ids = slices.Delete(m.ids, i, i+1)
}

func (m *model) closeID(id *mID) {
	if id == nil || id.state == mappingResting || id.state == mappingFree {
		return
	}
	id.state, id.due, id.timed = mappingResting, m.now.Add(m.cfg.Timeouts.Rest), true
}

func (m *model) useSpare(told uint16, c *mConn, side Side) *mSpare {
	k := arrivesAt(&c.path, side, told)
	s := m.spareOf(k)
	if s == nil {
		if !m.unused(k) {
			m.failf("spare ID %d is in use", told)
		}
		s = &mSpare{at: k}
		m.spares = append(m.spares, s)
	}
	if s.at != k {
		m.failf("spare ID %d, but the domain's is %d", told, s.at.id)
	}
	s.uses++
	s.resting = false
	return s
}

func (m *model) forgive(s *mSpare) {
	if s.uses--; s.uses == 0 {
		s.resting, s.due = true, m.now.Add(m.cfg.Timeouts.Rest)
	}
}

func (m *model) countRefusal(err error) {
	c := &m.counters
	switch {
	case errors.Is(err, ErrLimit), errors.Is(err, errClosed):
		c.RefusedLimit++
	case errors.Is(err, ErrExhausted), errors.Is(err, ErrTaken):
		c.RefusedExhausted++
	case errors.Is(err, ErrAmbiguous):
		c.RefusedAmbiguous++
	default:
		c.RefusedKernel++
	}
}

func (m *model) end(call *mCall, reason string) {
	if call.state == Ended {
		return
	}
	if call.reason == "" {
		call.reason = reason
	}
	call.state = Ended
	m.everEnded++
	if call.inside {
		m.counters.CallsEnded++
	}
	if call.spare != nil {
		m.forgive(call.spare)
		call.spare, call.why = nil, ""
		m.forget(call)
		return
	}
	call.why, call.due = "grace", m.now.Add(m.cfg.Timeouts.Grace)
}

// forget drops an ended call that has no ID any more.
func (m *model) forget(call *mCall) {
	for _, id := range call.ends {
		if id != nil && id.state != mappingFree {
			return
		}
	}
	if i := slices.Index(m.calls, call); i >= 0 && call.state == Ended && call.spare == nil {
		m.calls = slices.Delete(m.calls, i, i+1)
	}
}

func (m *model) expire() {
	for again := true; again; {
		again = false
		for _, call := range slices.Clone(m.calls) {
			if call.why == "" || call.due.After(m.now) {
				continue
			}
			again = true
			why := call.why
			call.why = ""
			switch why {
			case "grace":
				m.closeID(call.ends[0])
				m.closeID(call.ends[1])
				m.forget(call)
			case "half-open":
				if call.inside {
					m.counters.HalfOpenExpired++
				}
				m.end(call, "no ")
			case "clearing":
				m.end(call, "")
			}
		}
		for _, id := range slices.Clone(m.ids) {
			if !id.timed || id.due.After(m.now) {
				continue
			}
			again = true
			if id.state == mappingOpen {
				id.renewed = m.now
				m.renewal(id)
				continue
			}
			id.state = mappingFree
			m.drop(id)
			if id.call != nil {
				m.forget(id.call)
			}
		}
		m.spares = slices.DeleteFunc(m.spares, func(s *mSpare) bool { return s.resting && !s.due.After(m.now) })
	}
}

func (m *model) next() (at time.Time, ok bool) {
	see := func(x time.Time) {
		if !ok || x.Before(at) {
			at, ok = x, true
		}
	}
	for _, call := range m.calls {
		if call.why != "" {
			see(call.due)
		}
	}
	for _, id := range m.ids {
		if id.timed {
			see(id.due)
		}
	}
	for _, s := range m.spares {
		if s.resting {
			see(s.due)
		}
	}
	return
}

// Steps of a history.

func (m *model) connect() {
	p := testPaths[m.rng.IntN(len(testPaths))]
	l := m.cfg.Limits
	open := 0
	for _, c := range m.conns {
		if !c.closed {
			open++
		}
	}
	ofClient, _, _ := m.clientCalls(p.Hosts[Client].Real)
	c, err := m.table.Connect(p)
	m.note("connect %v: %v", p, err)
	want := ""
	switch {
	case l.Connections > 0 && open >= l.Connections:
		want = "in total"
	case l.ConnectionsPerClient > 0 && ofClient >= l.ConnectionsPerClient:
		want = "of client"
	}
	if want == "" != (err == nil) || err != nil && (!errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), want)) {
		m.failf("Connect: %v, want %q", err, want)
	}
	if err == nil {
		m.conns = append(m.conns, &mConn{c: c, path: p})
	}
}

func (m *model) conn() *mConn {
	if len(m.conns) == 0 {
		return nil
	}
	return m.conns[m.rng.IntN(len(m.conns))]
}

func (m *model) real() uint16 {
	switch m.rng.IntN(6) {
	case 0:
		return 0
	case 1:
		return 65535
	case 2:
		return uint16(m.rng.IntN(65536))
	default: // equal ones, near the range
		return m.cfg.First + uint16(m.rng.IntN(6)) - 2
	}
}

func (m *model) reserve(c *mConn, side Side, high byte) *mHeld {
	k := arrivesAt(&c.path, side, uint16(high)<<8)
	own, can, inBlock := m.room(k) && m.free(k), m.available(k, noBlock), m.available(k, int(high))
	x := c.c.Reserve(side, high)
	m.note("reserve %d.. of %v: %d spare %v", high, side, x.Told, x.spare)
	h := &mHeld{m: x, conn: c, side: side, high: high}
	if can == x.spare {
		m.failf("Reserve: spare %v, but there is an ID: %v", x.spare, can)
	}
	if x.spare {
		h.spare = m.useSpare(x.Told, c, side)
		return h
	}
	at := k
	at.id = x.Told
	if !m.free(at) || own && x.Told != k.id || inBlock && byte(x.Told>>8) != high {
		m.failf("Reserve: told %d", x.Told)
	}
	h.id = &mID{m: x, at: at, side: side, conn: c, state: mappingReserved}
	m.ids = append(m.ids, h.id)
	return h
}

// promise takes an ID for an answer of which the result is not known.
func (m *model) promise(c *mConn, side Side) {
	h, held, real := m.take(c, side)
	k := arrivesAt(&c.path, side, real)
	own := m.room(k) && m.free(k) && (h == nil || h.spare == nil && !h.promised && h.id.at.id>>8 == real>>8)
	can, inBlock := m.available(k, noBlock), m.available(k, int(real>>8))
	if h != nil && h.promised {
		m.held = append(m.held, h)
		return
	}
	x := c.c.Promise(side, real, held)
	m.note("promise %d of %v, held %v: %d spare %v", real, side, held != nil, x.Told, x.spare)
	at := k
	at.id = x.Told
	switch {
	case h == nil:
		h = &mHeld{m: x, conn: c, side: side}
		if can == x.spare {
			m.failf("Promise: spare %v, but there is an ID: %v", x.spare, can)
		}
		if x.spare {
			h.spare = m.useSpare(x.Told, c, side)
			break
		}
		if !m.free(at) || own && x.Told != real || inBlock && x.Told>>8 != real>>8 {
			m.failf("Promise: told %d", x.Told)
		}
		h.id = &mID{m: x, at: at, side: side, conn: c, state: mappingReserved}
		m.ids = append(m.ids, h.id)
	case x != held:
		m.failf("Promise loses what is held")
	case own:
		if x.Told != real {
			m.failf("Promise: told %d for %d, which was free", x.Told, real)
		}
		h.id.at = at
	case h.id != nil && x.Told != h.id.at.id:
		m.failf("Promise: told %d, though %d is held", x.Told, h.id.at.id)
	}
	h.promised, h.real = true, real
	m.held = append(m.held, h)
}

// take takes a reservation for a side of the connection, and the real ID that
// it turns out to be for.
func (m *model) take(c *mConn, side Side) (*mHeld, *Mapping, uint16) {
	for i, h := range m.held {
		if h.conn == c && h.side == side && m.rng.IntN(2) == 0 {
			m.held = slices.Delete(m.held, i, i+1)
			if h.promised {
				return h, h.m, h.real
			}
			return h, h.m, uint16(h.high)<<8 | uint16(m.rng.IntN(3))
		}
	}
	return nil, nil, m.real()
}

func (m *model) request(c *mConn, side Side, dir Direction) {
	h, held, real := m.take(c, side)
	limit := m.limit(c)
	_, _, asking := m.connCalls(c)
	call := c.c.Request(m.now, side, dir, real, held)
	m.note("request %d by %v on %p, held %v: call %d told %d %s; %v", real, side, c, held != nil, call.ID, call.Ends[side].Told, call.Reason, m.attempts)

	var id *mID
	var err error
	switch {
	case limit != "" || c.closed:
		err = ErrLimit
		if len(m.attempts) > 0 {
			m.failf("opened in spite of %q", limit)
		}
	default:
		id, err = m.announce(c, side, real, h)
	}
	mc := &mCall{call: call, conn: c, why: "half-open", due: m.now.Add(m.cfg.Timeouts.HalfOpen)}
	if err == nil {
		if call.Refused || call.State != Requested {
			m.failf("refused: %s", call.Reason)
		}
		mc.inside, mc.ends[side], id.call = true, id, mc
		m.calls = append(m.calls, mc)
		m.counters.CallsRequested++
		m.sameMapping(call, side, id)
		return
	}
	m.countRefusal(err)
	want := err.Error()
	if limit != "" {
		want = limit
	}
	if !call.Refused || !strings.HasPrefix(call.Reason, "refused by this router: ") || !c.closed && !strings.Contains(call.Reason, want) {
		m.failf("refused %v with %q, want %v", call.Refused, call.Reason, want)
	}
	mc.refused, mc.reason = true, call.Reason
	x := call.Ends[side]
	switch {
	case h == nil:
		mc.spare = m.useSpare(x.Told, c, side)
	case h.spare != nil:
		mc.spare = h.spare
		fallthrough
	default:
		if x != h.m {
			m.failf("a refused call lost what was held for it")
		}
	}
	if c.closed || asking >= maxRefused || mc.spare == nil && m.pastLimit(c) != "" {
		if call.Live() {
			m.failf("a refused call too many is remembered")
		}
		if mc.spare != nil {
			m.forgive(mc.spare)
		} else {
			m.drop(h.id)
		}
		return
	}
	if h != nil && h.id != nil {
		mc.ends[side], h.id.call, h.id.real = h.id, mc, real
		h.id.leave = leavesAt(&c.path, side, real)
	}
	m.calls = append(m.calls, mc)
}

func (m *model) sameMapping(call *Call, side Side, id *mID) {
	if x := call.Ends[side]; x != id.m || x.Told != id.at.id || x.Real != id.real || !x.Open() {
		m.failf("call %d has %+v, want %+v", call.ID, x, id)
	}
}

func (m *model) trial(c *mConn, side Side) {
	h, held, real := m.take(c, side)
	x, err := c.c.Announce(m.now, side, real, held)
	m.note("announce %d by %v, held %v: %v; %v", real, side, held != nil, err, m.attempts)
	id, want := m.announce(c, side, real, h)
	if !errors.Is(err, want) {
		m.failf("Announce: %v, want %v", err, want)
	}
	if err != nil {
		if x != held {
			m.failf("Announce returns %v with an error, want %v", x, held)
		}
		if h != nil {
			m.held = append(m.held, h)
		}
		return
	}
	if id.m != x {
		m.failf("Announce returns another mapping")
	}
	if held != nil && m.rng.IntN(4) == 0 {
		c.c.Discard(m.now, held) // used up: no harm
	}
	m.trials = append(m.trials, &mHeld{m: x, conn: c, side: side, id: id})
}

func (m *model) discard(h *mHeld) {
	m.note("discard %d", h.m.Told)
	h.conn.c.Discard(m.now, h.m)
	switch {
	case h.spare != nil:
		m.forgive(h.spare)
	case h.id.state == mappingOpen:
		m.closeID(h.id)
	case h.id.state == mappingReserved:
		m.drop(h.id)
	}
	if m.rng.IntN(4) == 0 {
		h.conn.c.Discard(m.now, h.m) // again: no harm
	}
}

func (m *model) answer() {
	if len(m.trials) == 0 {
		return
	}
	i := m.rng.IntN(len(m.trials))
	h := m.trials[i]
	list, _, _ := m.connCalls(h.conn)
	if len(list) == 0 {
		return
	}
	call := list[m.rng.IntN(len(list))]
	m.trials = slices.Delete(m.trials, i, i+1)
	m.note("answer call %d with %d", call.call.ID, h.m.Told)
	has := call.call.Ends[h.side] != nil
	h.conn.c.Answer(m.now, call.call, h.m)
	if call.state == Ended || call.refused || has {
		m.closeID(h.id)
		return
	}
	call.ends[h.side], h.id.call = h.id, call
	if call.call.Direction == Incoming {
		if call.state == Requested {
			call.state = Connecting
		}
		return
	}
	m.up(call)
}

func (m *model) up(call *mCall) {
	if call.inside && (call.state == Requested || call.state == Connecting) {
		call.state, call.why = Established, ""
		m.counters.CallsEstablished++
	}
}

func (m *model) someCall() *mCall {
	if len(m.calls) == 0 {
		return nil
	}
	return m.calls[m.rng.IntN(len(m.calls))]
}

func (m *model) closeConn(c *mConn) {
	m.note("close %p", c)
	c.c.Close(m.now, "gone")
	list, _, _ := m.connCalls(c)
	for _, call := range list {
		m.end(call, "gone")
	}
	c.closed = true
}

func (m *model) adopt(c *mConn, side Side) {
	real := m.real()
	k := arrivesAt(&c.path, side, real)
	want := !c.closed && m.limit(c) == "" && m.room(k) && m.unused(k)
	call := c.c.Adopt(m.now, side, Outgoing, real)
	m.note("adopt %d by %v: %v; %v", real, side, call != nil, m.attempts)
	if want {
		want = !m.conflict(c, side, real)
	}
	if !want {
		if call != nil || len(m.attempts) > 0 {
			m.failf("adopted")
		}
		return
	}
	if len(m.attempts) != 1 || m.attempts[0].told != real {
		m.failf("Adopt opened %v", m.attempts)
	}
	if (m.attempts[0].err == nil) != (call != nil) {
		m.failf("Adopt returns %v", call)
	}
	if call == nil {
		return
	}
	id := m.opened(c, side, real, m.attempts[0], k)
	mc := &mCall{call: call, conn: c, inside: true, why: "half-open", due: m.now.Add(m.cfg.Timeouts.HalfOpen)}
	mc.ends[side], id.call = id, mc
	m.calls = append(m.calls, mc)
	m.counters.CallsRequested++
	m.sameMapping(call, side, id)
}

func (m *model) step() {
	m.attempts = nil
	m.now = m.now.Add(time.Duration(m.rng.IntN(300)) * time.Millisecond)
	c, side := m.conn(), Side(m.rng.IntN(2))
	call := m.someCall()
	switch n := m.rng.IntN(100); {
	case n < 8 || c == nil:
		m.connect()
	case n < 34:
		m.request(c, side, Direction(m.rng.IntN(2)))
	case n < 38:
		m.promise(c, side)
	case n < 43:
		m.held = append(m.held, m.reserve(c, side, byte(m.real()>>8)))
	case n < 52:
		m.trial(c, side)
	case n < 62:
		m.answer()
	case n < 64 && len(m.held) > 0:
		i := m.rng.IntN(len(m.held))
		h := m.held[i]
		m.held = slices.Delete(m.held, i, i+1)
		m.discard(h)
	case n < 66 && len(m.trials) > 0:
		i := m.rng.IntN(len(m.trials))
		h := m.trials[i]
		m.trials = slices.Delete(m.trials, i, i+1)
		m.discard(h)
	case n < 70:
		m.adopt(c, side)
	case n < 72:
		m.closeConn(c)
	case n < 86:
		m.now = m.now.Add(time.Duration(m.rng.Int64N(int64(8 * time.Second))))
		if m.rng.IntN(3) == 0 {
			if at, ok := m.next(); ok && at.After(m.now) {
				m.now = at // to the point
			}
		}
		m.note("expire")
		m.table.Expire(m.now)
		m.expire()
	case n < 87 && m.rng.IntN(2) == 0:
		m.restart()
	case n < 87:
		m.cfg.First = uint16(1 + m.rng.IntN(600))
		m.cfg.Last = m.cfg.First + uint16(m.rng.IntN(40))
		m.note("range %d-%d", m.cfg.First, m.cfg.Last)
		m.table.Reconfigure(m.cfg)
	case call == nil:
	case n < 90:
		m.note("up %d", call.call.ID)
		call.conn.c.Up(m.now, call.call)
		m.up(call)
	case n < 94:
		m.note("clear %d", call.call.ID)
		call.conn.c.Clear(m.now, call.call, "cleared")
		if call.state != Ended && call.inside && call.state != Clearing {
			call.state, call.why, call.due, call.reason = Clearing, "clearing", m.now.Add(m.cfg.Timeouts.Clearing), "cleared"
		}
	case n < 98:
		m.note("end %d", call.call.ID)
		call.conn.c.End(m.now, call.call, "over")
		m.end(call, "over")
	default:
		m.note("refuse %d", call.call.ID)
		call.conn.c.Refuse(m.now, call.call, errKernel)
		if call.state != Ended && !call.refused {
			m.counters.RefusedKernel++
			call.refused = true
			m.end(call, "refused by this router: "+errKernel.Error())
		}
	}
}

// check compares everything that the table has with what it should have.
func (m *model) check() {
	t := m.table
	if t.Counters != m.counters {
		m.failf("counters %+v, want %+v", t.Counters, m.counters)
	}
	if c := t.Counters; c.CallsRequested+uint64(m.restored) != uint64(t.Len())+c.CallsEnded {
		m.failf("counters do not add up: %+v with %d live", c, t.Len())
	}
	at, ok := t.Next()
	wantAt, wantOK := m.next()
	if ok != wantOK || ok && !at.Equal(wantAt) {
		m.failf("Next is %v %v, want %v %v", at.Sub(epoch), ok, wantAt.Sub(epoch), wantOK)
	}
	if want := min(m.everEnded, m.cfg.Remember); len(t.Ended()) != want {
		m.failf("%d ended calls are remembered, want %d", len(t.Ended()), want)
	}

	// IDs.
	seen, used, open := map[mKey]bool{}, map[domain]int{}, 0
	for _, id := range m.ids {
		switch {
		case seen[id.at]:
			m.failf("ID %v is there twice", id.at)
		case id.at.id == 0:
			m.failf("Call ID 0 is told")
		}
		seen[id.at] = true
		got := t.Find(Tuple{id.at.src, id.at.dst, id.at.id}, id.at.zone)
		if got == nil || id.m != nil && got != id.m || got.state != id.state || got.known != id.known {
			m.failf("ID %v belongs to %+v, want %+v", id.at, got, id)
		}
		if m.inRange(id.at.id) {
			used[arrivalKey(got).domain]++
		}
		if id.m == nil {
			continue
		}
		var call *Call
		if id.call != nil {
			call = id.call.call
		}
		if got.call != call || got.Open() != (id.state == mappingOpen) || m.flows[got] != got.Open() ||
			m.guarded[id.at] == got != got.known || got.Side != id.side {
			m.failf("mapping %+v, want %+v", got, id)
		}
		if id.timed != (got.until.due != nil) || id.timed && !t.agenda.origin.Add(got.until.at).Equal(id.due) {
			m.failf("mapping %+v, want %+v", got, id)
		}
		if id.state == mappingOpen {
			open++
			m.checkTwin(id)
			if !m.renewed[got].Equal(id.renewed) {
				m.failf("renewed at %v, want %v", m.renewed[got], id.renewed)
			}
			x := t.departures[departureKey(got)]
			for x != nil && x != got {
				x = x.next
			}
			if x == nil {
				m.failf("open mapping %+v is not among departures", got)
			}
		}
	}
	for _, x := range t.departures {
		for ; x != nil; x = x.next {
			open--
		}
	}
	if open != 0 || len(t.pool.owner) != len(m.ids) {
		m.failf("%d departures too few; %d IDs with an owner, want %d", open, len(t.pool.owner), len(m.ids))
	}
	if len(m.flows) > len(m.ids) || len(m.guarded) > len(m.ids) {
		m.failf("the data plane has more than the table")
	}
	if !mapsEqual(t.pool.used, used) {
		m.failf("used %v, want %v", t.pool.used, used)
	}
	mappings := 0
	t.Mappings(func(x *Mapping) { mappings++ })
	if mappings != len(m.guarded) {
		m.failf("%d mappings, want %d", mappings, len(m.guarded))
	}
	if len(t.pool.spare) != len(m.spares) {
		m.failf("%d spare IDs, want %d", len(t.pool.spare), len(m.spares))
	}
	for _, s := range m.spares {
		d := domain{s.at.src.As4(), s.at.dst.As4(), s.at.zone}
		if got := t.pool.spare[d]; got == nil || got.id != s.at.id || got.uses != s.uses || got.until.due != nil != s.resting {
			m.failf("spare ID %+v, want %+v", got, s)
		}
		if seen[s.at] {
			m.failf("spare ID %v is mapped", s.at)
		}
	}

	// Calls, connections, clients.
	if t.Len() != m.live() || t.held != len(m.calls) {
		m.failf("%d live calls, %d held, want %d and %d", t.Len(), t.held, m.live(), len(m.calls))
	}
	clients := map[[4]byte]usage{}
	open = 0
	for _, c := range m.conns {
		list, live, asking := m.connCalls(c)
		client := c.path.Hosts[Client].Real
		conns, ofClient, held := m.clientCalls(client)
		if u := (usage{int32(conns), int32(ofClient), int32(held)}); u != (usage{}) {
			clients[client.As4()] = u
		}
		if !c.closed {
			open++
		}
		got := c.c.calls
		if len(got) != len(list) || c.c.Live() != live || c.c.asking != asking {
			m.failf("connection has %d calls, %d live, %d asking; want %d, %d, %d", len(got), c.c.live, c.c.asking, len(list), live, asking)
		}
		for i, call := range list {
			x := got[i]
			if x != call.call || x.State != call.state || x.Refused != call.refused || x.Live() != (call.state != Ended) {
				m.failf("call %+v, want %+v", x, call)
			}
			if !strings.Contains(x.Reason, call.reason) || call.state == Ended && x.Reason == "" {
				m.failf("call %d: reason %q, want %q", x.ID, x.Reason, call.reason)
			}
			for side, id := range call.ends {
				if id != nil && x.Ends[side] != id.m {
					m.failf("call %d: wrong mapping", x.ID)
				}
			}
		}
		m.checkFind(c, list)
	}
	if !mapsEqual(t.perClient, clients) {
		m.failf("clients %v, want %v", t.perClient, clients)
	}
	if len(t.connections) != open {
		m.failf("%d connections, want %d", len(t.connections), open)
	}
	l := m.cfg.Limits
	for client, u := range t.perClient {
		if l.CallsPerClient > 0 && int(u.calls) > l.CallsPerClient || l.ConnectionsPerClient > 0 && int(u.connections) > l.ConnectionsPerClient {
			m.failf("client %v has %+v", client, u)
		}
	}
	if l.Calls > 0 && t.Len() > l.Calls || l.Connections > 0 && open > l.Connections {
		m.failf("%d calls, %d connections", t.Len(), open)
	}
}

// twin returns the lowest number that no open mapping has which leaves so.
func (m *model) twin(leave mKey) uint16 {
	for n := uint16(0); ; n++ {
		if !slices.ContainsFunc(m.ids, func(id *mID) bool {
			return id.state == mappingOpen && id.leave == leave && id.m.Twin == n
		}) {
			return n
		}
	}
}

// checkTwin looks for another mapping that leaves with the same tuple and has
// the same number.
func (m *model) checkTwin(id *mID) {
	for _, other := range m.ids {
		if other == id || other.state != mappingOpen || other.leave != id.leave {
			continue
		}
		if other.conn != id.conn {
			m.failf("%+v and %+v leave alike", other, id)
		}
		if other.m.Twin == id.m.Twin {
			m.failf("%+v and %+v are both twin %d", other.m, id.m, id.m.Twin)
		}
	}
}

// checkFind looks up a random ID in both ways.
func (m *model) checkFind(c *mConn, list []*mCall) {
	if len(list) == 0 {
		return
	}
	side := Side(m.rng.IntN(2))
	x := list[m.rng.IntN(len(list))].call.Ends[side]
	if x == nil {
		return
	}
	for _, peer := range []bool{false, true} {
		var classes [4]*Call // by rank
		for _, mc := range list {
			call := mc.call
			y := call.Ends[side]
			if y == nil || !peer && y.Real != x.Real || peer && y.Told != x.Told {
				continue
			}
			switch {
			case mc.state == Ended:
				classes[3] = call // the last
			case mc.refused:
				classes[2] = first(classes[2], call)
			case mc.state == Clearing:
				classes[1] = first(classes[1], call)
			default:
				classes[0] = first(classes[0], call)
			}
		}
		want := first(classes[:]...)
		got := c.c.Own(side, x.Real)
		if peer {
			got = c.c.Peer(side, x.Told)
		}
		if got != want {
			m.failf("lookup (peer %v) of %+v: %+v, want %+v", peer, x, got, want)
		}
	}
}

func first(calls ...*Call) *Call {
	for _, c := range calls {
		if c != nil {
			return c
		}
	}
	return nil
}

func mapsEqual[K comparable, V comparable](a, b map[K]V) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// finish ends everything and looks for what is left.
func (m *model) finish() {
	for _, h := range slices.Concat(m.held, m.trials) {
		m.discard(h)
	}
	for _, c := range m.conns {
		m.closeConn(c)
	}
	for {
		m.check()
		at, ok := m.table.Next()
		if !ok {
			break
		}
		m.now = at
		m.table.Expire(m.now)
		m.expire()
	}
	t, p := m.table, m.table.pool
	left := []int{len(p.owner), len(p.used), len(p.crowded), len(p.spare), len(t.departures), len(t.connections),
		len(t.perClient), len(t.calls), len(t.agenda.items), t.held, len(m.flows), len(m.guarded), len(m.calls)}
	if !slices.Equal(left, make([]int, len(left))) {
		m.failf("left behind: %v", left)
	}
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func path(client, clientTold, serverTold, server string, zone ...Zone) Path {
	a := netip.MustParseAddr
	p := Path{Hosts: [2]Host{{Real: a(client), Told: a(clientTold)}, {Real: a(server), Told: a(serverTold)}}}
	if len(zone) > 0 {
		p.Zone = zone[0]
	}
	return p
}

var testPaths = []Path{
	// Masquerading: two clients, two servers.
	path("10.0.0.1", "192.0.2.1", "198.51.100.1", "198.51.100.1"),
	path("10.0.0.2", "192.0.2.1", "198.51.100.1", "198.51.100.1"),
	path("10.0.0.1", "192.0.2.1", "198.51.100.2", "198.51.100.2"),
	// Another zone, also of one direction only.
	path("10.0.0.1", "192.0.2.1", "198.51.100.1", "198.51.100.1", Zone{ID: 7}),
	path("10.0.0.1", "192.0.2.1", "198.51.100.1", "198.51.100.1", Zone{7, ZoneFromClient}),
	path("10.0.0.2", "192.0.2.1", "198.51.100.1", "198.51.100.1", Zone{7, ZoneFromServer}),
	// Two servers behind one address, from outside and from inside.
	path("203.0.113.1", "203.0.113.1", "192.0.2.1", "10.0.0.8"),
	path("203.0.113.1", "203.0.113.1", "192.0.2.1", "10.0.0.9"),
	path("10.0.0.1", "192.0.2.1", "192.0.2.1", "10.0.0.9"),
	// To itself: both sides share one domain.
	path("10.0.0.9", "192.0.2.1", "192.0.2.1", "10.0.0.9"),
}

func history(t *testing.T, seed uint64, steps int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	dur := func(n int) time.Duration { return time.Duration(rng.IntN(n)) * time.Second }
	lim := func(n int) int { return max(0, rng.IntN(2*n)-n) }
	cfg := Config{
		First:    uint16(1 + rng.IntN(600)),
		Limits:   Limits{lim(6), lim(5), lim(12), lim(4), lim(9)},
		Timeouts: Timeouts{HalfOpen: dur(20), Clearing: dur(6), Grace: dur(4), Rest: dur(12), Renew: dur(15)},
		Remember: rng.IntN(4),
	}
	cfg.Last = cfg.First + uint16(rng.IntN(24))
	if rng.IntN(8) == 0 {
		cfg.First, cfg.Last = 65520, 65535
	}
	m := &model{
		t: t, rng: rng, cfg: cfg, now: epoch, flows: map[*Mapping]bool{}, renewed: map[*Mapping]time.Time{}, guarded: map[mKey]*Mapping{},
		faults: rng.IntN(3) * 12,
	}
	m.table = NewTable(cfg, m, rng)
	for range steps {
		m.step()
		m.check()
	}
	m.finish()
}

// The table does what the model does, whatever happens in whatever order.
func TestModel(t *testing.T) {
	n := 3000
	if testing.Short() {
		n = 300
	}
	first := rand.Uint64() >> 1
	for i := range n {
		seed := first + uint64(i)
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { history(t, seed, 80) }) {
			return
		}
	}
}
