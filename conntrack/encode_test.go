package conntrack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// The tests of the codec build attributes by themselves, so as not to believe the code under test.

// nla builds an attribute: header in host byte order, padding to four bytes.
func nla(typ uint16, payload ...[]byte) []byte {
	p := bytes.Join(payload, nil)
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(p)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, p...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

const nested = 0x8000 // NLA_F_NESTED

func ip4(s string) []byte { a := addr(s).As4(); return a[:] }

// wireTuple builds the inside of a CTA_TUPLE_*.
func wireTuple(src, dst string, protocol byte, srcKey, dstKey uint16) []byte {
	return append(
		nla(1|nested, nla(1, ip4(src)), nla(2, ip4(dst))),
		nla(2|nested, nla(1, []byte{protocol}), nla(2, []byte{byte(srcKey >> 8), byte(srcKey)}), nla(3, []byte{byte(dstKey >> 8), byte(dstKey)}))...)
}

func wireNAT(a string) []byte { return append(nla(1, ip4(a)), nla(2, ip4(a))...) }

func message(attrs ...[]byte) []byte {
	return append([]byte{2, 0, 0, 0}, bytes.Join(attrs, nil)...)
}

func TestEncodeEntry(t *testing.T) {
	const A, A1, B, B1 = "192.168.77.11", "203.0.113.1", "203.0.113.2", "203.0.113.9"
	status := nla(3, []byte{0, 0, 4, 0x0e})
	hour := nla(7, []byte{0, 0, 0x0e, 0x10})
	gre := func(src, dst string, id uint16) GRE { return GRE{addr(src), addr(dst), id} }
	for _, c := range []struct {
		name string
		e    Entry
		want []byte
	}{
		{"masquerade, to the client",
			Entry{Arrives: gre(B, A1, 777), Leaves: gre(B, A, 5), Timeout: time.Hour},
			message(nla(1|nested, wireTuple(B, A1, 47, 0, 777)), nla(2|nested, wireTuple(A1, B, 47, 5, 0)),
				nla(13|nested, wireNAT(A)), hour, status)},
		{"masquerade, to the server, Call ID kept",
			Entry{Arrives: gre(A, B, 9), Leaves: gre(A1, B, 9), Timeout: time.Hour},
			message(nla(1|nested, wireTuple(A, B, 47, 0, 9)), nla(2|nested, wireTuple(B, A, 47, 9, 0)),
				nla(6|nested, wireNAT(A1)), hour, status)},
		{"masquerade, to the server, Call ID changed: placeholder",
			Entry{Arrives: gre(A, B, 888), Leaves: gre(A1, B, 9), Timeout: time.Hour},
			message(nla(1|nested, wireTuple(A, B, 47, 0, 888)), nla(2|nested, wireTuple("192.0.2.1", A, 47, 9, 0)),
				nla(6|nested, wireNAT(A1)), nla(13|nested, wireNAT(B)), hour, status)},
		{"hairpin",
			Entry{Arrives: gre(A, B1, 888), Leaves: gre(A1, B, 9), Timeout: time.Hour},
			message(nla(1|nested, wireTuple(A, B1, 47, 0, 888)), nla(2|nested, wireTuple(B1, A, 47, 9, 0)),
				nla(6|nested, wireNAT(A1)), nla(13|nested, wireNAT(B)), hour, status)},
		{"no NAT, mark, real Call ID 0, fraction of a second",
			Entry{Arrives: gre(A, B, 9), Leaves: gre(A, B, 9), Mark: 0x01020304, Timeout: time.Hour - time.Millisecond},
			message(nla(1|nested, wireTuple(A, B, 47, 0, 9)), nla(2|nested, wireTuple(B, A, 47, 9, 0)),
				hour, status, nla(8, []byte{1, 2, 3, 4}))},
		{"placeholder is the address",
			Entry{Arrives: gre(A, "192.0.2.1", 888), Leaves: gre(A, "192.0.2.1", 0), Timeout: time.Hour},
			message(nla(1|nested, wireTuple(A, "192.0.2.1", 47, 0, 888)), nla(2|nested, wireTuple("192.0.2.2", A, 47, 0, 0)),
				nla(13|nested, wireNAT("192.0.2.1")), hour, status)},
		{"zone",
			Entry{Arrives: gre(A, B, 9), Leaves: gre(A, B, 9), Zone: Zone{ID: 0x0102}, Timeout: time.Hour},
			message(nla(1|nested, wireTuple(A, B, 47, 0, 9)), nla(2|nested, wireTuple(B, A, 47, 9, 0)),
				nla(18, []byte{1, 2}), hour, status)},
		{"zone of the original direction",
			Entry{Arrives: gre(A, B, 9), Leaves: gre(A, B, 9), Zone: Zone{ID: 0x0102, Direction: OriginalOnly}, Timeout: time.Hour},
			message(nla(1|nested, wireTuple(A, B, 47, 0, 9), nla(3, []byte{1, 2})), nla(2|nested, wireTuple(B, A, 47, 9, 0)),
				hour, status)},
		{"zone of the reply direction",
			Entry{Arrives: gre(A, B, 9), Leaves: gre(A, B, 9), Zone: Zone{ID: 0x0102, Direction: ReplyOnly}, Timeout: time.Hour},
			message(nla(1|nested, wireTuple(A, B, 47, 0, 9)), nla(2|nested, wireTuple(B, A, 47, 9, 0), nla(3, []byte{1, 2})),
				hour, status)},
	} {
		got, err := encodeEntry(c.e)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if !bytes.Equal(got, c.want) {
			t.Errorf("%s:\n got %x\nwant %x", c.name, got, c.want)
		}
	}
}

// Every message to delete has an original tuple, or is not made.
func TestEncodeDeleteHasATuple(t *testing.T) {
	id := uint32(0x01020304)
	valid := tuple4("192.0.2.5:0", "192.0.2.6:777")
	for _, c := range []struct {
		name     string
		protocol uint8
		tuple    Tuple
		zone     Zone
		id       *uint32
		want     []byte // nil: refused
	}{
		{"tuple", 47, valid, Zone{}, nil, message(nla(1|nested, wireTuple("192.0.2.5", "192.0.2.6", 47, 0, 777)))},
		{"tuple and ID", 47, valid, Zone{}, &id,
			message(nla(1|nested, wireTuple("192.0.2.5", "192.0.2.6", 47, 0, 777)), nla(12, []byte{1, 2, 3, 4}))},
		{"zone", 6, valid, Zone{ID: 5}, nil,
			message(nla(1|nested, wireTuple("192.0.2.5", "192.0.2.6", 6, 0, 777)), nla(18, []byte{0, 5}))},
		{"no protocol", 0, valid, Zone{}, nil, nil},
		{"ID alone", 47, Tuple{}, Zone{}, &id, nil},
		{"half a tuple", 47, Tuple{Src: valid.Src}, Zone{}, nil, nil},
		{"IPv6", 47, Tuple{addrPort("[2001:db8::1]:1"), addrPort("[2001:db8::2]:1")}, Zone{}, &id, nil},
	} {
		got, err := encodeDelete(c.protocol, c.tuple, c.zone, c.id)
		if (err != nil) != (c.want == nil) || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %x, %v; want %x", c.name, got, err, c.want)
		}
	}
}

func TestEncodeDumps(t *testing.T) {
	check := func(name string, got []byte, err error, want []byte) {
		t.Helper()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\n got %x\nwant %x", name, err, got, want)
		}
	}
	got, err := encodeDump()
	check("all", got, err, message())
	got, err = encodeDumpStatus(StatusOurs)
	check("status", got, err, message(nla(3, []byte{0, 0, 4, 0x0e}), nla(26, []byte{0, 0, 4, 0x0e})))
	flags := binary.NativeEndian.AppendUint32(nil, 1|8|16)
	got, err = encodeDumpEnds(6, addrPort("192.0.2.5:1024"), addrPort("192.0.2.6:1723"))
	check("ends", got, err, message(
		nla(1|nested, wireTuple("192.0.2.5", "192.0.2.6", 6, 1024, 1723)),
		nla(2|nested, wireTuple("192.0.2.6", "192.0.2.5", 6, 1723, 1024)),
		nla(25|nested, nla(1, flags), nla(2, flags))))
	if got, err := encodeDumpEnds(6, addrPort("[::1]:1"), addrPort("192.0.2.6:1723")); err == nil {
		t.Errorf("ends with IPv6: %x, no error", got)
	}
	if got, err := encodeGet(ctaTupleOrig, 6, Tuple{}, Zone{}); err == nil {
		t.Errorf("get without a tuple: %x, no error", got)
	}
}

func TestEventFilterFits(t *testing.T) {
	// The kernel charges what it makes of the program: about an eBPF instruction of 8 bytes for each of ours, more
	// for those few that load. TestEventsWithoutPorts asks the kernel itself.
	const optmem, loading, perLoading = 10240, 50, 10
	p, err := eventFilter(make([]uint16, MaxPorts))
	if err != nil || (len(p)+loading*perLoading)*8 > optmem {
		t.Errorf("filter for %d ports: %d instructions, %v", MaxPorts, len(p), err)
	}
}

func TestZoneOpposite(t *testing.T) {
	for from, to := range map[Direction]Direction{Both: Both, OriginalOnly: ReplyOnly, ReplyOnly: OriginalOnly} {
		if got := (Zone{ID: 5, Direction: from}).Opposite(); got != (Zone{ID: 5, Direction: to}) {
			t.Errorf("opposite of %v: %v", Zone{ID: 5, Direction: from}, got)
		}
	}
}

func TestEntryEqual(t *testing.T) {
	e, _ := masquerade(5, 777, 9, 888)
	same := e
	same.Timeout, same.Zone = time.Minute, Zone{Direction: ReplyOnly}
	if !e.Equal(same) {
		t.Error("entries that differ in timeout, and in how the default zone is written, are not equal")
	}
	for name, change := range map[string]func(*Entry){
		"arrives": func(e *Entry) { e.Arrives.CallID++ },
		"leaves":  func(e *Entry) { e.Leaves.Src = netip.IPv4Unspecified() },
		"zone":    func(e *Entry) { e.Zone.ID = 1 },
		"mark":    func(e *Entry) { e.Mark++ },
	} {
		o := e
		change(&o)
		if e.Equal(o) {
			t.Errorf("entries that differ in %s are equal", name)
		}
	}
}

func TestWords(t *testing.T) {
	e, _ := masquerade(5, 777, 9, 888)
	e.Zone = Zone{ID: 3, Direction: ReplyOnly}
	for _, c := range []struct{ got, want string }{
		{e.String(), "gre 203.0.113.2 > 203.0.113.1 call 777 to 203.0.113.2 > 192.168.77.11 call 5 in zone 3 (reply)"},
		{StatusOurs.String(), "seen-reply,assured,confirmed,fixed-timeout"},
		{Status(0).String(), "0x0"},
		{Status(1<<20 | 8).String(), "confirmed,0x100000"},
		{Flow{Protocol: 6, Original: tuple4("192.0.2.1:1", "192.0.2.2:2"), Reply: tuple4("192.0.2.2:2", "192.0.2.1:1"), Status: StatusConfirmed}.String(),
			"tcp 192.0.2.1:1 > 192.0.2.2:2, reply 192.0.2.2:2 > 192.0.2.1:1 [confirmed]"},
		{capNetAdmin.because(nil).Error(), "not permitted: needs CAP_NET_ADMIN; run as root, or give the program this capability"},
		{(&UnsupportedError{Feature: "X", Fix: "do Y"}).Error(), "not supported by this kernel: X; do Y"},
		{(&ExistsError{Entry: e, Side: Reply, Flow: Flow{Protocol: 47, Status: StatusConfirmed}}).Error(),
			e.String() + ": reply tuple taken by a flow: gre invalid AddrPort > invalid AddrPort, reply invalid AddrPort > invalid AddrPort [confirmed]"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
