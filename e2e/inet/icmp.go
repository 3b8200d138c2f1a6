package inet

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// IPv4 (RFC 791) and ICMP echo (RFC 792).
const (
	ipv4Header  = 20
	icmpHeader  = 8
	protocolOne = 1 // ICMP
	echoReply   = 0
	echoRequest = 8
	ttl         = 64
)

// ErrDatagram is what Parse says of anything that is not an ICMP echo.
var ErrDatagram = errors.New("not an ICMP echo in a whole IPv4 datagram")

// Echo is an ICMP echo request or reply.
type Echo struct {
	Src, Dst netip.Addr
	Reply    bool
	ID, Seq  uint16
	Data     []byte
}

// sum is the Internet checksum (RFC 1071).
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// Datagram gives the bytes of an echo.
func (e Echo) Datagram() []byte {
	b := make([]byte, ipv4Header+icmpHeader+len(e.Data))
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[8], b[9] = ttl, protocolOne
	src, dst := e.Src.As4(), e.Dst.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], sum(b[:ipv4Header]))
	icmp := b[ipv4Header:]
	if icmp[0] = echoRequest; e.Reply {
		icmp[0] = echoReply
	}
	binary.BigEndian.PutUint16(icmp[4:], e.ID)
	binary.BigEndian.PutUint16(icmp[6:], e.Seq)
	copy(icmp[icmpHeader:], e.Data)
	binary.BigEndian.PutUint16(icmp[2:], sum(icmp))
	return b
}

// Parse reads an echo. It checks both checksums: nothing else notices when
// decryption went wrong.
func Parse(b []byte) (Echo, error) {
	if len(b) < ipv4Header || b[0]>>4 != 4 {
		return Echo{}, ErrDatagram
	}
	header, size := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipv4Header || size < header+icmpHeader || size > len(b) || sum(b[:header]) != 0 || b[9] != protocolOne {
		return Echo{}, ErrDatagram
	}
	icmp := b[header:size]
	if sum(icmp) != 0 || icmp[0] != echoRequest && icmp[0] != echoReply {
		return Echo{}, ErrDatagram
	}
	return Echo{Src: netip.AddrFrom4([4]byte(b[12:])), Dst: netip.AddrFrom4([4]byte(b[16:])), Reply: icmp[0] == echoReply,
		ID: binary.BigEndian.Uint16(icmp[4:]), Seq: binary.BigEndian.Uint16(icmp[6:]), Data: icmp[icmpHeader:]}, nil
}

// Answer gives the reply to an echo request for one of the addresses; nil for
// anything else.
func Answer(b []byte, own ...netip.Addr) []byte {
	e, err := Parse(b)
	if err != nil || e.Reply {
		return nil
	}
	for _, a := range own {
		if a == e.Dst {
			e.Src, e.Dst, e.Reply = e.Dst, e.Src, true
			return e.Datagram()
		}
	}
	return nil
}

// Destination gives where a datagram wants to go; the zero address if it is
// none of IPv4.
func Destination(b []byte) netip.Addr {
	if len(b) < ipv4Header || b[0]>>4 != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b[16:]))
}
