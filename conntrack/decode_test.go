package conntrack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// netlinkMessage builds a whole netlink message, in host byte order.
func netlinkMessage(typ, flags uint16, seq, pid uint32, data []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, pid)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// An entry of ours as the kernel answers, with attributes that nobody here knows.
func storedAttributes() []byte {
	return bytes.Join([][]byte{
		nla(1|nested, wireTuple("192.168.77.11", "203.0.113.2", 47, 0, 888)),
		nla(2|nested, wireTuple("203.0.113.2", "203.0.113.1", 47, 9, 0)),
		nla(3, []byte{0, 0, 0x05, 0xbe}),
		nla(8, []byte{0, 0, 0, 7}),
		nla(12, []byte{0xde, 0xad, 0xbe, 0xef}),
		nla(11, []byte{0, 0, 0, 1}), // CTA_USE
		nla(7, []byte{0, 0, 0x0e, 0x10}),
		nla(9|nested, nla(1, []byte{0, 0, 0, 0, 0, 0, 1, 0}), nla(2, []byte{0, 0, 0, 1, 0, 0, 0, 2})),
		nla(10|nested, nla(1, make([]byte, 8)), nla(2, make([]byte, 8))),
		nla(24|nested, nla(1, []byte{1, 2, 3, 4})), // CTA_SYNPROXY
		nla(999, []byte("from the future")),
	}, nil)
}

func TestDecodeStored(t *testing.T) {
	f, err := decodeMessage(message(storedAttributes()))
	if err != nil {
		t.Fatal(err)
	}
	s, ok := f.Stored()
	if !ok {
		t.Fatalf("not taken for one of ours: %v", f)
	}
	_, toServer := masquerade(5, 777, 9, 888)
	toServer.Mark, toServer.Timeout = 7, 0
	want := Stored{Entry: toServer, Counters: Counters{Packets: 256, Bytes: 1<<32 + 2}, Accounted: true,
		Remaining: time.Hour, Status: 0x5be, ID: 0xdeadbeef}
	if s != want {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	if _, ok := f.Connection(); ok {
		t.Error("GRE taken for a connection")
	}
}

func TestParseConnection(t *testing.T) {
	attrs := bytes.Join([][]byte{
		nla(1|nested, wireTuple("192.168.77.11", "203.0.113.2", 6, 40000, 1723), nla(3, []byte{0, 5})),
		nla(2|nested, wireTuple("203.0.113.2", "203.0.113.1", 6, 1723, 40001)),
		nla(3, []byte{0, 0, 0x01, 0x9e}),
		nla(4|nested, nla(1|nested, nla(1, []byte{3}), nla(2, []byte{7}))),
		nla(5|nested, nla(1, []byte("pptp\x00"))),
		nla(7, []byte{0, 6, 0x97, 0x80}),
	}, nil)
	got, err := ParseConnection(attrs)
	want := Connection{
		Original: tuple4("192.168.77.11:40000", "203.0.113.2:1723"),
		Reply:    tuple4("203.0.113.2:1723", "203.0.113.1:40001"),
		Zone:     Zone{ID: 5, Direction: OriginalOnly},
		Status:   0x19e,
		State:    TCPEstablished,
		Helper:   "pptp",
		Timeout:  432000 * time.Second,
	}
	if err != nil || got != want {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
	if c, err := ParseConnection(storedAttributes()); !errors.Is(err, errNotTCP) {
		t.Errorf("GRE: %+v, %v", c, err)
	}
}

func TestDecodeZones(t *testing.T) {
	zone := nla(3, []byte{0, 5})
	orig, reply := wireTuple("10.0.0.1", "10.0.0.2", 6, 1, 2), wireTuple("10.0.0.2", "10.0.0.1", 6, 2, 1)
	for _, c := range []struct {
		attrs []byte
		want  Zone
	}{
		{bytes.Join([][]byte{nla(1, orig), nla(2, reply)}, nil), Zone{}},
		{bytes.Join([][]byte{nla(1, orig), nla(2, reply), nla(18, []byte{0, 5})}, nil), Zone{5, Both}},
		{bytes.Join([][]byte{nla(1, orig, zone), nla(2, reply)}, nil), Zone{5, OriginalOnly}},
		{bytes.Join([][]byte{nla(1, orig), nla(2, reply, zone)}, nil), Zone{5, ReplyOnly}},
	} {
		if f, err := decodeFlow(c.attrs); err != nil || f.Zone != c.want {
			t.Errorf("zone %v, %v; want %v", f.Zone, err, c.want)
		}
	}
}

func TestDecodeRefusesMalformed(t *testing.T) {
	orig, reply := nla(1, wireTuple("10.0.0.1", "10.0.0.2", 6, 1, 2)), nla(2, wireTuple("10.0.0.2", "10.0.0.1", 6, 2, 1))
	good := append(append([]byte{}, orig...), reply...)
	if _, err := decodeFlow(good); err != nil {
		t.Fatal(err)
	}
	with := func(b []byte) []byte { return append(append([]byte{}, good...), b...) }
	for name, b := range map[string][]byte{
		"nothing":                 {},
		"one tuple":               orig,
		"two protocols":           append(append([]byte{}, orig...), nla(2, wireTuple("10.0.0.2", "10.0.0.1", 47, 2, 1))...),
		"address of three bytes":  append(append([]byte{}, orig...), nla(2, nla(1, nla(1, []byte{1, 2, 3})))...),
		"IPv6 in an IPv4 address": append(append([]byte{}, orig...), nla(2, nla(1, nla(1, make([]byte, 16))))...),
		"two families":            append(append([]byte{}, orig...), nla(2, nla(1, nla(1, ip4("10.0.0.2")), nla(4, make([]byte, 16))), nla(2, nla(1, []byte{6})))...),
		"tuple without addresses": append(append([]byte{}, orig...), nla(2, nla(2, nla(1, []byte{6})))...),
		"port of one byte":        append(append([]byte{}, orig...), nla(2, nla(2, nla(2, []byte{6})))...),
		"protocol of two bytes":   append(append([]byte{}, orig...), nla(2, nla(2, nla(1, []byte{0, 6})))...),
		"status of two bytes":     with(nla(3, []byte{0, 1})),
		"counter of four bytes":   with(nla(9, nla(1, []byte{0, 0, 0, 1}))),
		"state of no bytes":       with(nla(4, nla(1, nla(1)))),
		"half an attribute":       with([]byte{0, 0}),
		"attribute too long":      with(binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, 8), 3)),
		"attribute too short":     with(binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, 3), 3)),
	} {
		if f, err := decodeFlow(b); err == nil {
			t.Errorf("%s: decoded as %v", name, f)
		}
	}
	// The padding of the last attribute may be missing.
	unpadded := with(nla(5, nla(1, []byte("ftp\x00"))))
	unpadded = append(unpadded, nla(999, []byte{1})[:5]...)
	if f, err := decodeFlow(unpadded); err != nil || f.Helper != "ftp" {
		t.Errorf("without padding: %v, %v", f, err)
	}
	if f, err := decodeMessage([]byte{2, 0}); err == nil {
		t.Errorf("half a header decoded as %v", f)
	}
}

func TestSplitMessages(t *testing.T) {
	one := netlinkMessage(0x100, 2, 77, 88, message(storedAttributes()))
	two := netlinkMessage(2, 0, 78, 88, make([]byte, 20))
	both := append(append([]byte{}, one...), two...)
	got, err := splitMessages(both)
	if err != nil || len(got) != 2 {
		t.Fatalf("%d messages, %v; want 2", len(got), err)
	}
	if h := got[0].Header; h.Type != msgNew || h.Flags != netlink.Multi || h.Sequence != 77 || h.PID != 88 {
		t.Errorf("header %+v", h)
	}
	if !bytes.Equal(got[0].Data, message(storedAttributes())) || got[1].Header.Type != netlink.Error {
		t.Errorf("messages %+v", got)
	}
	if got, err := splitMessages(both[:len(both)-1]); err == nil || len(got) != 1 {
		t.Errorf("one byte less: %d messages, %v; want one and an error", len(got), err)
	}
	odd := netlinkMessage(2, 0, 78, 88, make([]byte, 21))
	if got, err := splitMessages(append(append([]byte{}, odd...), odd[:16+21]...)); err != nil || len(got) != 2 || len(got[1].Data) != 21 {
		t.Errorf("odd lengths, without padding: %v, %v; want two", got, err)
	}
	short := append([]byte{}, one...)
	binary.NativeEndian.PutUint32(short, 15)
	if got, err := splitMessages(short); err == nil {
		t.Errorf("length below the header's: %+v", got)
	}
	binary.NativeEndian.PutUint32(short, 0xffffffff)
	if got, err := splitMessages(short); err == nil {
		t.Errorf("length of 4 GiB: %+v", got)
	}
}

func TestMessageError(t *testing.T) {
	errno := func(e unix.Errno) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-int32(e))) }
	requestHeader := netlinkMessage(0x100, 5, 77, 88, nil)
	request := netlinkMessage(0x100, 5, 77, 88, make([]byte, 20))
	words := nla(1, []byte("no such thing\x00"))
	const capped, tlvs = 0x100, 0x200
	for _, c := range []struct {
		name       string
		typ, flags uint16
		data       [][]byte
		want       error
		text       string
	}{
		{"acknowledgement", 2, 0, [][]byte{errno(0), requestHeader}, nil, ""},
		{"error", 2, 0, [][]byte{errno(unix.EEXIST), request}, unix.EEXIST, "file exists"},
		{"error with words", 2, tlvs, [][]byte{errno(unix.EINVAL), request, words}, unix.EINVAL, "invalid argument (no such thing)"},
		{"capped, with words", 2, tlvs | capped, [][]byte{errno(unix.EINVAL), request[:16], words}, unix.EINVAL, "invalid argument (no such thing)"},
		{"words missing", 2, tlvs, [][]byte{errno(unix.EINVAL), request}, unix.EINVAL, "invalid argument"},
		{"words malformed", 2, tlvs, [][]byte{errno(unix.EINVAL), request, {1, 2}}, unix.EINVAL, "invalid argument"},
		{"request missing", 2, tlvs, [][]byte{errno(unix.EINVAL)}, unix.EINVAL, "invalid argument"},
		{"end of a dump", 3, 2, [][]byte{errno(0)}, nil, ""},
		{"end of a dump, empty", 3, 2, nil, nil, ""},
		{"end of a dump that failed", 3, 2 | tlvs, [][]byte{errno(unix.EINVAL), words}, unix.EINVAL, "invalid argument (no such thing)"},
		{"no code", 2, 0, [][]byte{{1, 2}}, errShort, errShort.Error()},
	} {
		m := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(c.typ), Flags: netlink.HeaderFlags(c.flags)}, Data: bytes.Join(c.data, nil)}
		last, err := isLast(m)
		if !last || !errors.Is(err, c.want) || err != nil && err.Error() != c.text {
			t.Errorf("%s: last %v, %v; want %v", c.name, last, err, c.text)
		}
	}
	if last, err := isLast(netlink.Message{Header: netlink.Header{Type: msgNew}}); last || err != nil {
		t.Errorf("an entry: last %v, %v", last, err)
	}
}

// What we send, we understand.
func TestEncodeDecode(t *testing.T) {
	toClient, toServer := masquerade(5, 777, 9, 888)
	toServer.Mark = 9
	toServer.Zone = Zone{ID: 4, Direction: ReplyOnly}
	for _, e := range []Entry{toClient, toServer} {
		b, err := encodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		f, err := decodeMessage(b)
		if err != nil || f.Original != e.original() || f.Zone != e.Zone || f.Mark != e.Mark || f.Timeout != e.Timeout || f.Status != StatusOurs {
			t.Errorf("%v: %v, %v", e, f, err)
		}
	}
}

// FuzzAnswers feeds datagrams from the kernel to everything that reads them.
func FuzzAnswers(f *testing.F) {
	f.Add(netlinkMessage(0x100, 2, 77, 88, message(storedAttributes())))
	f.Add(netlinkMessage(2, 0x200, 77, 88, append(binary.NativeEndian.AppendUint32(nil, uint32(0xffffffea)),
		append(netlinkMessage(0x100, 5, 77, 88, nil), nla(1, []byte("words\x00"))...)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		msgs, _ := splitMessages(b)
		for _, m := range msgs {
			if last, err := isLast(m); last {
				_ = err
				continue
			}
			_, _ = decodeHelperStatus(m.Data)
			flow, err := decodeMessage(m.Data)
			if err != nil {
				if flow != (Flow{}) {
					t.Errorf("a flow besides the error %v: %v", err, flow)
				}
				continue
			}
			checkFlow(t, flow)
			if again, err := decodeMessage(bytes.Clone(m.Data)); err != nil || again != flow {
				t.Errorf("decoded as %v, then as %v, %v", flow, again, err)
			}
			if _, err := ParseConnection(m.Data[nfgenLen:]); (err == nil) != (flow.Protocol == protocolTCP) {
				t.Errorf("ParseConnection of %v: %v", flow, err)
			}
		}
		if !bytes.Equal(b, before) {
			t.Error("the datagram was changed")
		}
	})
}

// checkFlow checks what has to hold for every flow that was decoded.
func checkFlow(t *testing.T, f Flow) {
	for _, tuple := range []Tuple{f.Original, f.Reply} {
		if !tuple.Src.IsValid() || tuple.Src.Addr().BitLen() != tuple.Dst.Addr().BitLen() {
			t.Errorf("invalid tuple: %v", f)
		}
	}
	_ = f.String()
	data, err := encodeDelete(f.Protocol, f.Original, f.Zone, &f.ID)
	if (err == nil) != f.Original.Src.Addr().Is4() {
		t.Errorf("encodeDelete: %v", err)
	}
	if err == nil && !bytes.Contains(data, wireTuple(f.Original.Src.Addr().String(), f.Original.Dst.Addr().String(), f.Protocol, f.Original.Src.Port(), f.Original.Dst.Port())) {
		t.Errorf("encodeDelete without the tuple: %x", data)
	}
	s, ok := f.Stored()
	if !ok {
		return
	}
	s.Timeout = time.Hour
	if s.original() != f.Original || s.reply() != f.Reply {
		t.Errorf("%v became %v", f, s.Entry)
	}
	if _, err := encodeEntry(s.Entry); err != nil {
		t.Errorf("an entry of ours that cannot be made again: %v", err)
	}
}

func TestExplain(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.ENOENT: ErrNotFound,
		unix.ENOMEM: ErrTableFull,
		unix.ENOSPC: ErrTableFull,
		unix.EPERM:  unix.EPERM,
		unix.EINVAL: unix.EINVAL,
	} {
		if err := explain(errno); !errors.Is(err, want) {
			t.Errorf("%v explained as %v, want %v", errno, err, want)
		}
	}
	zoned := Entry{Arrives: GRE{addr("192.0.2.5"), addr("192.0.2.6"), 1}, Leaves: GRE{addr("192.0.2.5"), addr("192.0.2.6"), 1}, Zone: Zone{ID: 1}}
	natted, _ := masquerade(5, 777, 9, 888)
	both := natted
	both.Zone.ID = 1
	for _, c := range []struct {
		e    Entry
		want string
	}{{zoned, zoneSupport.Feature}, {natted, natSupport.Feature}, {both, natSupport.Feature}} {
		var missing *UnsupportedError
		if err := explainCreate(c.e, unix.EOPNOTSUPP); !errors.As(err, &missing) || missing.Feature != c.want {
			t.Errorf("EOPNOTSUPP for %v: %v, want %s", c.e, err, c.want)
		}
	}
}

// What a kernel without Call IDs, without marks, or with a mind of its own makes of an entry is noticed.
func TestCheck(t *testing.T) {
	_, e := masquerade(5, 777, 9, 888)
	e.Mark = 3
	good := Flow{Protocol: protocolGRE, Original: e.original(), Reply: e.reply(), Mark: 3,
		Status: StatusOurs | StatusSourceNAT | StatusDestinationNAT}
	if err := e.check(good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change  func(*Flow)
		feature string // "": an AlteredError
	}{
		"no keys": {func(f *Flow) {
			f.Original, f.Reply = tuple4("192.168.77.11:0", "203.0.113.2:0"), tuple4("203.0.113.2:0", "203.0.113.1:0")
		}, greKeys.Feature},
		"no mark":             {func(f *Flow) { f.Mark = 0 }, markSupport.Feature},
		"another reply":       {func(f *Flow) { f.Reply.Src = addrPort("203.0.113.2:10") }, ""},
		"no destination NAT":  {func(f *Flow) { f.Status &^= StatusDestinationNAT }, ""},
		"no source NAT":       {func(f *Flow) { f.Status &^= StatusSourceNAT }, ""},
		"another zone":        {func(f *Flow) { f.Zone.ID = 1 }, ""},
		"timeout not fixed":   {func(f *Flow) { f.Status &^= StatusFixedTimeout }, ""},
		"another destination": {func(f *Flow) { f.Original.Dst = addrPort("203.0.113.2:889") }, ""},
	} {
		f := good
		c.change(&f)
		err := e.check(f)
		var missing *UnsupportedError
		var altered *AlteredError
		switch {
		case c.feature == "" && !errors.As(err, &altered):
			t.Errorf("%s: %v, want an AlteredError", name, err)
		case c.feature != "" && (!errors.As(err, &missing) || missing.Feature != c.feature):
			t.Errorf("%s: %v, want %s", name, err, c.feature)
		}
	}
}
