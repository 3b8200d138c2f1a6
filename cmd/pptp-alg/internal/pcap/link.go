package pcap

import "encoding/binary"

// Protocol numbers in front of IPv4.
const (
	etherIPv4    = 0x0800
	etherVLAN    = 0x8100
	etherQinQ    = 0x88a8
	etherQinQOld = 0x9100
	etherPPPoE   = 0x8864
	pppIPv4      = 0x0021
	familyIPv4   = 2
)

// Known reports whether packets of the link type can be read.
func (l LinkType) Known() bool {
	switch l {
	case Null, Ethernet, PPP, RawBSD, RawBSD2, PPPSerial, PPPEther, Raw, Loop, LinuxSLL, RawIPv4, LinuxSLL2:
		return true
	}
	return false
}

// IPv4 returns what follows a packet's link-layer header, if that is IPv4. VLAN
// tags and PPPoE are passed over.
func (p *Packet) IPv4() ([]byte, bool) {
	b := p.Data
	switch p.Link {
	case Raw, RawBSD, RawBSD2, RawIPv4:
		return ipv4(b)
	case Ethernet:
		if len(b) < 14 {
			return nil, false
		}
		return ether(binary.BigEndian.Uint16(b[12:]), b[14:])
	case LinuxSLL:
		if len(b) < 16 {
			return nil, false
		}
		return ether(binary.BigEndian.Uint16(b[14:]), b[16:])
	case LinuxSLL2:
		if len(b) < 20 {
			return nil, false
		}
		return ether(binary.BigEndian.Uint16(b), b[20:])
	case PPP, PPPSerial:
		return ppp(b)
	case PPPEther:
		return pppoe(b)
	case Null, Loop:
		if len(b) < 4 || binary.BigEndian.Uint32(b) != familyIPv4 && (p.Link == Loop || binary.LittleEndian.Uint32(b) != familyIPv4) {
			return nil, false
		}
		return ipv4(b[4:])
	}
	return nil, false
}

// ether goes on behind an EtherType.
func ether(t uint16, b []byte) ([]byte, bool) {
	for range 4 {
		switch t {
		case etherIPv4:
			return ipv4(b)
		case etherPPPoE:
			return pppoe(b)
		case etherVLAN, etherQinQ, etherQinQOld:
			if len(b) < 4 {
				return nil, false
			}
			t, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		default:
			return nil, false
		}
	}
	return nil, false
}

// pppoe goes on behind the EtherType of a PPPoE session (RFC 2516, section 4).
func pppoe(b []byte) ([]byte, bool) {
	if len(b) < 6 || b[0] != 0x11 || b[1] != 0 {
		return nil, false
	}
	return ppp(b[6:])
}

// ppp goes on behind the flag of a PPP frame: address and control may be there
// or not, the protocol may be compressed (RFC 1661, section 6).
func ppp(b []byte) ([]byte, bool) {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 {
		b = b[2:]
	}
	switch {
	case len(b) >= 1 && b[0] == pppIPv4:
		return ipv4(b[1:])
	case len(b) >= 2 && binary.BigEndian.Uint16(b) == pppIPv4:
		return ipv4(b[2:])
	}
	return nil, false
}

func ipv4(b []byte) ([]byte, bool) { return b, len(b) > 0 && b[0]>>4 == 4 }
