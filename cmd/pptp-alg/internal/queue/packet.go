package queue

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"sync/atomic"
)

// Flags are the control bits of a TCP segment, as in byte 13 of the header
// (RFC 9293, section 3.1).
type Flags uint8

const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// Has reports whether all bits of f are set.
func (fl Flags) Has(f Flags) bool { return fl&f == f }

// String lists the set bits, such as "PSH,ACK".
func (fl Flags) String() string {
	names := [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"}
	var set []string
	for i, n := range names {
		if fl&(1<<i) != 0 {
			set = append(set, n)
		}
	}
	return strings.Join(set, ",")
}

// A Packet is one TCP segment that waits in the kernel for a verdict.
type Packet struct {
	// ID is the kernel's name for the packet (NFQA_PACKET_HDR). It grows by one
	// with every packet of the queue.
	ID uint32

	// Data is the whole IPv4 packet. The holder may change it and then say so
	// with [Queue.AcceptModified].
	Data []byte

	// Conntrack is the payload of NFQA_CT, nil where the kernel does not offer
	// it or the packet has no conntrack entry.
	Conntrack []byte

	// Mark is the packet's mark (NFQA_MARK), 0 when it has none. Verdicts
	// leave it as it is.
	Mark uint32

	// In and Out are the interface indexes (NFQA_IFINDEX_INDEV and _OUTDEV),
	// 0 where the hook has none.
	In, Out uint32

	// Prerouting says that the packet was taken before it was routed
	// (NFQA_PACKET_HDR), and not behind the filters.
	Prerouting bool

	// Src and Dst are the segment's ends as the hook shows them.
	Src, Dst netip.AddrPort

	Seq, Ack uint32
	Flags    Flags

	// Payload is the TCP payload, a part of Data without the link layer's
	// padding. It may be empty.
	Payload []byte

	tcp     int         // where the TCP header begins in Data
	settled atomic.Bool // a verdict was given
}

// checksumOffset is the place of the checksum in the TCP header (RFC 9293,
// section 3.1).
const checksumOffset = 16

// Checksum returns the segment's TCP checksum as it stands in Data.
func (p *Packet) Checksum() uint16 {
	return binary.BigEndian.Uint16(p.Data[p.tcp+checksumOffset:])
}

// SetChecksum writes the TCP checksum. Whoever changes Payload computes the new
// one from the old (RFC 1624); nothing here does.
func (p *Packet) SetChecksum(sum uint16) {
	binary.BigEndian.PutUint16(p.Data[p.tcp+checksumOffset:], sum)
}
