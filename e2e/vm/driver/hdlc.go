package main

import (
	"bufio"
	"bytes"
	"io"
)

// Asynchronous framing of PPP (RFC 1662 section 4), which pppd speaks on a
// terminal.
const (
	flagOctet  = 0x7e
	escape     = 0x7d
	flip       = 0x20
	goodFCS    = 0xf0b8 // the checksum over a frame and its own checksum
	allStation = 0xff
	control03  = 0x03
)

// fcs is the checksum of RFC 1662 appendix C.2, begun with 0xffff.
func fcs(sum uint16, b []byte) uint16 {
	for _, c := range b {
		sum ^= uint16(c)
		for range 8 {
			if sum&1 != 0 {
				sum = sum>>1 ^ 0x8408
			} else {
				sum >>= 1
			}
		}
	}
	return sum
}

// encode frames a PPP packet that begins with its protocol. All control
// characters are escaped, which every receiver has to understand.
func encode(packet []byte) []byte {
	frame := append([]byte{allStation, control03}, packet...)
	sum := ^fcs(0xffff, frame)
	frame = append(frame, byte(sum), byte(sum>>8))
	out := make([]byte, 1, 2*len(frame)+2)
	out[0] = flagOctet
	for _, c := range frame {
		if c < 0x20 || c == flagOctet || c == escape {
			out = append(out, escape, c^flip)
		} else {
			out = append(out, c)
		}
	}
	return append(out, flagOctet)
}

// frames takes packets off a stream.
type frames struct{ r *bufio.Reader }

func newFrames(r io.Reader) *frames { return &frames{bufio.NewReader(r)} }

// next gives the next packet, its protocol in two octets at the beginning.
// Broken frames are left out.
func (f *frames) next() ([]byte, error) {
	for {
		line, err := f.r.ReadBytes(flagOctet)
		if err != nil {
			return nil, err
		}
		frame := unescape(line[:len(line)-1])
		if len(frame) < 4 || fcs(0xffff, frame) != goodFCS {
			continue
		}
		packet := bytes.TrimPrefix(frame[:len(frame)-2], []byte{allStation, control03})
		if len(packet) > 0 && packet[0]&1 != 0 { // a protocol in one octet
			packet = append([]byte{0}, packet...)
		}
		return packet, nil
	}
}

func unescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == escape && i+1 < len(b) {
			i++
			c = b[i] ^ flip
		}
		out = append(out, c)
	}
	return out
}
