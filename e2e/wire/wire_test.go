package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/iotest"
)

// The lengths are those printed in RFC 2637's drawings, typed in here a second
// time: Size counts the structures.
func TestSizes(t *testing.T) {
	want := []int{1: 156, 156, 16, 16, 16, 20, 168, 32, 220, 24, 28, 16, 148, 40, 24}
	for typ := Type(1); typ <= 15; typ++ {
		if got := Size(typ); got != want[typ] {
			t.Errorf("%v: %d bytes, RFC 2637 says %d", typ, got, want[typ])
		}
		if got := New(typ).Type(); got != typ {
			t.Errorf("New(%d) is a %v", typ, got)
		}
	}
}

// The positions of the Call IDs, from the RFC's drawings.
func TestCallIDPositions(t *testing.T) {
	own := map[Type]int{7: 12, 8: 12, 9: 12, 10: 12, 12: 12, 13: 12}
	peer := map[Type]int{8: 14, 10: 14, 11: 12, 14: 12, 15: 12}
	for typ := Type(1); typ <= 15; typ++ {
		m := New(typ)
		o, p := CallIDs(m)
		if (o != nil) != (own[typ] != 0) || (p != nil) != (peer[typ] != 0) {
			t.Errorf("%v: own %v peer %v", typ, o, p)
			continue
		}
		if o != nil {
			*o = 0xabcd
		}
		if p != nil {
			*p = 0x1234
		}
		b := Encode(m)
		if o != nil && binary.BigEndian.Uint16(b[own[typ]:]) != 0xabcd {
			t.Errorf("%v: own Call ID is not at %d", typ, own[typ])
		}
		if p != nil && binary.BigEndian.Uint16(b[peer[typ]:]) != 0x1234 {
			t.Errorf("%v: peer's Call ID is not at %d", typ, peer[typ])
		}
	}
}

// One message written out by hand, so that the byte order is pinned too.
func TestKnownBytes(t *testing.T) {
	got := Encode(&OutgoingCallReply{CallID: 0x0102, PeerCallID: 0x0304, Result: 1, ErrorCode: 5, Cause: 0x0607,
		ConnectSpeed: 0x08090a0b, ReceiveWindow: 0x0c0d, Delay: 0x0e0f, PhysicalChannel: 0x10111213})
	want := []byte{0, 32, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 8, 0, 0,
		1, 2, 3, 4, 1, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0x10, 0x11, 0x12, 0x13}
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func randomMessage(r *rand.Rand) Message {
	m := New(Type(1 + r.IntN(15)))
	body := make([]byte, binary.Size(m))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	if err := binary.Read(bytes.NewReader(body), binary.BigEndian, m); err != nil {
		panic(err)
	}
	return m
}

func TestStream(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var all []byte
	var sent []Message
	for range 200 {
		m := randomMessage(r)
		sent = append(sent, m)
		all = append(all, Encode(m)...)
	}
	for name, in := range map[string]io.Reader{
		"whole": bytes.NewReader(all), "halves": iotest.HalfReader(bytes.NewReader(all)),
		"bytes": iotest.OneByteReader(bytes.NewReader(all))} {
		rd := NewReader(in)
		for i, want := range sent {
			got, err := rd.Next()
			if err != nil || !reflect.DeepEqual(got, want) || !bytes.Equal(rd.Raw(), Encode(want)) {
				t.Fatalf("%s: message %d: %v, %v, want %v", name, i, got, err, want)
			}
		}
		if _, err := rd.Next(); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
	if _, err := NewReader(bytes.NewReader(all[:len(all)-1])).Next(); err != nil {
		t.Fatal(err)
	}
	short := NewReader(bytes.NewReader(Encode(sent[0])[:13]))
	if _, err := short.Next(); err != io.ErrUnexpectedEOF {
		t.Errorf("cut message: %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		at   int
		to   byte
		want error
	}{"cookie": {4, 0, ErrCookie}, "length": {1, 17, ErrLength}, "type": {9, 16, ErrType}, "management": {3, 2, ErrType}} {
		b := Encode(&EchoRequest{7})
		b[c.at] = c.to
		if _, _, err := Decode(b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestGRE(t *testing.T) {
	for _, g := range []GRE{
		{CallID: 0x1234, HasAck: true, Ack: 0x01020304, Payload: []byte{}},
		{CallID: 65535, HasSeq: true, Sequence: 1, Payload: []byte("payload")},
		{HasSeq: true, Sequence: 0xffffffff, HasAck: true, Ack: 5, Payload: []byte("p")},
	} {
		got, err := DecodeGRE(EncodeGRE(g))
		if err != nil || !reflect.DeepEqual(got, g) {
			t.Errorf("%v came back as %v, %v", g, got, err)
		}
	}
	want := []byte{0x30, 0x81, 0x88, 0x0b, 0, 2, 0xaa, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 'h', 'i'}
	if got := EncodeGRE(GRE{CallID: 0xaabb, HasSeq: true, Sequence: 1, HasAck: true, Ack: 2, Payload: []byte("hi")}); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	for name, b := range map[string][]byte{
		"version 0":    {0x30, 0x80, 0x88, 0x0b, 0, 0, 0, 0},
		"protocol":     {0x30, 0x81, 0x08, 0x00, 0, 0, 0, 0},
		"checksum bit": {0xb0, 0x81, 0x88, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"no key":       {0x00, 0x81, 0x88, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0},
		"length":       {0x30, 0x01, 0x88, 0x0b, 0, 9, 0, 0, 0, 0, 0, 1, 'x'},
		"short":        {0x30, 0x81, 0x88, 0x0b, 0, 0, 0, 0, 0, 0}, "nothing": {}} {
		if g, err := DecodeGRE(b); err == nil {
			t.Errorf("%s: accepted as %v", name, g)
		}
	}
}
