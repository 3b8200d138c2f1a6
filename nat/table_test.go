package nat

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// plane is a data plane that does as it is told.
type plane struct {
	open  map[*Mapping]bool
	freed map[*Mapping]bool
	err   func(m *Mapping) error // may be nil
}

func (p *plane) Open(m *Mapping) error {
	if p.err != nil {
		if err := p.err(m); err != nil {
			return err
		}
	}
	p.open[m] = true
	return nil
}
func (p *plane) Renew(*Mapping) error { return nil }
func (p *plane) Close(m *Mapping)     { delete(p.open, m) }
func (p *plane) Free(m *Mapping)      { p.freed[m] = true }

// world is a table with a clock.
type world struct {
	*testing.T
	*Table
	plane *plane
	now   time.Time
}

func testConfig() Config {
	return Config{
		First: 1, Last: 65535,
		Timeouts: Timeouts{HalfOpen: 75 * time.Second, Clearing: 15 * time.Second, Grace: 3 * time.Second, Rest: time.Minute},
		Remember: 10,
	}
}

func newWorld(t *testing.T, change func(*Config)) *world {
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	p := &plane{open: map[*Mapping]bool{}, freed: map[*Mapping]bool{}}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return &world{T: t, Table: NewTable(cfg, p, rand.New(rand.NewPCG(seed, 0))), plane: p, now: epoch}
}

func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.Expire(w.now)
}

func (w *world) connect(p Path) *Connection {
	w.Helper()
	c, err := w.Connect(p)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w *world) request(c *Connection, real uint16) *Call {
	return c.Request(w.now, Client, Outgoing, real, nil)
}

// call makes a call that is up.
func (w *world) call(c *Connection, client, server uint16) *Call {
	w.Helper()
	call := w.request(c, client)
	w.accepted(call)
	w.answer(call, server)
	if call.State != Established {
		w.Fatalf("call is %v", call.State)
	}
	return call
}

func (w *world) answer(call *Call, server uint16) {
	w.Helper()
	m, err := call.Connection.Announce(w.now, call.Initiator.Other(), server, nil)
	if err != nil {
		w.Fatal(err)
	}
	call.Connection.Answer(w.now, call, m)
}

func (w *world) accepted(call *Call) {
	w.Helper()
	if call.Refused || !call.Live() {
		w.Fatalf("call is %v: %s", call.State, call.Reason)
	}
}

func (w *world) refused(call *Call, why string) {
	w.Helper()
	if !call.Refused || !strings.Contains(call.Reason, why) {
		w.Fatalf("refused %v with %q, want %q", call.Refused, call.Reason, why)
	}
	if call.Ends[call.Initiator].Open() {
		w.Fatal("GRE of a refused call flows")
	}
}

func told(c *Call) uint16 { return c.Ends[c.Initiator].Told }

var masqueraded = testPaths[0]

// client returns the path of the n-th client behind the same address to the
// same server.
func client(n int) Path {
	p := masqueraded
	p.Hosts[Client].Real = netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return p
}

func TestOwnCallIDIsKeptWhereItIsFree(t *testing.T) {
	w := newWorld(t, nil)
	for _, id := range []uint16{1, 2, 255, 256, 777, 65535} {
		if got := told(w.request(w.connect(client(int(id))), id)); got != id {
			t.Errorf("%d is told as %d", id, got)
		}
	}
}

func TestEqualCallIDsAreToldApart(t *testing.T) {
	w := newWorld(t, nil)
	seen := map[uint16]bool{}
	for n := range 1000 {
		call := w.request(w.connect(client(n)), 5)
		w.accepted(call)
		if id := told(call); id == 0 || seen[id] || n < 255 && id > 255 {
			t.Fatalf("call %d is told as %d", n, id)
		}
		seen[told(call)] = true
		if m := call.Ends[Client]; m.Leaves().CallID != 5 || m.Leaves().Dst != client(n).Hosts[Client].Real {
			t.Fatalf("call %d leaves as %v", n, m.Leaves())
		}
	}
	if !seen[5] {
		t.Error("nobody kept the ID")
	}
}

func TestEqualCallIDsToOtherServersAreKept(t *testing.T) {
	w := newWorld(t, nil)
	for _, p := range []Path{testPaths[0], testPaths[2], testPaths[3], testPaths[6]} {
		if got := told(w.request(w.connect(p), 5)); got != 5 {
			t.Errorf("%v: told %d", p, got)
		}
	}
}

func TestCallIDZeroIsNeverTold(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.First = 0 })
	for n := range 300 {
		c := w.connect(client(n))
		call := w.request(c, 0)
		w.accepted(call)
		w.answer(call, uint16(n)) // the first is 0 on both sides
		for _, m := range call.Ends {
			if m.Told == 0 {
				t.Fatalf("%d is told as 0", m.Real)
			}
		}
	}
	c := w.connect(client(300))
	if c.Adopt(w.now, Client, Outgoing, 0) != nil {
		t.Error("a call with the ID 0 is adopted")
	}
}

func TestARangeFromZeroBeginsAtOne(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.First, c.Last = 0, 3 })
	w.accepted(w.request(w.connect(client(1)), 1))
	w.accepted(w.request(w.connect(client(2)), 1))
	w.refused(w.request(w.connect(client(3)), 1), "no Call ID is free")
	w = newWorld(t, nil)
	cfg := testConfig()
	cfg.First, cfg.Last = 0, 3
	w.Reconfigure(cfg)
	w.accepted(w.request(w.connect(client(1)), 1))
	w.accepted(w.request(w.connect(client(2)), 1))
	w.refused(w.request(w.connect(client(3)), 1), "no Call ID is free")
}

func TestHighestCallID(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.request(w.connect(client(1)), 65535), w.request(w.connect(client(2)), 65535)
	if told(a) != 65535 || told(b)>>8 != 255 || told(b) == 65535 {
		t.Errorf("told %d and %d", told(a), told(b))
	}
	w = newWorld(t, func(c *Config) { c.First, c.Last = 65534, 65535 })
	w.accepted(w.request(w.connect(client(1)), 65535))
	w.refused(w.request(w.connect(client(2)), 65535), ErrExhausted.Error())
}

func TestRangeIsKept(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.First, c.Last = 1000, 1300 })
	for n, real := range []uint16{1000, 1300, 999, 1301, 5, 60000} {
		id := told(w.request(w.connect(client(n)), real))
		if own := real >= 1000 && real <= 1300; id < 1000 || id > 1300 || own != (id == real) {
			t.Errorf("%d is told as %d", real, id)
		}
	}
}

func TestExhaustionRefusesThatCallAlone(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.First, c.Last = 100, 103 })
	var calls []*Call
	for n := range 3 {
		calls = append(calls, w.call(w.connect(client(n)), 100, uint16(500+n)))
	}
	c := w.connect(client(3))
	r := w.request(c, 100)
	w.refused(r, "no Call ID is free")
	for _, call := range calls {
		if call.State != Established || !w.plane.open[call.Ends[Client]] {
			t.Error("another call suffers")
		}
		if told(call) == told(r) {
			t.Error("the refused call is told an ID of another")
		}
	}
	if w.Counters.RefusedExhausted != 1 || w.Len() != 3 {
		t.Errorf("%+v", w.Counters)
	}
	// To another server there is no shortage.
	w.accepted(w.request(w.connect(testPaths[2]), 100))
	// When one has ended and rested, its ID is there again.
	calls[0].Connection.End(w.now, calls[0], "over")
	w.pass(3 * time.Second)
	w.refused(w.request(c, 100), "no Call ID is free")
	w.pass(time.Minute - time.Nanosecond)
	w.refused(w.request(c, 100), "no Call ID is free")
	w.pass(time.Nanosecond)
	if call := w.request(c, 7); call.Refused || told(call) != told(calls[0]) {
		t.Errorf("told %d, want %d: %s", told(call), told(calls[0]), call.Reason)
	}
}

// The refused ID is not given to others while GRE for it may come.
func TestIDOfRefusedCallRests(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.First, c.Last = 100, 102
		c.Limits.CallsPerConnection = 1
	})
	c := w.connect(client(1))
	w.accepted(w.request(c, 100))
	r := w.request(c, 101)
	w.refused(r, "limit")
	c.End(w.now, r, "answered")
	other := w.request(w.connect(client(2)), told(r))
	w.accepted(other)
	if told(other) == told(r) {
		t.Error("the ID of the refused call was given at once")
	}
	other.Connection.End(w.now, other, "over")
	w.pass(time.Minute)
	if next := w.request(other.Connection, told(r)); told(next) != told(r) {
		t.Errorf("told %d, want %d, which has rested", told(next), told(r))
	}
}

func TestCallIDReusedAtOnceAfterClearing(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(masqueraded)
	first := w.call(c, 5, 600)
	c.Clear(w.now, first, "cleared by the client")
	second := w.request(c, 5) // without waiting for Call-Disconnect-Notify
	w.accepted(second)
	if told(second) == 5 || second.Ends[Client].Twin != 0 {
		t.Errorf("told %d, twin %d", told(second), second.Ends[Client].Twin)
	}
	if first.Live() || first.Reason != "cleared by the client" || first.Ends[Client].Open() {
		t.Errorf("first call is %v (%s)", first.State, first.Reason)
	}
	if c.Own(Client, 5) != second || c.Peer(Client, 5) != first {
		t.Error("the two are mixed up")
	}
	w.answer(second, 600) // the server reuses its own as well
	if second.State != Established || c.Own(Server, 600) != second {
		t.Errorf("second call is %v", second.State)
	}
	w.pass(10 * time.Second)
	if !w.plane.open[second.Ends[Client]] || !w.plane.open[second.Ends[Server]] {
		t.Error("the end of the first call took the second's GRE")
	}
}

func TestCallIDReusedAtOnceAfterItsEnd(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(masqueraded)
	first := w.call(c, 5, 600)
	c.End(w.now, first, "over")
	second := w.call(c, 5, 600)
	if told(second) == 5 || second.Ends[Server].Told == 600 {
		t.Error("an ID did not rest")
	}
	w.pass(3 * time.Second)
	if len(w.plane.open) != 2 || !w.plane.open[second.Ends[Client]] {
		t.Errorf("%d flows are open", len(w.plane.open))
	}
}

func TestNewerCallOfTheSameClientReplacesTheOlder(t *testing.T) {
	w := newWorld(t, nil)
	old := w.call(w.connect(masqueraded), 5, 600)
	newer := w.request(w.connect(masqueraded), 5)
	w.accepted(newer)
	if old.Live() || !strings.Contains(old.Reason, "newer call") {
		t.Errorf("old call is %v: %q", old.State, old.Reason)
	}
	if w.plane.open[old.Ends[Client]] || !w.plane.open[newer.Ends[Client]] {
		t.Error("the old flow is open, or the new one is not")
	}
	// The other direction of the old call has its grace.
	if !w.plane.open[old.Ends[Server]] {
		t.Error("no grace")
	}
}

// The server's own ID counts as well, whatever the client calls itself.
func TestNewerCallWithTheSameServerIDReplacesTheOlder(t *testing.T) {
	w := newWorld(t, nil)
	old := w.call(w.connect(masqueraded), 5, 600)
	newer := w.call(w.connect(masqueraded), 6, 600)
	if old.Live() || newer.State != Established {
		t.Errorf("old call is %v, newer %v", old.State, newer.State)
	}
}

func TestSeveralCallsOfOneConnectionWithEqualIDs(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(masqueraded)
	var calls []*Call
	for n := range 5 {
		calls = append(calls, w.call(c, 5, uint16(600+n)))
	}
	seen := map[uint16]bool{}
	for n, call := range calls {
		if call.State != Established || seen[told(call)] || call.Ends[Client].Twin != uint16(n) {
			t.Errorf("call %d is %v, told %d, twin %d", n, call.State, told(call), call.Ends[Client].Twin)
		}
		seen[told(call)] = true
	}
	c.End(w.now, calls[1], "over")
	w.pass(3 * time.Second)
	if call := w.call(c, 5, 700); call.Ends[Client].Twin != 1 {
		t.Errorf("twin %d, want the one that is free", call.Ends[Client].Twin)
	}
	if call := w.call(c, 5, 701); call.Ends[Client].Twin != 5 {
		t.Errorf("twin %d, want the next one", call.Ends[Client].Twin)
	}
	// Another connection's replaces them all.
	w.accepted(w.request(w.connect(masqueraded), 5))
	if w.Len() != 1 {
		t.Errorf("%d calls", w.Len())
	}
}

func TestServerIDOfTwoClientsIsRefusedTheSecondTime(t *testing.T) {
	w := newWorld(t, nil)
	first := w.call(w.connect(client(1)), 5, 600)
	c := w.connect(client(2))
	second := w.request(c, 5)
	w.accepted(second)
	m, err := c.Announce(w.now, Server, 600, nil)
	if m != nil || !errors.Is(err, ErrAmbiguous) {
		t.Fatalf("Announce: %v %v", m, err)
	}
	c.Refuse(w.now, second, err)
	w.refusedEnded(second, "in use by another call between the same addresses")
	if first.State != Established || !w.plane.open[first.Ends[Server]] {
		t.Error("the first call suffers")
	}
	if w.Counters.RefusedAmbiguous != 1 {
		t.Errorf("%+v", w.Counters)
	}
	// The ID is the second's when the first is over, without a rest: nobody
	// else has it on that side.
	first.Connection.End(w.now, first, "over")
	third := w.call(c, 6, 600)
	if third.State != Established || third.Ends[Server].Real != 600 {
		t.Errorf("third call is %v", third.State)
	}
}

func (w *world) refusedEnded(call *Call, why string) {
	w.Helper()
	if call.Live() || !call.Refused || !strings.Contains(call.Reason, "refused by this router: ") || !strings.Contains(call.Reason, why) {
		w.Fatalf("call is %v, refused %v: %s", call.State, call.Refused, call.Reason)
	}
}

func TestHalfOpenCallsExpireWithAReason(t *testing.T) {
	for _, c := range []struct {
		dir    Direction
		side   Side
		answer bool
		want   string
	}{
		{Outgoing, Client, false, "no answer to Outgoing-Call-Request from the server"},
		{Outgoing, Server, false, "no answer to Outgoing-Call-Request from the client"},
		{Incoming, Client, false, "no answer to Incoming-Call-Request from the server"},
		{Incoming, Client, true, "no Incoming-Call-Connected from the client"},
	} {
		w := newWorld(t, nil)
		conn := w.connect(masqueraded)
		call := conn.Request(w.now, c.side, c.dir, 5, nil)
		if c.answer {
			w.answer(call, 6)
		}
		w.pass(75*time.Second - 1)
		if !call.Live() {
			t.Errorf("%s: too early", c.want)
		}
		w.pass(1)
		if call.Live() || call.Reason != c.want || w.Counters.HalfOpenExpired != 1 || call.Over != w.now {
			t.Errorf("%v: %q, want %q", call.State, call.Reason, c.want)
		}
	}
}

func TestEstablishedCallsDoNotExpire(t *testing.T) {
	w := newWorld(t, nil)
	call := w.call(w.connect(masqueraded), 5, 6)
	incoming := w.connect(client(2)).Request(w.now, Client, Incoming, 7, nil)
	w.answer(incoming, 8)
	if incoming.State != Connecting {
		t.Errorf("answered: %v", incoming.State)
	}
	incoming.Connection.Up(w.now, incoming)
	w.pass(30 * 24 * time.Hour)
	if call.State != Established || incoming.State != Established {
		t.Errorf("%v, %v", call.State, incoming.State)
	}
}

func TestClearedCallEndsWithoutConfirmation(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(masqueraded)
	call := w.call(c, 5, 6)
	c.Clear(w.now, call, "cleared by the client")
	c.Clear(w.now.Add(time.Second), call, "cleared again")
	w.pass(15*time.Second - 1)
	if call.State != Clearing || !call.Ends[Client].Open() {
		t.Errorf("%v", call.State)
	}
	w.pass(1)
	if call.State != Ended || call.Reason != "cleared by the client" {
		t.Errorf("%v: %s", call.State, call.Reason)
	}
}

func TestAnswerDoesNotBringBackAClearedCall(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(masqueraded)
	for _, dir := range []Direction{Outgoing, Incoming} {
		call := c.Request(w.now, Client, dir, uint16(5+dir), nil)
		c.Clear(w.now, call, "cleared")
		w.answer(call, uint16(6+dir))
		c.Up(w.now, call)
		if call.State != Clearing {
			t.Errorf("%v call is %v", dir, call.State)
		}
	}
	w.pass(15 * time.Second)
	if w.Len() != 0 {
		t.Error("cleared calls stay")
	}
}

func TestGREFlowsForTheGraceAndIDsRest(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(masqueraded)
	call := w.call(c, 5, 6)
	c.Close(w.now, "control connection closed")
	if call.Live() || call.Reason != "control connection closed" {
		t.Errorf("%v: %s", call.State, call.Reason)
	}
	w.pass(3*time.Second - 1)
	if len(w.plane.open) != 2 {
		t.Error("no grace")
	}
	w.pass(1)
	if len(w.plane.open) != 0 || len(w.plane.freed) != 0 {
		t.Errorf("%d open, %d freed", len(w.plane.open), len(w.plane.freed))
	}
	again := w.request(w.connect(client(2)), 5)
	if told(again) == 5 {
		t.Error("an ID that rests is told")
	}
	w.pass(time.Minute - 1)
	if len(w.plane.freed) != 0 || w.Find(call.Ends[Client].Arrives(), 0) != call.Ends[Client] {
		t.Error("free too early")
	}
	w.pass(1)
	if len(w.plane.freed) != 2 || w.Find(call.Ends[Client].Arrives(), 0) != nil {
		t.Error("not free")
	}
	if got := told(w.request(w.connect(client(3)), 5)); got != 5 {
		t.Errorf("told %d, though 5 has rested", got)
	}
}

func TestLimitsAreNamed(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		want   string
	}{
		{Limits{Calls: 2}, "limit reached: 2 calls in total"},
		{Limits{CallsPerClient: 2}, "limit reached: 2 calls of client 10.0.0.1"},
		{Limits{CallsPerConnection: 2}, "limit reached: 2 calls of one control connection"},
	} {
		w := newWorld(t, func(cfg *Config) { cfg.Limits = c.limits })
		conn := w.connect(masqueraded)
		first := w.call(conn, 5, 105)
		w.accepted(w.request(conn, 6))
		r := w.request(conn, 7)
		w.refused(r, c.want)
		w.refused(w.request(conn, 8), c.want)
		if w.Counters.RefusedLimit != 2 || w.Len() != 2 || conn.Live() != 2 {
			t.Errorf("%d calls, %+v", w.Len(), w.Counters)
		}
		other, err := w.Connect(client(9))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.request(other, 5); got.Refused != (c.limits.Calls > 0) {
			t.Errorf("%s: call of another client: %q", c.want, got.Reason)
		} else if !got.Refused {
			other.End(w.now, got, "")
		}
		// One that ended makes room for another, though the refused ones
		// still wait for their answers.
		conn.End(w.now, first, "over")
		w.accepted(w.request(conn, 9))
	}
	for _, c := range []struct {
		limits Limits
		want   string
	}{
		{Limits{Connections: 1}, "limit reached: 1 control connections in total"},
		{Limits{ConnectionsPerClient: 1}, "limit reached: 1 control connections of client 10.0.0.1"},
	} {
		w := newWorld(t, func(cfg *Config) { cfg.Limits = c.limits })
		conn := w.connect(masqueraded)
		_, err := w.Connect(masqueraded)
		if !errors.Is(err, ErrLimit) || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
		if _, err := w.Connect(client(2)); (err != nil) != (c.limits.Connections > 0) {
			t.Errorf("another client: %v", err)
		}
		conn.Close(w.now, "")
		conn.Close(w.now, "") // again: no harm
		w.connect(masqueraded)
	}
}

// A client that asks for calls and ends them, over as many connections as it
// likes, leaves Call IDs for others.
func TestRestingIDsCountTowardsTheLimit(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.First, c.Last = 1, 1000
		c.Limits = Limits{CallsPerClient: 200, CallsPerConnection: 200, Calls: 10000}
	})
	refused := 0
	for range 100 {
		c := w.connect(client(1))
		for n := range 50 {
			// Half of them cut inside the Call ID, which takes an ID early.
			var held *Mapping
			if n%2 == 0 {
				held = c.Reserve(Client, 1)
			}
			if c.Request(w.now, Client, Outgoing, uint16(256+n), held).Refused {
				refused++
			}
		}
		c.Close(w.now, "")
		w.pass(10 * time.Millisecond)
	}
	if used := len(w.pool.owner); used > 400 || refused != 5000-400 {
		t.Errorf("%d IDs are taken, %d calls refused", used, refused)
	}
	r := w.request(w.connect(client(1)), 5)
	w.refused(r, "limit reached: 400 calls of client 10.0.0.1, ended ones included")
	for n := range 100 {
		w.accepted(w.request(w.connect(client(2)), uint16(n)))
	}
	w.pass(2 * time.Minute)
	w.accepted(w.request(w.connect(client(1)), 5))
}

// The other limits include ended calls too.
func TestEveryLimitIncludesEndedCalls(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		want   string
	}{
		{Limits{Calls: 10}, "74 calls in total, ended ones included"},
		{Limits{CallsPerConnection: 10}, "74 calls of one control connection, ended ones included"},
		{Limits{CallsPerConnection: 100}, "200 calls of one control connection, ended ones included"},
	} {
		w := newWorld(t, func(cfg *Config) { cfg.Limits = c.limits })
		conn := w.connect(masqueraded)
		n := 0
		for ; n < 500; n++ {
			call := w.request(conn, 5)
			if call.Refused {
				w.refused(call, c.want)
				break
			}
			conn.End(w.now, call, "over")
		}
		if want := 10 + 64; n != want && n != 200 {
			t.Errorf("%s after %d calls", c.want, n)
		}
	}
}

// A limit of one call still lets a client redial.
func TestRedialWithALowLimit(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{CallsPerClient: 1, CallsPerConnection: 1} })
	c := w.connect(masqueraded)
	for range 60 {
		call := w.request(c, 5)
		w.accepted(call)
		c.End(w.now, call, "busy")
		w.pass(time.Second)
	}
}

// Refusals are clear ones however many there are: one that had its answer
// makes room for the next.
func TestManyRefusals(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.CallsPerConnection = 1 })
	c := w.connect(masqueraded)
	w.accepted(w.request(c, 5))
	for range 200 {
		r := w.request(c, 6)
		w.refused(r, "limit")
		if got := c.Peer(Client, told(r)); got != r {
			t.Fatal("the refused call cannot be found for its answer")
		}
		c.End(w.now, r, "answered")
	}
	// Those that never get an answer are bounded.
	for range 200 {
		w.refused(w.request(c, 6), "limit")
	}
	if len(c.calls) > 1+maxRefused {
		t.Errorf("%d calls are remembered", len(c.calls))
	}
	w.pass(75 * time.Second)
	w.pass(time.Minute)
	if len(w.pool.spare) != 0 {
		t.Error("the spare ID is not free")
	}
}

func TestOwnAndPeerPreferLiveCalls(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.CallsPerConnection = 6 })
	c := w.connect(masqueraded)
	var calls []*Call
	for n := range 5 {
		calls = append(calls, w.call(c, 5, uint16(600+n)))
	}
	want := func(call *Call) {
		t.Helper()
		if got := c.Own(Client, 5); got != call {
			t.Errorf("found call %d, want %d", got.ID, call.ID)
		}
	}
	want(calls[0]) // the oldest
	c.End(w.now, calls[0], "over")
	want(calls[1]) // live before ended
	c.Clear(w.now, calls[1], "cleared")
	want(calls[2]) // not asked to clear before those that are
	c.End(w.now, calls[2], "over")
	c.End(w.now, calls[4], "over")
	want(calls[3])
	c.End(w.now, calls[3], "over")
	want(calls[1]) // live, if only just
	c.End(w.now, calls[1], "over")
	want(calls[4]) // of ended ones the last
	if c.Peer(Server, 602) != calls[2] || c.Own(Server, 602) != calls[2] {
		t.Error("not found by the other side's ID")
	}
	if c.Own(Client, 600) != nil || c.Peer(Client, 600) != nil {
		t.Error("sides are mixed up")
	}
}

func TestLookupPrefersCallsBeforeRefusedOnes(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.CallsPerConnection = 1 })
	c := w.connect(masqueraded)
	first := w.request(c, 4)
	r := w.request(c, 5)
	w.refused(r, "limit")
	c.End(w.now, first, "over")
	call := w.request(c, 5)
	w.accepted(call)
	if c.Own(Client, 5) != call || c.Peer(Client, told(r)) != r {
		t.Error("the refused call hides the other")
	}
}

func TestReserveThenRequestKeepsTheHighByte(t *testing.T) {
	w := newWorld(t, nil)
	seen := map[uint16]bool{}
	for n := range 250 {
		c := w.connect(client(n))
		real := uint16(0x0700 + n%5)
		held := c.Reserve(Client, 7)
		high := byte(held.Told >> 8)
		call := c.Request(w.now, Client, Outgoing, real, held)
		w.accepted(call)
		if byte(told(call)>>8) != high || high != 7 || seen[told(call)] {
			t.Fatalf("high byte %d was said, then %#04x", high, told(call))
		}
		if n < 5 && told(call) != real {
			t.Errorf("%#04x is told as %#04x, though it is free", real, told(call))
		}
		seen[told(call)] = true
	}
	if len(w.pool.owner) != 250 {
		t.Errorf("%d IDs are taken", len(w.pool.owner))
	}
}

func TestFullBlockFallsBackToAnother(t *testing.T) {
	w := newWorld(t, nil)
	for n := range 256 {
		if call := w.request(w.connect(client(n)), uint16(0x0700+n)); told(call)>>8 != 7 {
			t.Fatal("not in its block")
		}
	}
	c := w.connect(client(300))
	held := c.Reserve(Client, 7)
	if held.Told>>8 == 7 {
		t.Fatalf("%#04x is taken", held.Told)
	}
	call := c.Request(w.now, Client, Outgoing, 0x0707, held)
	w.accepted(call)
	if told(call)>>8 != held.Told>>8 {
		t.Error("the high byte was not kept")
	}
	if other := w.request(w.connect(client(301)), 0x0707); other.Refused || told(other)>>8 == 7 {
		t.Errorf("told %#04x", told(other))
	}
}

func TestPromiseKeepsTheOwnIDWhereItCan(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(masqueraded)
	promise := func(real uint16, held *Mapping) *Mapping {
		t.Helper()
		high := held.Told >> 8
		p := c.Promise(Server, real, held)
		if p != held || p.Told>>8 != high {
			t.Fatalf("told %#04x after the high byte %d", p.Told, high)
		}
		return p
	}
	held := promise(0x0705, c.Reserve(Server, 7))
	if held.Told != 0x0705 || w.Len() != 0 || len(w.plane.open) != 0 {
		t.Errorf("0x0705 is told as %#04x", held.Told)
	}
	m, err := c.Announce(w.now, Server, 0x0705, held)
	if err != nil || m.Told != 0x0705 || !m.Open() {
		t.Errorf("%+v, %v", m, err)
	}
	if len(w.pool.owner) != 1 {
		t.Errorf("%d IDs are taken", len(w.pool.owner))
	}
	if held := promise(0x0705, c.Reserve(Server, 7)); held.Told == 0x0705 {
		t.Error("an ID is told twice")
	}
	// With a block that is full the high byte is another one, and stays so.
	var calls []*Mapping
	for n := range 256 {
		calls = append(calls, c.Promise(Server, uint16(0x0900+n), nil))
	}
	held = c.Reserve(Server, 9)
	c.Discard(w.now, calls[5])
	promise(0x0905, held)
}

func TestPromiseLeavesTheLastIDAlone(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.First, c.Last = 100, 102 })
	c := w.connect(masqueraded)
	other := c.Promise(Server, 101, nil)
	held := c.Reserve(Server, 0)
	last := uint16(100 + 101 + 102 - 101 - int(held.Told))
	if p := c.Promise(Server, last, held); p.Told == last {
		t.Error("the last ID is given away")
	}
	// One for which there was no ID is told the spare one for good.
	spare := c.Reserve(Server, 0)
	if spare.Told != last {
		t.Errorf("spare ID %d, want %d", spare.Told, last)
	}
	c.Discard(w.now, other)
	if p := c.Promise(Server, 101, spare); p.Told != last {
		t.Errorf("told %d after %d", p.Told, last)
	}
	if _, err := c.Announce(w.now, Server, 101, spare); !errors.Is(err, ErrExhausted) {
		t.Errorf("%v", err)
	}
	c.Discard(w.now, spare)
	c.Discard(w.now, held)
	w.pass(time.Minute)
	if len(w.pool.owner)+len(w.pool.spare) != 0 {
		t.Error("something is left")
	}
}

// The last ID of a block is the one that is held.
func TestReservedIDIsUsedWhenItsBlockIsFull(t *testing.T) {
	w := newWorld(t, nil)
	for n := range 255 {
		w.request(w.connect(client(n)), uint16(0x0700+n))
	}
	c := w.connect(client(300))
	held := c.Reserve(Client, 7)
	call := c.Request(w.now, Client, Outgoing, 0x0703, held)
	w.accepted(call)
	if told(call) != 0x07ff {
		t.Errorf("told %#04x", told(call))
	}
}

func TestReservationOfAForeignIDIsCountedOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.plane.err = func(m *Mapping) error { return ErrTaken }
	c := w.connect(masqueraded)
	held := c.Reserve(Client, 7)
	r := c.Request(w.now, Client, Outgoing, 0x0700, held)
	w.refused(r, ErrTaken.Error())
	if told(r) != held.Told {
		t.Errorf("told %d, but the high byte of %d was said", told(r), held.Told)
	}
	c.Discard(w.now, held) // the call has it now
	if w.Find(held.Arrives(), 0) != held {
		t.Error("what the refused call was told is free")
	}
	c.Close(w.now, "")
	w.pass(3 * time.Second)
	w.pass(time.Minute)
	if len(w.pool.owner) != 0 || len(w.pool.used) != 0 {
		t.Errorf("%d IDs taken, counted %v", len(w.pool.owner), w.pool.used)
	}
}

func TestForeignIDsAreLeftAlone(t *testing.T) {
	w := newWorld(t, nil)
	w.plane.err = func(m *Mapping) error {
		if m.Told == 5 {
			return ErrTaken
		}
		return nil
	}
	call := w.request(w.connect(client(1)), 5)
	w.accepted(call)
	if told(call) == 5 {
		t.Error("told a foreign ID")
	}
	w.Mappings(func(m *Mapping) {
		if m != call.Ends[Client] {
			t.Errorf("%+v is not ours", m)
		}
	})
}

func TestDataPlaneErrorsRefuse(t *testing.T) {
	for _, c := range []struct {
		err  error
		want func(Counters) uint64
	}{
		{ErrTaken, func(c Counters) uint64 { return c.RefusedExhausted }},
		{ErrAmbiguous, func(c Counters) uint64 { return c.RefusedAmbiguous }},
		{errors.New("out of memory"), func(c Counters) uint64 { return c.RefusedKernel }},
	} {
		w := newWorld(t, nil)
		w.plane.err = func(*Mapping) error { return fmt.Errorf("wrapped: %w", c.err) }
		conn := w.connect(masqueraded)
		w.refused(w.request(conn, 5), c.err.Error())
		if c.want(w.Counters) != 1 || w.Counters.CallsRequested != 0 || w.Len() != 0 {
			t.Errorf("%v: %+v", c.err, w.Counters)
		}
		if conn.Adopt(w.now, Client, Outgoing, 5) != nil {
			t.Error("adopted")
		}
	}
}

func TestNoCallsOnAClosedConnection(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(masqueraded)
	c.Close(w.now, "reset")
	w.refused(w.request(c, 5), "closed")
	if _, err := c.Announce(w.now, Server, 5, nil); err == nil {
		t.Error("announced")
	}
	if c.Adopt(w.now, Client, Outgoing, 5) != nil {
		t.Error("adopted")
	}
	w.pass(time.Minute)
	if len(w.perClient) != 0 || len(w.pool.owner) != 0 || len(w.pool.spare) != 0 {
		t.Error("something is left")
	}
}

func TestAdoptKeepsWhatWasSaid(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.First, c.Last = 1000, 2000 })
	c := w.connect(client(1))
	// An ID outside the range was given before us, or with another range.
	call := c.Adopt(w.now, Client, Outgoing, 5)
	if call == nil || told(call) != 5 || w.Len() != 1 {
		t.Fatalf("adopted %v", call)
	}
	if w.connect(client(2)).Adopt(w.now, Client, Outgoing, 5) != nil {
		t.Error("an ID that is told is adopted for another")
	}
	w.answer(call, 6)
	if call.State != Established {
		t.Errorf("%v", call.State)
	}
}

func TestReconfigureDoesNotTouchCallsThatAreUp(t *testing.T) {
	w := newWorld(t, nil)
	var calls []*Call
	for n := range 40 {
		calls = append(calls, w.call(w.connect(client(n)), uint16(100+n), uint16(1+n)))
	}
	cfg := testConfig()
	cfg.First, cfg.Last = 5000, 5009 // smaller than what is in use outside it
	cfg.Limits = Limits{Calls: 45}
	w.Reconfigure(cfg)
	w.pass(time.Hour)
	for n, call := range calls {
		if call.State != Established || told(call) != uint16(100+n) || !w.plane.open[call.Ends[Client]] || !w.plane.open[call.Ends[Server]] {
			t.Fatalf("call %d is %v", n, call.State)
		}
	}
	for n := range 5 {
		call := w.request(w.connect(client(100+n)), 100)
		w.accepted(call)
		if id := told(call); id < 5000 || id > 5009 {
			t.Errorf("told %d", id)
		}
	}
	w.refused(w.request(w.connect(client(200)), 100), "45 calls in total")
	for _, call := range calls {
		call.Connection.End(w.now, call, "over")
	}
	w.pass(3 * time.Second)
	w.pass(time.Minute)
	if n := len(w.pool.owner); n != 5 {
		t.Errorf("%d IDs are taken", n)
	}
}

func TestEndedCallsAreRemembered(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Remember = 3 })
	c := w.connect(masqueraded)
	for n := range 5 {
		c.End(w.now, w.call(c, uint16(5+n), uint16(5+n)), fmt.Sprint("reason ", n))
	}
	var got []string
	for _, call := range w.Ended() {
		got = append(got, call.Reason)
	}
	if strings.Join(got, ",") != "reason 2,reason 3,reason 4" {
		t.Errorf("%v", got)
	}
}

func TestEventsTellTheLifeOfACall(t *testing.T) {
	var got []string
	w := newWorld(t, func(c *Config) {
		c.Limits.Calls = 1
		c.Notify = func(e Event) { got = append(got, fmt.Sprintf("%d %v", e.Call.ID, e.Kind)) }
	})
	c := w.connect(masqueraded)
	call := w.call(c, 5, 6)
	r := w.request(c, 7)
	w.Reconfigure(testConfig()) // keeps the listener
	c.End(w.now, r, "answered")
	c.End(w.now, call, "over")
	c.End(w.now, call, "over")
	want := "1 call requested,1 call established,2 call ended,1 call ended"
	if strings.Join(got, ",") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestSettleLeavesCallsThatAreUp(t *testing.T) {
	w := newWorld(t, nil)
	up, asked, over := w.call(w.connect(client(1)), 5, 6), w.request(w.connect(client(2)), 7), w.call(w.connect(client(3)), 8, 9)
	over.Connection.End(w.now, over, "over")
	trial, err := w.connect(client(4)).Announce(w.now, Server, 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Settle(w.now)
	if len(w.plane.open) != 2 || !up.Ends[Client].Open() || !up.Ends[Server].Open() {
		t.Errorf("%d flows are open", len(w.plane.open))
	}
	if asked.Ends[Client].Open() || over.Ends[Server].Open() || trial.Open() {
		t.Error("a flow that nobody needs is open")
	}
	w.pass(time.Minute)
	if !asked.Live() || asked.Connection.Live() != 1 || len(asked.Connection.calls) != 1 {
		t.Error("a live call is forgotten")
	}
	w.pass(time.Minute)
	w.pass(time.Minute)
	if len(w.pool.owner) != 2 || w.held != 1 {
		t.Errorf("%d IDs taken, %d calls held", len(w.pool.owner), w.held)
	}
}

func TestRenewWhileOpen(t *testing.T) {
	var renewed []*Mapping
	w := newWorld(t, func(c *Config) { c.Timeouts.Renew = 4 * time.Hour })
	w.Table.plane = &renewer{plane: w.plane, renewed: &renewed}
	c := w.connect(masqueraded)
	call := w.call(c, 5, 6)
	for range 10 {
		w.pass(time.Hour)
	}
	if len(renewed) != 4 {
		t.Errorf("renewed %d times in 10 hours, want twice for each side", len(renewed))
	}
	c.End(w.now, call, "over")
	for range 10 {
		w.pass(time.Hour)
	}
	if len(renewed) != 4 {
		t.Error("renewed after its end")
	}
}

type renewer struct {
	*plane
	renewed *[]*Mapping
	err     error
}

func (r *renewer) Renew(m *Mapping) error {
	*r.renewed = append(*r.renewed, m)
	return r.err
}

// What cannot be renewed is tried again soon, until it can or the call is over.
func TestRenewAgain(t *testing.T) {
	var renewed []*Mapping
	w := newWorld(t, func(c *Config) { c.Timeouts.Renew = 4 * time.Hour })
	r := &renewer{plane: w.plane, renewed: &renewed, err: errors.New("table full")}
	w.Table.plane = r
	c := w.connect(masqueraded)
	call := w.call(c, 5, 600)
	w.pass(4 * time.Hour)
	w.pass(renewAgain)
	w.pass(renewAgain)
	if len(renewed) != 6 {
		t.Fatalf("tried %d times, want three times for each side", len(renewed))
	}
	r.err = nil
	w.pass(renewAgain)
	w.pass(renewAgain)
	if len(renewed) != 8 {
		t.Errorf("tried %d times, want once more for each side", len(renewed))
	}
	w.RenewSoon(w.now, call.Ends[Client])
	w.pass(renewAgain)
	if len(renewed) != 9 {
		t.Errorf("tried %d times, want once more", len(renewed))
	}
	r.err = errors.New("table full")
	w.pass(4 * time.Hour)
	c.End(w.now, call, "over")
	w.pass(testConfig().Timeouts.Grace)
	tried := len(renewed)
	w.RenewSoon(w.now, call.Ends[Client])
	w.pass(time.Hour)
	if len(renewed) != tried {
		t.Error("renewed after the end")
	}
}

func TestBlocksAreThoseOfTheSide(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(masqueraded)
	w.request(w.connect(client(2)), 0x0700)
	w.call(c, 0x0700, 0x0900)
	ended := w.call(c, 0x0801, 0x0901)
	c.End(w.now, ended, "over")
	w.request(w.connect(client(3)), 0x0a00) // of no concern
	var got []string
	for _, side := range []Side{Client, Server} {
		c.Blocks(side, func(real, told byte) { got = append(got, fmt.Sprintf("%v %d %d", side, real, told)) })
	}
	want := "client 7 7,client 8 8,server 9 9,server 9 9"
	if strings.Join(got, ",") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// The spare ID is nobody's also where a new range is taken up already.
func TestSpareIDOfANarrowedRange(t *testing.T) {
	w := newWorld(t, nil)
	for n := range 20 {
		w.accepted(w.request(w.connect(client(n)), uint16(100+n)))
	}
	cfg := testConfig()
	cfg.First, cfg.Last = 105, 110
	w.Reconfigure(cfg)
	r := w.request(w.connect(client(50)), 105)
	w.refused(r, "no Call ID is free")
	if m := w.Find(r.Ends[Client].Arrives(), 0); m != nil || told(r) == 0 {
		t.Errorf("told %d, which is in use", told(r))
	}
}
