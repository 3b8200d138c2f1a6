package conntrack

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// table is a namespace with a NAT chain and no packets, and a Client in it.
func table(t testing.TB) (*namespace, *Client) {
	t.Helper()
	n := newNamespace(t)
	n.rules(natChain)
	return n, n.client()
}

// foreign makes an ordinary entry, as a packet or another program would.
func foreign(t testing.TB, c *Client, protocol uint8, original, reply Tuple, z Zone, status Status) Flow {
	t.Helper()
	data := encode(func(m *encoder) {
		putTuple(m, ctaTupleOrig, protocol, original, z)
		putTuple(m, ctaTupleReply, protocol, reply, z)
		putZone(m, z)
		m.uint32(ctaTimeout, 600)
		m.uint32(ctaStatus, uint32(status|StatusConfirmed))
		if protocol == protocolTCP {
			m.nested(ctaProtoinfo, func() {
				m.nested(ctaProtoinfoTCP, func() {
					m.uint8(ctaProtoinfoTCPState, uint8(TCPEstablished))
				})
			})
		}
	})
	answers, err := c.transact(request(msgNew, netlink.Acknowledge|netlink.Create|netlink.Excl, data))
	if err != nil || answers[0].err != nil {
		t.Fatalf("make a foreign entry: %v, %v", err, answers)
	}
	f, err := c.get(ctaTupleOrig, protocol, original, z)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func tuple4(src, dst string) Tuple { return Tuple{addrPort(src), addrPort(dst)} }

func TestCreateReportsWhoIsInTheWay(t *testing.T) {
	_, c := table(t)
	ours, toServer := masquerade(5, 777, 9, 888)
	create(t, c, ours, toServer)

	sameOriginal, _ := masquerade(6, 777, 9, 888)
	sameReply, _ := masquerade(5, 778, 9, 888)
	for _, k := range []struct {
		name string
		e    Entry
		side Side
	}{{"original", sameOriginal, Original}, {"reply", sameReply, Reply}} {
		err := c.Create(k.e)
		var exists *ExistsError
		if !errors.As(err, &exists) {
			t.Fatalf("Create with a taken %s tuple: %v, want an ExistsError", k.name, err)
		}
		stored, ok := exists.Flow.Stored()
		if exists.Side != k.side || !exists.Ours() || !ok || !stored.Equal(ours) || !errors.Is(err, unix.EEXIST) {
			t.Errorf("Create with a taken %s tuple: side %v, ours %v, flow %v", k.name, exists.Side, exists.Ours(), exists.Flow)
		}
	}

	// The same with ordinary flows, as GRE makes them that comes before we are ready.
	_, blocked := masquerade(5, 777, 19, 1888)
	original := foreign(t, c, protocolGRE, tuple4("192.168.77.11:0", "203.0.113.2:1888"), tuple4("203.0.113.2:1888", "203.0.113.1:0"), Zone{}, 0)
	reply := foreign(t, c, protocolGRE, tuple4("192.168.77.12:0", "203.0.113.2:19"), tuple4("203.0.113.2:19", "203.0.113.1:0"), Zone{}, StatusSeenReply)
	for _, want := range []struct {
		side Side
		flow Flow
	}{{Original, original}, {Reply, reply}} {
		var exists *ExistsError
		if err := c.Create(blocked); !errors.As(err, &exists) {
			t.Fatalf("Create against an ordinary flow: %v, want an ExistsError", err)
		}
		if exists.Side != want.side || exists.Ours() || exists.Flow.Original != want.flow.Original || exists.Flow.ID != want.flow.ID {
			t.Errorf("in the way: side %v, ours %v, %v; want side %v, %v", exists.Side, exists.Ours(), exists.Flow, want.side, want.flow)
		}
		if err := c.DeleteFlow(exists.Flow); err != nil {
			t.Fatal(err)
		}
		if err := c.DeleteFlow(exists.Flow); !errors.Is(err, ErrNotFound) {
			t.Errorf("DeleteFlow again: %v, want ErrNotFound", err)
		}
	}
	create(t, c, blocked)
}

func TestReplace(t *testing.T) {
	_, c := table(t)
	e, _ := masquerade(5, 777, 9, 888)
	if err := c.Replace(e); err != nil {
		t.Fatalf("Replace of nothing: %v", err)
	}
	// An ordinary flow with the original tuple goes.
	_, second := masquerade(5, 777, 9, 888)
	foreign(t, c, protocolGRE, second.original(), second.original().Inverse(), Zone{}, 0)
	if err := c.Replace(second); err != nil {
		t.Fatalf("Replace of an ordinary flow: %v", err)
	}
	// One with the reply tuple stays, and is reported.
	third := second
	third.Arrives.CallID = 999
	var exists *ExistsError
	if err := c.Replace(third); !errors.As(err, &exists) || exists.Side != Reply || !exists.Ours() {
		t.Fatalf("Replace with a taken reply tuple: %v", err)
	}
	if _, err := c.Get(second); err != nil {
		t.Errorf("Get of the one in the way: %v", err)
	}
	if list, err := c.List(); err != nil || len(list) != 2 {
		t.Errorf("List: %v, %v; want 2 entries", list, err)
	}
}

func TestDeleteTakesOnlyOurs(t *testing.T) {
	_, c := table(t)
	toClient, toServer := masquerade(5, 777, 9, 888)
	if err := c.Delete(toClient); !errors.Is(err, ErrNotFound) {
		t.Errorf("Delete of nothing: %v, want ErrNotFound", err)
	}
	create(t, c, toClient, toServer)

	other := toClient
	other.Leaves.CallID = 6
	if err := c.Delete(other); !errors.Is(err, ErrNotFound) {
		t.Errorf("Delete of another mapping of the same tuple: %v, want ErrNotFound", err)
	}
	inZone := toClient
	inZone.Zone.ID = 3
	if err := c.Delete(inZone); !errors.Is(err, ErrNotFound) {
		t.Errorf("Delete in another zone: %v, want ErrNotFound", err)
	}
	// The kernel finds an entry that is zoned in both directions by the zone of one.
	create(t, c, inZone)
	half := inZone
	half.Zone.Direction = OriginalOnly
	if err := c.Delete(half); !errors.Is(err, ErrNotFound) {
		t.Errorf("Delete in a zone of one direction: %v, want ErrNotFound", err)
	}
	if err := c.Delete(inZone); err != nil {
		t.Error(err)
	}
	if list, err := c.List(); err != nil || len(list) != 2 {
		t.Fatalf("List: %v, %v; want both still there", list, err)
	}
	if err := c.Delete(toClient); err != nil {
		t.Fatal(err)
	}

	// An ordinary flow in its place is none of Delete's business.
	foreign(t, c, protocolGRE, toClient.original(), toClient.reply(), Zone{}, StatusSeenReply|StatusAssured)
	if err := c.Delete(toClient); !errors.Is(err, ErrNotFound) {
		t.Errorf("Delete of an ordinary flow: %v, want ErrNotFound", err)
	}
	if _, err := c.Get(toClient); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of an ordinary flow: %v, want ErrNotFound", err)
	}
	if _, err := c.get(ctaTupleOrig, protocolGRE, toClient.original(), Zone{}); err != nil {
		t.Errorf("the ordinary flow: %v, want it still there", err)
	}
	if _, err := c.Get(toServer); err != nil {
		t.Errorf("Get of the other entry: %v", err)
	}
}

// Whatever is passed in: never the message that empties the table.
func TestDeleteOfNonsenseFlushesNothing(t *testing.T) {
	_, c := table(t)
	toClient, toServer := masquerade(5, 777, 9, 888)
	create(t, c, toClient, toServer)
	if err := c.Delete(Entry{}); err == nil {
		t.Error("Delete of the zero Entry: no error")
	}
	if err := c.DeleteFlow(Flow{}); err == nil {
		t.Error("DeleteFlow of the zero Flow: no error")
	}
	if err := c.DeleteFlow(Flow{Protocol: protocolGRE, ID: 1}); err == nil {
		t.Error("DeleteFlow without tuples: no error")
	}
	if list, err := c.List(); err != nil || len(list) != 2 {
		t.Errorf("List: %v, %v; want both still there", list, err)
	}
}

func TestListFindsOursAmongOthers(t *testing.T) {
	_, c := table(t)
	const calls, others = 60, 3000
	want := make(map[Entry]bool)
	for i := uint16(1); i <= calls; i++ {
		toClient, toServer := masquerade(i, i+1000, i+2000, i+3000)
		toClient.Mark, toServer.Mark = uint32(i), uint32(i)
		create(t, c, toClient, toServer)
		toClient.Timeout, toServer.Timeout = 0, 0
		want[toClient], want[toServer] = true, true
	}
	for i := 0; i < others; i++ {
		o := Tuple{netip.AddrPortFrom(addr("10.0.0.1"), uint16(i)), netip.AddrPortFrom(addr("10.0.0.2"), 80)}
		foreign(t, c, protocolTCP, o, o.Inverse(), Zone{}, StatusSeenReply|StatusAssured)
	}
	ordinary := tuple4("10.0.0.1:0", "10.0.0.2:77")
	foreign(t, c, protocolGRE, ordinary, ordinary.Inverse(), Zone{}, StatusSeenReply|StatusAssured)
	// Another program's entry that is as fixed as ours, but not GRE.
	fixed := tuple4("10.0.0.3:0", "10.0.0.4:2")
	foreign(t, c, protocolTCP, fixed, fixed.Inverse(), Zone{}, StatusOurs)

	list, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != len(want) {
		t.Errorf("%d entries, want %d", len(list), len(want))
	}
	for _, s := range list {
		if !want[s.Entry] {
			t.Errorf("not ours, or twice: %v", s)
		}
		delete(want, s.Entry)
		if s.Remaining < 59*time.Minute || s.Remaining > time.Hour {
			t.Errorf("%v: remaining %v of an hour", s.Entry, s.Remaining)
		}
	}

	// The kernel picks them out, so that a large table costs little.
	sent := 0
	if err := c.dumpOurs(func(Flow) { sent++ }); err != nil || sent != 2*calls+1 {
		t.Errorf("the kernel sent %d entries, %v; want %d", sent, err, 2*calls+1)
	}
}

func TestListTakesEachOnce(t *testing.T) {
	e, _ := masquerade(5, 777, 9, 888)
	f := Flow{Protocol: protocolGRE, Original: e.original(), Reply: e.reply(), Status: StatusOurs}
	ordinary, zoned := f, f
	ordinary.Status = StatusConfirmed
	zoned.Zone.ID = 4
	var l list
	for _, f := range []Flow{f, ordinary, zoned, f, zoned} {
		l.add(f)
	}
	if len(l.entries) != 2 || l.entries[0].Zone.ID != 0 || l.entries[1].Zone.ID != 4 {
		t.Errorf("listed %v, want two", l.entries)
	}
}

func TestZonesKeepEntriesApart(t *testing.T) {
	for _, d := range []Direction{Both, OriginalOnly, ReplyOnly} {
		_, c := table(t)
		e, _ := masquerade(5, 777, 9, 888)
		e.Zone = Zone{ID: 4, Direction: d}
		create(t, c, e)
		var exists *ExistsError
		if err := c.Create(e); !errors.As(err, &exists) || exists.Side != Original || exists.Flow.Zone != e.Zone {
			t.Errorf("%v: Create again: %v", e.Zone, err)
		}
		// What may coexist is the other tuple, in the direction that is in no zone.
		o := e
		switch d {
		case OriginalOnly:
			o.Zone.ID = 5 // same packets arriving, told apart by the zone: but leaving, they are not
			if err := c.Create(o); !errors.As(err, &exists) || exists.Side != Reply {
				t.Errorf("%v: Create in another zone: %v, want the reply tuple to be taken", e.Zone, err)
			}
			o.Leaves.CallID++
		case ReplyOnly:
			o.Zone.ID = 5
			if err := c.Create(o); !errors.As(err, &exists) || exists.Side != Original {
				t.Errorf("%v: Create in another zone: %v, want the original tuple to be taken", e.Zone, err)
			}
			o.Arrives.CallID, o.Zone.ID = e.Arrives.CallID+2, e.Zone.ID
			if err := c.Create(o); !errors.As(err, &exists) || exists.Side != Reply {
				t.Errorf("%v: Create with another told Call ID: %v, want the reply tuple to be taken", e.Zone, err)
			}
			o.Arrives.CallID, o.Zone.ID = e.Arrives.CallID, 5
			o.Arrives.CallID++
		default:
			o.Zone.ID = 5
		}
		create(t, c, o)
		list, err := c.List()
		if err != nil || len(list) != 2 {
			t.Fatalf("%v: List: %v, %v", e.Zone, list, err)
		}
		for _, s := range list {
			if !s.Equal(e) && !s.Equal(o) {
				t.Errorf("%v: listed %v", e.Zone, s.Entry)
			}
		}
		if got, err := c.Get(e); err != nil || !got.Equal(e) {
			t.Errorf("%v: Get: %v, %v", e.Zone, got, err)
		}
		if err := c.Replace(e); err != nil {
			t.Errorf("%v: Replace: %v", e.Zone, err)
		}
		if err := c.Delete(e); err != nil {
			t.Errorf("%v: Delete: %v", e.Zone, err)
		}
		if got, err := c.Get(o); err != nil || !got.Equal(o) {
			t.Errorf("%v: Get of the other: %v, %v", e.Zone, got, err)
		}
	}
}

// A flow of the kernel's PPTP helper has a key in the reply's destination, which the kernel's NAT gives
// to the next entry from the same source.
func TestCreateRefusesWhatTheKernelAlters(t *testing.T) {
	_, c := table(t)
	_, toServer := masquerade(5, 777, 9, 888)
	data := encode(func(m *encoder) {
		putTuple(m, ctaTupleOrig, protocolGRE, tuple4("192.168.77.11:0", "203.0.113.9:99"), Zone{})
		putTuple(m, ctaTupleReply, protocolGRE, tuple4("203.0.113.9:99", "192.168.77.11:33"), Zone{})
		putNAT(m, ctaNATSrc, addr(publicAddr))
		m.uint32(ctaTimeout, 600)
		m.uint32(ctaStatus, uint32(StatusConfirmed|StatusSeenReply))
	})
	answers, err := c.transact(request(msgNew, netlink.Acknowledge|netlink.Create|netlink.Excl, data))
	if err != nil || answers[0].err != nil {
		t.Fatal(err, answers[0].err)
	}
	for name, put := range map[string]func(Entry) error{"Create": c.Create, "Replace": c.Replace} {
		var altered *AlteredError
		if err := put(toServer); !errors.As(err, &altered) {
			t.Fatalf("%s: %v, want an AlteredError", name, err)
		}
		if altered.Got.Reply.Dst.Port() != 33 {
			t.Errorf("%s: the kernel made %v", name, altered.Got)
		}
		if _, err := c.get(ctaTupleOrig, protocolGRE, toServer.original(), Zone{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("after %s: %v, want nothing left", name, err)
		}
	}
}

func TestCreateRefusesInvalidEntries(t *testing.T) {
	_, c := table(t)
	for name, change := range map[string]func(*Entry){
		"told Call ID 0":    func(e *Entry) { e.Arrives.CallID = 0 },
		"no timeout":        func(e *Entry) { e.Timeout = 0 },
		"endless timeout":   func(e *Entry) { e.Timeout = MaxTimeout + time.Second },
		"IPv6":              func(e *Entry) { e.Leaves.Src = netip.IPv6Loopback() },
		"IPv4 in IPv6":      func(e *Entry) { e.Arrives.Src = addr("::ffff:192.0.2.7") },
		"no address":        func(e *Entry) { e.Leaves.Dst = netip.Addr{} },
		"unknown direction": func(e *Entry) { e.Zone = Zone{ID: 1, Direction: 9} },
	} {
		e, _ := masquerade(5, 777, 9, 888)
		change(&e)
		if err := c.Create(e); err == nil {
			t.Errorf("Create with %s: no error", name)
		}
	}
	if list, err := c.List(); err != nil || len(list) != 0 {
		t.Errorf("List: %v, %v; want nothing", list, err)
	}
	e, _ := masquerade(5, 777, 9, 888)
	e.Timeout = MaxTimeout
	create(t, c, e)
	if s, err := c.Get(e); err != nil || s.Remaining < MaxTimeout-time.Minute {
		t.Errorf("MaxTimeout is %v in the kernel: %v", s.Remaining, err)
	}
}

// A client whose answers were lost half-way does not take them for those of later requests.
func TestClientRecovers(t *testing.T) {
	_, c := table(t)
	toClient, toServer := masquerade(5, 777, 9, 888)
	create(t, c, toClient, toServer)
	data, err := encodeDumpStatus(StatusOurs)
	if err != nil {
		t.Fatal(err)
	}
	// Two questions whose answers nobody takes.
	if _, err := c.conn.Send(request(msgGet, netlink.Dump, data)); err != nil {
		t.Fatal(err)
	}
	c.stale = true
	if list, err := c.List(); err != nil || len(list) != 2 {
		t.Errorf("List: %v, %v; want 2", list, err)
	}
	get, _ := encodeGet(ctaTupleOrig, protocolGRE, toServer.original(), Zone{})
	if _, err := c.conn.Send(request(msgGet, 0, get)); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Get(toClient); err != nil || !s.Equal(toClient) {
		t.Errorf("Get: %v, %v; want %v", s, err, toClient)
	}
	get, _ = encodeGet(ctaTupleOrig, protocolGRE, toServer.original().Inverse(), Zone{})
	if _, err := c.conn.Send(request(msgGet, 0, get)); err != nil { // its answer is an error
		t.Fatal(err)
	}
	if list, err := c.List(); err != nil || len(list) != 2 {
		t.Errorf("List: %v, %v; want 2", list, err)
	}
}

func BenchmarkCreateDelete(b *testing.B) {
	_, c := table(b)
	e, _ := masquerade(5, 777, 9, 888)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Create(e); err != nil {
			b.Fatal(err)
		}
		if err := c.Delete(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList(b *testing.B) {
	_, c := table(b)
	for i := uint16(1); i <= 10000; i++ {
		toClient, toServer := masquerade(i, i, i, i)
		if err := errors.Join(c.Create(toClient), c.Create(toServer)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if list, err := c.List(); err != nil || len(list) != 20000 {
			b.Fatal(len(list), err)
		}
	}
}
