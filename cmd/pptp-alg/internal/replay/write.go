package replay

import (
	"encoding/binary"
	"net/netip"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// Where addresses and the checksum are in the headers, in bytes.
const (
	ipSource       = 12
	ipDestination  = 16
	tcpSource      = 0
	tcpDestination = 2
	tcpChecksum    = 16
	greCallID      = 6
)

// write writes a segment as it is on the server's side of the router.
func (r *Replay) write(s *segment) {
	ip := append([]byte(nil), s.ip...)
	sum := s.Checksum
	if s.From == nat.Server && s.outside != nil {
		copy(ip[s.data:], s.outside)
		sum = s.outsideSum
	}
	tcp := ip[int(ip[0]&0xf)*4:]
	if told, real := s.conn.told, s.conn.flow.Client; told != real {
		address, port := ipSource, tcpSource
		if s.From == nat.Server {
			address, port = ipDestination, tcpDestination
		}
		sum = pseudo(sum, real.Addr(), told.Addr())
		setAddress(ip, address, told.Addr())
		for i, b := range [2]byte{byte(told.Port() >> 8), byte(told.Port())} {
			sum = alg.ReplaceByte(sum, i, tcp[port+i], b)
			tcp[port+i] = b
		}
	}
	binary.BigEndian.PutUint16(tcp[tcpChecksum:], sum)
	r.put(ip[:s.captured], len(ip))
}

// pseudo updates TCP's checksum for an address of its pseudo-header.
func pseudo(sum uint16, from, to netip.Addr) uint16 {
	old, new := from.As4(), to.As4()
	for i := range old {
		sum = alg.ReplaceByte(sum, i, old[i], new[i])
	}
	return sum
}

// writeGRE writes a GRE packet of a call, or one of none (f is nil).
func (r *Replay) writeGRE(d *datagram, f *greFlow) {
	if r.o.Out == nil {
		return
	}
	ip := append([]byte(nil), d.bytes...)
	if f != nil {
		told := f.call.conn.told.Addr()
		if f.towards == nat.Server {
			setAddress(ip, ipSource, told)
		} else {
			setAddress(ip, ipDestination, told)
			if at := d.header + greCallID; len(ip) >= at+2 {
				binary.BigEndian.PutUint16(ip[at:], f.told)
			}
		}
	}
	r.put(ip, d.total)
}

func (r *Replay) put(ip []byte, length int) {
	if r.err == nil {
		r.err = r.o.Out.Write(r.now, ip, length)
	}
}
