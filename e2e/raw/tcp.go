package raw

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Flags of a segment.
type Flags uint8

// The flags as in the TCP header (RFC 9293 section 3.1).
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Segment is a TCP segment of a connection. Offsets are positions in the two
// streams: 0 is the first byte after the SYN, which itself is at -1.
type Segment struct {
	Offset  int
	Flags   Flags
	Ack     int // position expected next; of no account without ACK
	Payload []byte
	// Checksum, if not nil, is the checksum that the segment shall have: the
	// urgent pointer, which nobody reads without its flag, makes it so.
	Checksum *uint16
	// Corrupt makes the checksum wrong.
	Corrupt bool
}

// window is what the host says it can take, with no scaling.
const window = 65535

// Conn is one end of a TCP connection.
type Conn struct {
	host *Host
	key  connKey
	iss  uint32 // own initial sequence number
	irs  uint32 // the other side's
	open bool   // the handshake is over

	next    int // own stream: position of the next Write
	acked   int // position that the other side expects next
	seen    []Segment
	stream  []byte         // the other side's stream without gaps
	pending map[int][]byte // beyond a gap
	fin     int            // position of the other side's FIN, or -1
	reset   bool
}

// Options of a connection that is about to be made.
type Options struct {
	LocalPort uint16 // 0: some port
	Sequence  uint32 // own initial sequence number
	Data      []byte // to put into the SYN
}

func (h *Host) newConn(key connKey, iss uint32) *Conn {
	c := &Conn{host: h, key: key, iss: iss, pending: map[int][]byte{}, fin: -1}
	h.conns[key] = c
	return c
}

// Dial makes a connection. The SYN is repeated until it is answered.
func (h *Host) Dial(ctx context.Context, to netip.AddrPort, o Options) (*Conn, error) {
	h.mu.Lock()
	for port := uint16(40000); o.LocalPort == 0; port++ {
		if h.conns[connKey{port, to}] == nil {
			o.LocalPort = port
		}
	}
	c := h.newConn(connKey{o.LocalPort, to}, o.Sequence)
	h.mu.Unlock()
	for {
		if err := c.SendSegment(Segment{Offset: -1, Flags: SYN, Payload: o.Data}); err != nil {
			return nil, err
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		err := h.await(short, fmt.Sprintf("connect to %v", to), func() bool { return c.open || c.reset })
		cancel()
		if err == nil && c.reset {
			return nil, fmt.Errorf("connect to %v: refused", to)
		}
		if err == nil || ctx.Err() != nil {
			return c, err
		}
	}
}

// Listener makes connections that others open.
type Listener struct {
	host     *Host
	sequence uint32
	ready    []*Conn
}

// Listen answers connections to a port, with a given initial sequence number.
func (h *Host) Listen(port uint16, sequence uint32) *Listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &Listener{host: h, sequence: sequence}
	h.listening[port] = l
	return l
}

// Accept waits for the next connection.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	var c *Conn
	err := l.host.await(ctx, "accept", func() bool {
		if len(l.ready) == 0 {
			return false
		}
		c, l.ready = l.ready[0], l.ready[1:]
		return true
	})
	return c, err
}

// Remote is the other end as seen here.
func (c *Conn) Remote() netip.AddrPort { return c.key.remote }

// header makes a segment's TCP header.
func (c *Conn) header(s Segment, urgent uint16) *layers.TCP {
	t := &layers.TCP{SrcPort: layers.TCPPort(c.key.local), DstPort: layers.TCPPort(c.key.remote.Port()),
		Seq: c.iss + 1 + uint32(s.Offset), Window: window, Urgent: urgent,
		FIN: s.Flags&FIN != 0, SYN: s.Flags&SYN != 0, RST: s.Flags&RST != 0, PSH: s.Flags&PSH != 0, ACK: s.Flags&ACK != 0}
	if t.ACK {
		t.Ack = c.irs + 1 + uint32(s.Ack)
	}
	return t
}

// SendSegment sends exactly this segment.
func (c *Conn) SendSegment(s Segment) error {
	build := func(urgent uint16) *layers.TCP { return c.header(s, urgent) }
	urgent := uint16(0)
	if s.Checksum != nil || s.Corrupt {
		var err error
		if urgent, err = c.urgentFor(build(0), s); err != nil {
			return err
		}
	}
	if s.Checksum != nil || s.Corrupt {
		return c.sendWithChecksum(build(urgent), s)
	}
	return c.host.send(c.key.remote.Addr(), layers.IPProtocolTCP, build(urgent), gopacket.Payload(s.Payload))
}

// segmentBytes gives the segment as it goes into an IP packet.
func (c *Conn) segmentBytes(t *layers.TCP, payload []byte) ([]byte, *layers.IPv4, error) {
	ip := &layers.IPv4{Protocol: layers.IPProtocolTCP, SrcIP: c.host.address.AsSlice(), DstIP: c.key.remote.Addr().AsSlice()}
	if err := t.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, nil, err
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, t, gopacket.Payload(payload))
	return bytes.Clone(buf.Bytes()), ip, err
}

// tcpChecksumAt is the checksum's place in the header.
const tcpChecksumAt = 16

// urgentFor finds the urgent pointer that gives the wanted checksum. In one's
// complement arithmetic the checksum is the negative of a sum that the urgent
// pointer is part of, so the wanted pointer is the difference of checksums.
func (c *Conn) urgentFor(t *layers.TCP, s Segment) (uint16, error) {
	if s.Checksum == nil {
		return 0, nil
	}
	b, _, err := c.segmentBytes(t, s.Payload)
	if err != nil {
		return 0, err
	}
	have := uint32(b[tcpChecksumAt])<<8 | uint32(b[tcpChecksumAt+1])
	sum := have + uint32(^*s.Checksum)
	return uint16(sum>>16 + sum), nil
}

// sendWithChecksum writes the checksum itself. That matters for 0xffff, which
// no sender computes but which is as good as 0 in one's complement.
func (c *Conn) sendWithChecksum(t *layers.TCP, s Segment) error {
	b, _, err := c.segmentBytes(t, s.Payload)
	if err != nil {
		return err
	}
	if s.Checksum != nil {
		binary.BigEndian.PutUint16(b[tcpChecksumAt:], *s.Checksum)
	}
	if s.Corrupt {
		b[tcpChecksumAt] ^= 0x55
	}
	return c.host.send(c.key.remote.Addr(), layers.IPProtocolTCP, gopacket.Payload(b))
}

// Send sends bytes at a position of the stream, acknowledging what is there.
func (c *Conn) Send(offset int, b []byte) error {
	return c.SendSegment(Segment{Offset: offset, Flags: PSH | ACK, Ack: c.position(), Payload: b})
}

// position is what this side acknowledges.
func (c *Conn) position() int {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	return c.positionLocked()
}

func (c *Conn) positionLocked() int {
	if c.fin >= 0 && c.fin == len(c.stream) {
		return len(c.stream) + 1
	}
	return len(c.stream)
}

// Write appends to the stream in one segment, repeats it until it is
// acknowledged, and gives the position it started at.
func (c *Conn) Write(ctx context.Context, b []byte) (int, error) {
	c.host.mu.Lock()
	at := c.next
	c.next += len(b)
	c.host.mu.Unlock()
	for {
		if err := c.Send(at, b); err != nil {
			return at, err
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		err := c.WaitAcked(short, at+len(b))
		cancel()
		if err == nil || ctx.Err() != nil {
			return at, err
		}
	}
}

// Finish sends a FIN after the last Write.
func (c *Conn) Finish() error {
	c.host.mu.Lock()
	at := c.next
	c.next++
	c.host.mu.Unlock()
	return c.SendSegment(Segment{Offset: at, Flags: FIN | ACK, Ack: c.position()})
}

// Reset sends a RST after the last Write.
func (c *Conn) Reset() error {
	c.host.mu.Lock()
	at := c.next
	c.host.mu.Unlock()
	return c.SendSegment(Segment{Offset: at, Flags: RST | ACK, Ack: c.position()})
}

// SetNext tells where the next Write starts, after segments sent by hand.
func (c *Conn) SetNext(offset int) {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	c.next = offset
}

// WaitAcked waits until the other side acknowledges all before a position.
func (c *Conn) WaitAcked(ctx context.Context, offset int) error {
	return c.host.await(ctx, fmt.Sprintf("wait for acknowledgement of %d", offset), func() bool { return c.acked >= offset })
}

// Acked is the position that the other side expects next.
func (c *Conn) Acked() int {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	return c.acked
}

// WaitBytes waits for the first n bytes of the other side's stream.
func (c *Conn) WaitBytes(ctx context.Context, n int) ([]byte, error) {
	err := c.host.await(ctx, fmt.Sprintf("wait for %d bytes", n), func() bool { return len(c.stream) >= n })
	stream := c.Received()
	return stream[:min(n, len(stream))], err
}

// Received gives the other side's stream as far as it has no gap.
func (c *Conn) Received() []byte {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	return bytes.Clone(c.stream)
}

// Segments gives every segment that arrived, in order of arrival.
func (c *Conn) Segments() []Segment {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	return append([]Segment(nil), c.seen...)
}

// WaitEnd waits for the other side's FIN or RST.
func (c *Conn) WaitEnd(ctx context.Context) error {
	return c.host.await(ctx, "wait for the end of the connection", func() bool {
		return c.reset || c.fin >= 0 && c.fin == len(c.stream)
	})
}
