package replay

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/pcap"
)

// IP protocols.
const (
	protocolICMP = 1
	protocolTCP  = 6
	protocolGRE  = 47
)

// Sizes of headers without options, in bytes.
const (
	ipHeader  = 20
	tcpHeader = 20
	greHeader = 8 // of enhanced GRE with its key
)

// Reasons why a packet can't be read.
var (
	errIP    = errors.New("the IP header is impossible")
	errShort = errors.New("the capture cut the headers off")
	errTCP   = errors.New("the TCP header is impossible")
)

// datagram is an IPv4 packet of the capture.
type datagram struct {
	src, dst netip.Addr
	protocol byte
	id       uint16
	ttl      byte
	fragment bool // one of several, or the first of them
	first    bool // its payload begins with the protocol's header
	total    int  // length of the packet as it was sent
	bytes    []byte
	header   int // length of the IP header
}

// payload is what was captured behind the IP header.
func (d *datagram) payload() []byte { return d.bytes[d.header:] }

// parseIP reads an IPv4 header. b may be longer than the packet, since Ethernet
// pads, or shorter, where the capture cut it; length is how long it was.
func parseIP(b []byte, length int) (datagram, error) {
	if len(b) < ipHeader {
		return datagram{}, errShort
	}
	d := datagram{
		protocol: b[9], ttl: b[8], id: binary.BigEndian.Uint16(b[4:]),
		src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])),
		header: int(b[0]&0xf) * 4,
		total:  int(binary.BigEndian.Uint16(b[2:])),
	}
	at := binary.BigEndian.Uint16(b[6:])
	d.fragment, d.first = at&0x3fff != 0, at&0x1fff == 0
	if d.total == 0 {
		d.total = length // captured before the network card cut it into packets
	}
	switch {
	case d.header < ipHeader || d.total < d.header || d.total > length || d.total > pcap.Snap:
		return datagram{}, errIP
	case len(b) < d.header:
		return datagram{}, errShort
	}
	d.bytes = b[:min(len(b), d.total)]
	return d, nil
}

// packetIP reads the IPv4 packet of a captured one. ok is false for everything
// that is not IPv4.
func packetIP(p *pcap.Packet) (d datagram, ok bool, err error) {
	b, ok := p.IPv4()
	if !ok {
		return d, false, nil
	}
	d, err = parseIP(b, p.Length-(len(p.Data)-len(b)))
	return d, true, err
}

// gre is a header of protocol 47.
type gre struct {
	enhanced bool // version 1: PPTP's (RFC 2637, section 4.1)
	callID   uint16
	payload  bool // it carries a packet, not an acknowledgement only
	err      string
}

// parseGRE reads a GRE header, of which at least the key must be there.
func parseGRE(b []byte) gre {
	if len(b) < greHeader {
		return gre{err: "the GRE header is cut"}
	}
	flags := binary.BigEndian.Uint16(b)
	if flags&7 != 1 {
		return gre{}
	}
	g := gre{enhanced: true, callID: binary.BigEndian.Uint16(b[6:]), payload: flags&0x1000 != 0}
	switch {
	case binary.BigEndian.Uint16(b[2:]) != 0x880b:
		g.err = "enhanced GRE that carries no PPP"
	case flags&0x2000 == 0:
		g.err = "enhanced GRE without a key"
	}
	return g
}

// setAddress changes an address of an IPv4 packet, at offset 12 or 16, and its
// header's checksum. It returns what TCP's checksum has to be updated by.
func setAddress(ip []byte, at int, to netip.Addr) {
	old, new := [4]byte(ip[at:at+4]), to.As4()
	sum := binary.BigEndian.Uint16(ip[10:])
	for i := range old {
		sum = alg.ReplaceByte(sum, at+i, old[i], new[i])
	}
	binary.BigEndian.PutUint16(ip[10:], sum)
	copy(ip[at:], new[:])
}
