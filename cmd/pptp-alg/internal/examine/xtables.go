package examine

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// This file knows what xtables' matches mean, as far as a call's packets are known: those
// of iptables over nftables (nft_compat) and of its older tables.

// An xmatch is one match of a rule, as the kernel has it.
type xmatch struct {
	name     string
	revision uint32
	info     []byte
}

// headMatch is the name that this package gives to what every rule of the older tables
// begins with, a struct ipt_ip: addresses, devices and protocol.
const headMatch = "head"

// matches evaluates a match for a packet.
func (m *xmatch) matches(p packet) answer {
	switch {
	case m.name == "comment":
		return yes
	case m.name == headMatch && len(m.info) == sizeofHead:
		return matchHead(m.info, p)
	case m.name == "conntrack" && m.revision >= 1 && len(m.info) >= 154:
		return matchState(m.info, m.revision, p)
	case m.name == "tcp" && len(m.info) >= 12:
		return matchTCP(m.info, p)
	case m.name == "multiport" && m.revision == 1 && len(m.info) >= 48:
		return matchMultiport(m.info, p)
	}
	return maybe
}

// matchHead reads struct ipt_ip (linux/netfilter_ipv4/ip_tables.h).
func matchHead(b []byte, p packet) answer {
	const (
		fragment      = 0x01 // IPT_F_FRAG: matches second and further fragments only
		protocolOther = 0x40 // IPT_INV_PROTO
	)
	protocol, flags, inverse := binary.NativeEndian.Uint16(b[80:]), b[82], b[83]
	if protocol != 0 && (protocol == uint16(p.protocol)) == (inverse&protocolOther != 0) {
		return no
	}
	if slices.ContainsFunc(b[8:16], notZero) || flags&fragment != 0 { // masks of addresses
		return maybe
	}
	in := matchDevice(b[16:32], b[48:64], p.in, inverse&0x01 != 0)
	return in.and(matchDevice(b[32:48], b[64:80], p.out, inverse&0x02 != 0))
}

// matchDevice compares a device's name with one of which a mask says how much counts.
func matchDevice(name, mask []byte, d device, inverse bool) answer {
	if !slices.ContainsFunc(mask, notZero) {
		return yes
	}
	is := d.padded()
	if is == nil {
		return maybe
	}
	same := true
	for i := range mask {
		same = same && (is[i]^name[i])&mask[i] == 0
	}
	return truth(same != inverse)
}

func notZero(b byte) bool { return b != 0 }

// matchState reads struct xt_conntrack_mtinfo1 to 3 (linux/netfilter/xt_conntrack.h). The
// bits of the states are those of `ct state`.
func matchState(b []byte, revision uint32, p packet) answer {
	const (
		byState = 1       // XT_CONNTRACK_STATE
		alias   = 1 << 13 // XT_CONNTRACK_STATE_ALIAS: it was written as -m state
		snat    = 1 << 6  // XT_CONNTRACK_STATE_SNAT and _DNAT, which are no states
		dnat    = 1 << 7
	)
	flags, inverse := binary.NativeEndian.Uint16(b[146:]), binary.NativeEndian.Uint16(b[148:])
	mask := uint32(b[150])
	if revision >= 2 {
		mask = uint32(binary.NativeEndian.Uint16(b[150:]))
	}
	if flags&^alias != byState || p.state == 0 {
		return maybe
	}
	a := truth(p.state&mask != 0)
	if a == no && mask&(snat|dnat) != 0 {
		return maybe
	}
	if inverse&byState != 0 {
		a = yes - a
	}
	return a
}

// within is whether a port is in a range; 0 is a port that is not known.
func within(port, first, last uint16) answer {
	switch {
	case first == 0 && last == 0xffff:
		return yes
	case port == 0:
		return maybe
	}
	return truth(port >= first && port <= last)
}

// matchTCP reads struct xt_tcp (linux/netfilter/xt_tcpudp.h).
func matchTCP(b []byte, p packet) answer {
	if p.protocol != unix.IPPROTO_TCP {
		return no
	}
	port := func(i int) uint16 { return binary.NativeEndian.Uint16(b[i:]) }
	option, flagMask, flagsSet, inverse := b[8], b[9], b[10], b[11]
	source, dest := within(p.source, port(0), port(2)), within(p.dest, port(4), port(6))
	if inverse&1 != 0 {
		source = yes - source
	}
	if inverse&2 != 0 {
		dest = yes - dest
	}
	a := source.and(dest)
	if flagMask != 0 && p.flags != 0 {
		a = a.and(truth((p.flags&flagMask == flagsSet) == (inverse&4 == 0)))
	} else if flagMask != 0 {
		a = a.and(maybe)
	}
	if option != 0 {
		a = a.and(maybe)
	}
	return a
}

// matchMultiport reads struct xt_multiport_v1 (linux/netfilter/xt_multiport.h).
func matchMultiport(b []byte, p packet) answer {
	if p.protocol != unix.IPPROTO_TCP {
		return maybe // of protocols with ports it looks at others too; GRE has none
	}
	flags, count, inverse := b[0], int(b[1]), b[47] != 0
	any := func(port uint16) answer {
		a := no
		for i := 0; i < min(count, 15); i++ {
			first := binary.NativeEndian.Uint16(b[2+2*i:])
			last := first
			if b[32+i] != 0 && i+1 < 15 { // a range: the next is its end
				i++
				last = binary.NativeEndian.Uint16(b[2+2*i:])
			}
			a = max(a, within(port, first, last))
		}
		return a
	}
	var a answer
	switch flags {
	case 0: // source ports
		a = any(p.source)
	case 1:
		a = any(p.dest)
	default:
		a = max(any(p.source), any(p.dest))
	}
	if inverse {
		a = yes - a
	}
	return a
}

// pptpHelper reports whether the data of the target CT (struct xt_ct_target_info and its
// revision 1) gives the kernel's PPTP helper to connections.
func pptpHelper(info []byte) bool {
	const at, size = 12, 16
	return len(info) >= at+size && unix.ByteSliceToString(info[at:at+size]) == "pptp"
}
