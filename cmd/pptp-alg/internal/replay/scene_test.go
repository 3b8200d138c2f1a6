package replay

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/pcap"
	"pptp-alg/nat"
)

var (
	be     = binary.BigEndian
	start  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	server = netip.MustParseAddrPort("198.51.100.2:1723")
	public = netip.MustParseAddr("203.0.113.1")
)

// scene makes a capture, packet by packet.
type scene struct {
	t       testing.TB
	now     time.Time
	packets []pcap.Packet
	ids     uint16
	snap    int // bytes of a packet that are captured; 0: all
}

func newScene(t testing.TB) *scene { return &scene{t: t, now: start} }

// ip adds a packet.
func (s *scene) ip(src, dst netip.Addr, protocol byte, payload []byte) {
	s.raw(src, dst, protocol, 0, payload)
}

// raw adds a packet with a fragment field.
func (s *scene) raw(src, dst netip.Addr, protocol byte, fragment uint16, payload []byte) {
	s.ids++
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, protocol
	be.PutUint16(b[2:], uint16(20+len(payload)))
	be.PutUint16(b[4:], s.ids)
	be.PutUint16(b[6:], fragment)
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	be.PutUint16(b[10:], checksum(b))
	s.add(append(b, payload...))
}

// add adds what is an IPv4 packet, or not.
func (s *scene) add(b []byte) {
	p := pcap.Packet{Time: s.now, Link: pcap.Raw, Data: b, Length: len(b)}
	if s.snap > 0 {
		p.Data = b[:min(len(b), s.snap)]
	}
	s.packets = append(s.packets, p)
	s.now = s.now.Add(10 * time.Millisecond)
}

// checksum is the Internet checksum, from scratch (RFC 1071).
func checksum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, b := range parts {
		for i, v := range b {
			if i&1 == 0 {
				sum += uint32(v) << 8
			} else {
				sum += uint32(v)
			}
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// tcp is a TCP connection of a scene.
type tcp struct {
	*scene
	ends [2]netip.AddrPort
	seq  [2]uint32 // next
}

func (s *scene) dial(client string, isn uint32) *tcp {
	return &tcp{s, [2]netip.AddrPort{netip.MustParseAddrPort(client), server}, [2]uint32{isn, isn ^ 0x55555555}}
}

// open is dial and the handshake.
func (s *scene) open(client string, isn uint32) *tcp {
	c := s.dial(client, isn)
	c.segment(nat.Client, 2, nil)
	c.segment(nat.Server, 2|16, nil)
	c.segment(nat.Client, 16, nil)
	return c
}

// segment adds the next segment of a side's stream.
func (c *tcp) segment(from nat.Side, flags byte, payload []byte) {
	c.at(from, c.seq[from], flags, payload)
	c.seq[from] += uint32(len(payload))
	if flags&3 != 0 {
		c.seq[from]++
	}
}

// at adds a segment anywhere in it.
func (c *tcp) at(from nat.Side, seq uint32, flags byte, payload []byte) {
	src, dst := c.ends[from], c.ends[from.Other()]
	b := make([]byte, 20, 20+len(payload))
	be.PutUint16(b, src.Port())
	be.PutUint16(b[2:], dst.Port())
	be.PutUint32(b[4:], seq)
	if flags&16 != 0 {
		be.PutUint32(b[8:], c.seq[from.Other()])
	}
	b[12], b[13] = 0x50, flags
	be.PutUint16(b[14:], 65535)
	b = append(b, payload...)
	pseudo := append(append(src.Addr().AsSlice(), dst.Addr().AsSlice()...), 0, 6, byte(len(b)>>8), byte(len(b)))
	be.PutUint16(b[16:], checksum(pseudo, b))
	c.ip(src.Addr(), dst.Addr(), 6, b)
}

// send sends messages in one segment.
func (c *tcp) send(from nat.Side, messages ...[]byte) {
	c.segment(from, 24, bytes.Join(messages, nil))
}

// gre sends GRE of a call.
func (c *tcp) gre(from nat.Side, callID uint16, n int) {
	for i := range n {
		b := []byte{0x30, 0x01, 0x88, 0x0b, 0, 4, byte(callID >> 8), byte(callID), 0, 0, 0, byte(i), 0xc0, 0x21, 1, byte(i)}
		c.ip(c.ends[from].Addr(), c.ends[from.Other()].Addr(), 47, b)
	}
}

// Messages (RFC 2637, section 2). IDs are put at offset 12, one after the other.
func message(t, length int, ids ...uint16) []byte {
	b := make([]byte, length)
	be.PutUint16(b, uint16(length))
	be.PutUint16(b[2:], 1)
	be.PutUint32(b[4:], 0x1a2b3c4d)
	be.PutUint16(b[8:], uint16(t))
	for i, id := range ids {
		be.PutUint16(b[12+2*i:], id)
	}
	return b
}

func sccrq() []byte {
	b := message(1, 156, 0x0100)
	copy(b[28:], "laptop")
	copy(b[92:], "a vendor\x1b[2J")
	return b
}

func sccrp() []byte {
	b := message(2, 156, 0x0100)
	b[14] = 1
	copy(b[28:], "vpn")
	return b
}

func ocrq(id uint16) []byte { return message(7, 168, id) }

func ocrp(own, peer uint16, result byte) []byte {
	b := message(8, 32, own, peer)
	b[16] = result
	return b
}

func icrq(id uint16) []byte { return message(9, 220, id) }

func icrp(own, peer uint16) []byte {
	b := message(10, 24, own, peer)
	b[16] = 1
	return b
}

func iccn(peer uint16) []byte { return message(11, 28, peer) }
func ccrq(id uint16) []byte   { return message(12, 16, id) }
func sli(peer uint16) []byte  { return message(15, 24, peer) }

func cdn(id uint16) []byte {
	b := message(13, 148, id)
	b[14] = 4
	return b
}

func stop() []byte {
	b := message(3, 16)
	b[12] = 1
	return b
}

// call sets up a call with the given IDs.
func (c *tcp) call(client, server uint16) {
	c.send(nat.Client, sccrq())
	c.send(nat.Server, sccrp())
	c.send(nat.Client, ocrq(client))
	c.send(nat.Server, ocrp(server, client, 1))
	c.send(nat.Client, sli(server))
}

// bye ends a call, and the connection.
func (c *tcp) bye(client, server uint16) {
	c.send(nat.Client, ccrq(client))
	c.send(nat.Server, cdn(server))
	c.send(nat.Client, stop())
	c.segment(nat.Client, 17, nil)
	c.segment(nat.Server, 17, nil)
}

// run replays the scene.
func (s *scene) run(o Options) (events []Event, sum Summary, text string, out []pcap.Packet) {
	s.t.Helper()
	var printed, written bytes.Buffer
	w, err := pcap.NewWriter(&written)
	if err != nil {
		s.t.Fatal(err)
	}
	t := NewText(&printed)
	o.Ports, o.Out = []uint16{1723}, w
	if o.Table.Last == 0 {
		o.Table.First, o.Table.Last = 1, 65535
	}
	o.Table.Timeouts = nat.Timeouts{HalfOpen: 75 * time.Second, Clearing: 15 * time.Second, Grace: 3 * time.Second, Rest: time.Minute}
	o.Report = func(e *Event) { events = append(events, *e); t.Event(e) }
	r := New(o)
	for _, p := range s.packets {
		if err := r.Packet(p); err != nil {
			s.t.Fatal(err)
		}
	}
	sum, err = r.Finish()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := t.Summary(sum); err != nil {
		s.t.Fatal(err)
	}
	return events, sum, printed.String(), read(s.t, written.Bytes())
}

// read reads a capture.
func read(t testing.TB, b []byte) (all []pcap.Packet) {
	t.Helper()
	r, err := pcap.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for {
		p, err := r.Next()
		if err != nil {
			return all
		}
		p.Data = bytes.Clone(p.Data)
		all = append(all, p)
	}
}
