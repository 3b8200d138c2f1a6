package alg_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pptp-alg/alg"
)

// raw turns hex digits into bytes, and text into a field filled up with zeros.
func raw(t testing.TB, parts ...any) []byte {
	t.Helper()
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			x, err := hex.DecodeString(strings.ReplaceAll(p, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, x...)
		case field64:
			b = append(b, append([]byte(p), make([]byte, 64-len(p))...)...)
		case field128:
			b = append(b, append([]byte(p), make([]byte, 128-len(p))...)...)
		}
	}
	return b
}

type (
	field64  string
	field128 string
)

// golden is one message of each type, written by hand from RFC 2637 sections
// 2.1 to 2.15, and what its getters return.
func golden(t testing.TB) []goldenMessage {
	long := field64(strings.Repeat("x", 64)) // text without a zero at its end
	return []goldenMessage{
		{1, as(alg.AsStartControlConnectionRequest), raw(t, "009c 0001 1a2b3c4d 0001 0000", "0100 beef 00000003 00000002 ffff 0102", field64("host"), field64("vendor\x00rest")),
			values{"ProtocolVersion": 0x100, "Reserved1": 0xbeef, "FramingCapabilities": 3, "BearerCapabilities": 2, "MaximumChannels": 0xffff, "FirmwareRevision": 0x102, "HostName": "host", "VendorString": "vendor"}},
		{2, as(alg.AsStartControlConnectionReply), raw(t, "009c 0001 1a2b3c4d 0002 0000", "0100 02 05 00000001 80000002 0001 0203", long, field64("")),
			values{"ProtocolVersion": 0x100, "ResultCode": 2, "ErrorCode": 5, "FramingCapabilities": 1, "BearerCapabilities": uint32(0x80000002), "MaximumChannels": 1, "FirmwareRevision": 0x203, "HostName": string(long), "VendorString": ""}},
		{3, as(alg.AsStopControlConnectionRequest), raw(t, "0010 0001 1a2b3c4d 0003 0000", "03 0a 0b0c"),
			values{"Reason": 3, "Reserved1": 0x0a, "Reserved2": 0x0b0c}},
		{4, as(alg.AsStopControlConnectionReply), raw(t, "0010 0001 1a2b3c4d 0004 0000", "01 02 0304"),
			values{"ResultCode": 1, "ErrorCode": 2, "Reserved1": 0x304}},
		{5, as(alg.AsEchoRequest), raw(t, "0010 0001 1a2b3c4d 0005 0000", "deadbeef"),
			values{"Identifier": uint32(0xdeadbeef)}},
		{6, as(alg.AsEchoReply), raw(t, "0014 0001 1a2b3c4d 0006 0000", "feedface 01 06 0708"),
			values{"Identifier": uint32(0xfeedface), "ResultCode": 1, "ErrorCode": 6, "Reserved1": 0x708}},
		{7, as(alg.AsOutgoingCallRequest), raw(t, "00a8 0001 1a2b3c4d 0007 0000", "1234 5678 0000012c 05f5e100 00000003 00000001 0040 000a 0005 1122", field64("12345"), field64("sub")),
			values{"CallID": 0x1234, "CallSerialNumber": 0x5678, "MinimumBPS": 300, "MaximumBPS": 100000000, "BearerType": 3, "FramingType": 1, "ReceiveWindow": 64, "ProcessingDelay": 10, "PhoneNumberLength": 5, "Reserved1": 0x1122, "PhoneNumber": "12345", "Subaddress": "sub"}},
		{8, as(alg.AsOutgoingCallReply), raw(t, "0020 0001 1a2b3c4d 0008 0000", "0080 ff01 02 04 0a0b 0000fa00 0003 0004 01020304"),
			values{"CallID": 0x80, "PeerCallID": 0xff01, "ResultCode": 2, "ErrorCode": 4, "CauseCode": 0xa0b, "ConnectSpeed": 64000, "ReceiveWindow": 3, "ProcessingDelay": 4, "PhysicalChannelID": 0x1020304}},
		{9, as(alg.AsIncomingCallRequest), raw(t, "00dc 0001 1a2b3c4d 0009 0000", "0100 0002 00000001 00000007 0003 0004", field64("110"), field64("0815"), field64("s")),
			values{"CallID": 0x100, "CallSerialNumber": 2, "BearerType": 1, "PhysicalChannelID": 7, "DialedNumberLength": 3, "DialingNumberLength": 4, "DialedNumber": "110", "DialingNumber": "0815", "Subaddress": "s"}},
		{10, as(alg.AsIncomingCallReply), raw(t, "0018 0001 1a2b3c4d 000a 0000", "0001 0203 04 05 0607 0809 0a0b"),
			values{"CallID": 1, "PeerCallID": 0x203, "ResultCode": 4, "ErrorCode": 5, "ReceiveWindow": 0x607, "TransitDelay": 0x809, "Reserved1": 0xa0b}},
		{11, as(alg.AsIncomingCallConnected), raw(t, "001c 0001 1a2b3c4d 000b 0000", "fffe 1011 00010000 1213 1415 00000002"),
			values{"PeerCallID": 0xfffe, "Reserved1": 0x1011, "ConnectSpeed": 0x10000, "ReceiveWindow": 0x1213, "TransitDelay": 0x1415, "FramingType": 2}},
		{12, as(alg.AsCallClearRequest), raw(t, "0010 0001 1a2b3c4d 000c 0000", "abcd ef01"),
			values{"CallID": 0xabcd, "Reserved1": 0xef01}},
		{13, as(alg.AsCallDisconnectNotify), raw(t, "0094 0001 1a2b3c4d 000d 0000", "0102 04 05 0607 0809", field128("statistics")),
			values{"CallID": 0x102, "ResultCode": 4, "ErrorCode": 5, "CauseCode": 0x607, "Reserved1": 0x809, "CallStatistics": "statistics"}},
		{14, as(alg.AsWANErrorNotify), raw(t, "0028 0001 1a2b3c4d 000e 0000", "7f80 0102 00000001 00000002 00000003 00000004 00000005 ffffffff"),
			values{"PeerCallID": 0x7f80, "Reserved1": 0x102, "CRCErrors": 1, "FramingErrors": 2, "HardwareOverruns": 3, "BufferOverruns": 4, "TimeoutErrors": 5, "AlignmentErrors": uint32(0xffffffff)}},
		{15, as(alg.AsSetLinkInfo), raw(t, "0018 0001 1a2b3c4d 000f 0000", "8001 0203 ffffffff 000a0000"),
			values{"PeerCallID": 0x8001, "Reserved1": 0x203, "SendACCM": uint32(0xffffffff), "ReceiveACCM": 0xa0000}},
	}
}

type values map[string]any

type goldenMessage struct {
	typ   alg.MessageType
	view  func([]byte) (reflect.Value, bool)
	bytes []byte
	want  values
}

func as[V any](f func([]byte) (V, bool)) func([]byte) (reflect.Value, bool) {
	return func(b []byte) (reflect.Value, bool) {
		v, ok := f(b)
		return reflect.ValueOf(v), ok
	}
}

// getters calls f for every method of a view that reads a field.
func getters(v reflect.Value, f func(name string, value string)) {
	for i := range v.NumMethod() {
		m := v.Type().Method(i)
		if m.Name != "Header" && v.Method(i).Type().NumIn() == 0 {
			f(m.Name, fmt.Sprint(v.Method(i).Call(nil)[0]))
		}
	}
}

func TestViewsReadWhatTheRFCSays(t *testing.T) {
	for _, g := range golden(t) {
		v, ok := g.view(g.bytes)
		if !ok {
			t.Errorf("%v: not recognised", g.typ)
			continue
		}
		seen := 0
		getters(v, func(name, got string) {
			want, ok := g.want[name]
			if !ok {
				t.Errorf("%v: %s is not in the golden values", g.typ, name)
			} else if got != fmt.Sprint(want) {
				t.Errorf("%v: %s is %s, want %v", g.typ, name, got, want)
			}
			seen++
		})
		if seen != len(g.want) {
			t.Errorf("%v: %d getters, %d golden values", g.typ, seen, len(g.want))
		}
		h, ok := alg.AsHeader(g.bytes)
		if !ok || int(h.Length()) != len(g.bytes) || h.Kind() != 1 || h.MagicCookie() != 0x1a2b3c4d || h.Type() != g.typ || h.Reserved0() != 0 {
			t.Errorf("%v: header %v", g.typ, h)
		}
		if g.typ.Length() != len(g.bytes) || g.typ.Length() != lengths[g.typ] {
			t.Errorf("%v: length %d, golden %d", g.typ, g.typ.Length(), len(g.bytes))
		}
	}
}

// TestViewsWriteInPlace changes Call IDs: the getters see it, and no other
// byte changes.
func TestViewsWriteInPlace(t *testing.T) {
	places := map[alg.MessageType][2]int{7: {12}, 8: {12, 14}, 9: {12}, 10: {12, 14}, 11: {0, 12}, 12: {12}, 13: {12}, 14: {0, 12}, 15: {0, 12}}
	for _, g := range golden(t) {
		for i, name := range []string{"CallID", "PeerCallID"} {
			b := bytes.Clone(g.bytes)
			v, _ := g.view(b)
			set := v.MethodByName("Set" + name)
			at := places[g.typ][i]
			if set.IsValid() != (at != 0) {
				t.Errorf("%v: Set%s exists: %v", g.typ, name, set.IsValid())
			}
			if at == 0 {
				continue
			}
			set.Call([]reflect.Value{reflect.ValueOf(uint16(0xc0de))})
			want := bytes.Clone(g.bytes)
			want[at], want[at+1] = 0xc0, 0xde
			if !bytes.Equal(b, want) {
				t.Errorf("%v: Set%s made\n%x\nwant\n%x", g.typ, name, b, want)
			}
			if got := v.MethodByName(name).Call(nil)[0].Uint(); got != 0xc0de {
				t.Errorf("%v: %s is %#x", g.typ, name, got)
			}
		}
	}
}

func TestViewsRefuseWhatIsNotWhole(t *testing.T) {
	all := golden(t)
	for _, g := range all {
		for n := range g.bytes {
			if _, ok := g.view(g.bytes[:n]); ok {
				t.Errorf("%v: %d bytes are enough", g.typ, n)
			}
		}
		for at, b := range map[int]byte{1: g.bytes[1] - 1, 3: 2, 4: 0x1b, 9: byte(g.typ%15 + 1)} {
			bad := bytes.Clone(g.bytes)
			bad[at] = b
			if _, ok := g.view(bad); ok {
				t.Errorf("%v: byte %d may be %#x", g.typ, at, b)
			}
		}
		longer := append(bytes.Clone(g.bytes), 1, 2, 3)
		if v, ok := g.view(longer); !ok || v.Len() != len(g.bytes) {
			t.Errorf("%v: with the next message behind it: %v, %d bytes", g.typ, ok, v.Len())
		}
		longer[1] += 3
		if v, ok := g.view(longer); !ok || v.Len() != len(longer) {
			t.Errorf("%v: longer than known: %v", g.typ, ok)
		}
	}
	if _, ok := alg.AsHeader(raw(t, "000b 0001 1a2b3c4d 0005 0000")); ok {
		t.Error("a message may be shorter than its header")
	}
}

// FuzzViews: any view of any bytes can be read.
func FuzzViews(f *testing.F) {
	for _, g := range golden(f) {
		f.Add(g.bytes)
	}
	all := golden(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		kept := bytes.Clone(b)
		recognised := 0
		for _, g := range all {
			if v, ok := g.view(b); ok {
				recognised++
				getters(v, func(string, string) {})
				if v.Len() < g.typ.Length() {
					t.Errorf("%v of %d bytes", g.typ, v.Len())
				}
			}
		}
		if recognised > 1 {
			t.Errorf("%x is %d messages", b, recognised)
		}
		if !bytes.Equal(b, kept) {
			t.Error("reading writes")
		}
	})
}
