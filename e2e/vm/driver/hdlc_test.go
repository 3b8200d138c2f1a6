package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

// Escaped octets, a frame with an error, and a protocol in one octet.
func TestFrames(t *testing.T) {
	packet := []byte{0xc0, 0x21, 1, 1, 0, 4, flagOctet, escape, 0x11}
	var stream []byte
	stream = append(stream, encode(packet)...)
	broken := encode(packet)
	broken[4] ^= 0x40
	stream = append(stream, broken...)
	r := newFrames(bytes.NewReader(append(stream, encode([]byte{0x21, 0x45})...)))
	for _, want := range [][]byte{packet, {0, 0x21, 0x45}} {
		if got, err := r.next(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %x, %v, want %x", got, err, want)
		}
	}
	if _, err := r.next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// RFC 1662 gives no example; the checksum is the one of X.25, whose check value
// over "123456789" is 0x906e.
func TestFCS(t *testing.T) {
	if got := ^fcs(0xffff, []byte("123456789")); got != 0x906e {
		t.Errorf("checksum %#x", got)
	}
}

func TestFramesOfAllOctets(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		packet := make([]byte, 3+r.IntN(200))
		for i := range packet {
			packet[i] = byte(r.Uint32())
		}
		packet[0] = 0xc0
		frame := encode(packet)
		if i := bytes.IndexFunc(frame, func(r rune) bool { return r < 0x20 }); i >= 0 {
			t.Fatalf("a control character at %d of %x", i, frame)
		}
		if got, err := newFrames(bytes.NewReader(frame)).next(); err != nil || !bytes.Equal(got, packet) {
			t.Fatalf("%x came back as %x, %v", packet, got, err)
		}
	}
}
