package queue

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Why a packet is not a segment for us. They are values so that no packet can
// cost an allocation or a line in the log.
var (
	errMalformed = errors.New("malformed")
	errFragment  = errors.New("fragment")
	errNotTCP    = errors.New("not IPv4 TCP")
	errTruncated = errors.New("longer than the queue copies")
)

// Headers without options, in bytes (RFC 791, section 3.1; RFC 9293, section
// 3.1), and what else of IPv4 is looked at.
const (
	minIPHeader  = 20
	minTCPHeader = 20

	fragmented  = 0x3fff // more fragments, or a fragment offset
	protocolTCP = 6
)

// decode fills the decoded fields of p from p.Data. It allocates nothing.
//
// By hand and not with gopacket, whose layers are there for a hundred other
// protocols: their tables would be a fifth of the program and half of its
// resident memory. A fuzz test compares the two.
func decode(p *Packet) error {
	ip := p.Data
	if len(ip) == 0 {
		return errMalformed
	}
	if ip[0]>>4 != 4 {
		return errNotTCP
	}
	if len(ip) < minIPHeader {
		return errMalformed
	}
	header, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	switch {
	case header < minIPHeader, total < header:
		// A total length of 0 would be an offloaded packet. None arrives here, see
		// the package comment, and conntrack lets no such packet through.
		return errMalformed
	case binary.BigEndian.Uint16(ip[6:])&fragmented != 0:
		return errFragment
	case ip[9] != protocolTCP:
		return errNotTCP
	case total > len(ip): // the packet was cut
		return errMalformed
	}
	tcp := ip[header:total] // without the link layer's padding
	if len(tcp) < minTCPHeader {
		return errMalformed
	}
	// Options are not looked at. Receivers such as Linux ignore those they cannot
	// read and take the payload, so it belongs to the stream.
	offset := int(tcp[12]>>4) * 4
	if offset < minTCPHeader || offset > len(tcp) {
		return errMalformed
	}
	p.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:])), binary.BigEndian.Uint16(tcp[0:]))
	p.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:])), binary.BigEndian.Uint16(tcp[2:]))
	p.Seq, p.Ack = binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:])
	p.Flags = Flags(tcp[13]) & (FIN | SYN | RST | PSH | ACK | URG)
	p.Payload = tcp[offset:]
	p.tcp = header
	return nil
}
