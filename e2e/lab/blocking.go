package lab

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Pieces of firewalls that are in PPTP's way.

// DropGRE drops GRE that comes in from a device.
func DropGRE(in string) Piece {
	return func(f *firewall) {
		f.rule("forward", inDevice(in), protocol(unix.IPPROTO_GRE), just(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}))
	}
}

// RejectGRE answers GRE from a device with "administratively prohibited".
func RejectGRE(in string) Piece {
	return func(f *firewall) {
		f.rule("forward", inDevice(in), protocol(unix.IPPROTO_GRE), just(&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpProhibited}))
	}
}

// DropTCP drops what goes to a TCP port from a device.
func DropTCP(in string, port uint16) Piece {
	return func(f *firewall) {
		f.rule("forward", inDevice(in), tcpTo(port), just(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}))
	}
}

// RejectTCP is DropTCP by a firewall that says so.
func RejectTCP(in string, port uint16) Piece {
	return func(f *firewall) {
		f.rule("forward", inDevice(in), tcpTo(port), just(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpProhibited}))
	}
}

// ForwardGRE sends all GRE that comes in from a device to one inside host, as
// recipes for PPTP behind a router have it.
func ForwardGRE(in string, to Station) Piece {
	return func(f *firewall) {
		f.rule("prerouting", inDevice(in), protocol(unix.IPPROTO_GRE), load(1, to.Address),
			just(&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}))
	}
}

// icmpProhibited is ICMP's code "communication administratively prohibited"
// (RFC 1812 section 5.2.7.1).
const icmpProhibited = 13

func protocol(number byte) []expr.Any {
	return just(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}})
}
