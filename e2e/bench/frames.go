package bench

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"pptp-alg/e2e/wire"
)

// tuple is how a GRE packet looks on a wire: addresses, and the Call ID in its
// key.
type tuple struct {
	src, dst netip.Addr
	callID   uint16
}

func (t tuple) String() string { return fmt.Sprintf("%v > %v, Call ID %d", t.src, t.dst, t.callID) }

// Sizes of headers, in bytes.
const (
	ethernetSize = 14
	ipv4Size     = 20
)

// frame builds an Ethernet frame with one enhanced GRE packet that has a
// sequence number and a payload of the given size.
func frame(from, to net.HardwareAddr, t tuple, sequence uint32, payload int) []byte {
	gre := wire.EncodeGRE(wire.GRE{CallID: t.callID, HasSeq: true, Sequence: sequence, Payload: make([]byte, payload)})
	b := make([]byte, 0, ethernetSize+ipv4Size+len(gre))
	b = append(append(b, to...), from...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	ip := [ipv4Size]byte{0: 0x45, 6: 0x40, 8: 64, 9: wire.ProtocolGRE} // no options, DF, TTL 64
	binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Size+len(gre)))
	copy(ip[12:], t.src.AsSlice())
	copy(ip[16:], t.dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:]))
	return append(append(b, ip[:]...), gre...)
}

// parse reads what frame builds, with any payload; ok is false for anything else.
func parse(b []byte) (t tuple, ok bool) {
	if len(b) < ethernetSize+ipv4Size || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IP || b[ethernetSize] != 0x45 {
		return t, false
	}
	ip := b[ethernetSize:]
	size := int(binary.BigEndian.Uint16(ip[2:]))
	if ip[9] != wire.ProtocolGRE || size < ipv4Size || size > len(ip) || checksum(ip[:ipv4Size]) != 0 {
		return t, false
	}
	g, err := wire.DecodeGRE(ip[ipv4Size:size])
	if err != nil {
		return t, false
	}
	return tuple{netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:])), g.CallID}, true
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes; over
// a header with the right checksum in it, it is 0.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
