package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// FirewallTable is the name of the table (family ip) that stands for the rules
// a router's owner had before the daemon came.
const FirewallTable = "lab"

// Piece is a part of a router's firewall. Pieces are put together in order:
// what comes first is asked first.
type Piece func(*firewall)

type firewall struct {
	conn  *nftables.Conn
	table *nftables.Table
	made  map[string]*nftables.Chain
}

// The chains that pieces put their rules into.
func (f *firewall) chain(name string) *nftables.Chain {
	if c := f.made[name]; c != nil {
		return c
	}
	accept := nftables.ChainPolicyAccept
	c := &nftables.Chain{Table: f.table, Name: name, Policy: &accept}
	switch name {
	case "prerouting":
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest
	case "postrouting":
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource
	case "forward":
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter
	case "input":
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter
	case "mangle": // before NAT sees a packet
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle
	case "late": // when a packet is routed
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, nftables.ChainHookPostrouting, nftables.ChainPriorityMangle
	default:
		panic("lab: no firewall chain " + name)
	}
	f.made[name] = f.conn.AddChain(c)
	return c
}

func (f *firewall) rule(chain string, parts ...[]expr.Any) {
	r := &nftables.Rule{Table: f.table, Chain: f.chain(chain)}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	f.conn.AddRule(r)
}

// numbering guards google/nftables' count of sets, a variable of that package
// which all labs of a process share.
var numbering sync.Mutex

// Firewall replaces the router's own rules in one transaction.
func (h *Host) Firewall(pieces ...Piece) error {
	numbering.Lock()
	defer numbering.Unlock()
	conn, err := h.nftables()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: FirewallTable}
	conn.AddTable(table) // so that deleting it cannot fail
	conn.DelTable(table)
	f := &firewall{conn: conn, table: conn.AddTable(table), made: map[string]*nftables.Chain{}}
	for _, p := range pieces {
		p(f)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("load firewall of %s: %w", h.name, err)
	}
	return nil
}

// Masquerade hides everything that leaves through a device behind its address.
func Masquerade(out string) Piece {
	return func(f *firewall) { f.rule("postrouting", outDevice(out), just(&expr.Masq{})) }
}

// SNAT hides what leaves through a device behind the addresses from to to
// (give the same twice for one).
func SNAT(out string, from, to netip.Addr) Piece { return snat(out, from, to, expr.NAT{}) }

// SNATPersistent is SNAT that gives a client the same address for every
// connection; SNATRandom chooses ports at random.
func SNATPersistent(out string, from, to netip.Addr) Piece {
	return snat(out, from, to, expr.NAT{Persistent: true})
}

// SNATRandom is SNAT with ports chosen at random.
func SNATRandom(out string, from, to netip.Addr) Piece {
	return snat(out, from, to, expr.NAT{FullyRandom: true})
}

func snat(out string, from, to netip.Addr, n expr.NAT) Piece {
	n.Type, n.Family, n.RegAddrMin, n.RegAddrMax = expr.NATTypeSourceNAT, unix.NFPROTO_IPV4, 1, 2
	return func(f *firewall) { f.rule("postrouting", outDevice(out), load(1, from), load(2, to), just(&n)) }
}

// DNAT forwards a TCP port of the address public to an inside host, whichever
// side the packet comes from.
func DNAT(public netip.AddrPort, to netip.AddrPort) Piece {
	return func(f *firewall) {
		f.rule("prerouting", toAddress(public.Addr()), tcpTo(public.Port()), load(1, to.Addr()),
			just(&expr.Immediate{Register: 2, Data: be16(to.Port())},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2}))
	}
}

// SNATInside hides hairpinned connections (inside to inside by the public
// address) behind the router's inside address.
func SNATInside(network netip.Prefix, device string) Piece {
	return func(f *firewall) {
		f.rule("postrouting", fromNetwork(network), outDevice(device), ctStatus(ctStatusDNAT), just(&expr.Masq{}))
	}
}

// ForwardDrop makes the forward chain drop what no later piece accepts.
func ForwardDrop() Piece {
	return func(f *firewall) {
		drop := nftables.ChainPolicyDrop
		f.chain("forward").Policy = &drop
		f.conn.AddChain(f.chain("forward"))
	}
}

// AcceptEstablished is "ct state established,related accept".
func AcceptEstablished() Piece {
	return func(f *firewall) {
		f.rule("forward", ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
	}
}

// DropInvalid is "ct state invalid drop".
func DropInvalid() Piece {
	return func(f *firewall) {
		f.rule("forward", ctState(expr.CtStateBitINVALID), just(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}))
	}
}

// AcceptTCP lets connections to a TCP port in from a device.
func AcceptTCP(in string, port uint16) Piece {
	return func(f *firewall) { f.rule("forward", inDevice(in), tcpTo(port), accept()) }
}

// AcceptFrom lets everything in from a device.
func AcceptFrom(in string) Piece {
	return func(f *firewall) { f.rule("forward", inDevice(in), accept()) }
}

// StrictForward is the usual stateful firewall: replies and what belongs to
// them, and new connections to the TCP port from the inside; nothing else.
func StrictForward(in string, port uint16) Piece {
	return func(f *firewall) {
		for _, p := range []Piece{ForwardDrop(), DropInvalid(), AcceptEstablished(), AcceptTCP(in, port)} {
			p(f)
		}
	}
}

// MarkTCP gives connections to a TCP port from a device a conntrack mark.
func MarkTCP(in string, port uint16, mark uint32) Piece {
	return func(f *firewall) {
		f.rule("mangle", inDevice(in), tcpTo(port), just(
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, mark)},
			&expr.Ct{Register: 1, SourceRegister: true, Key: expr.CtKeyMARK}))
	}
}

// RestoreMark gives packets the mark of their connection, for policy routing.
func RestoreMark() Piece {
	return func(f *firewall) {
		f.rule("mangle", just(&expr.Ct{Register: 1, Key: expr.CtKeyMARK},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true}))
	}
}

// The small parts that rules are made of.

func just(e ...expr.Any) []expr.Any { return e }
func accept() []expr.Any            { return just(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}) }
func be16(v uint16) []byte          { return binary.BigEndian.AppendUint16(nil, v) }

func load(register uint32, a netip.Addr) []expr.Any {
	return just(&expr.Immediate{Register: register, Data: a.AsSlice()})
}

func device(key expr.MetaKey, name string) []expr.Any {
	var padded [unix.IFNAMSIZ]byte
	copy(padded[:], name)
	return just(&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded[:]})
}
func inDevice(name string) []expr.Any  { return device(expr.MetaKeyIIFNAME, name) }
func outDevice(name string) []expr.Any { return device(expr.MetaKeyOIFNAME, name) }

func tcpTo(port uint16) []expr.Any {
	return just(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: be16(port)})
}

func toAddress(a netip.Addr) []expr.Any {
	return just(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()})
}

func fromNetwork(p netip.Prefix) []expr.Any {
	mask := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), p.Bits()).Masked().Addr()
	return just(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask.AsSlice(), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()})
}

// ctStatusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const ctStatusDNAT = 1 << 5

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return just(&expr.Ct{Register: 1, Key: key},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
}
func ctState(bits uint32) []expr.Any  { return ctBits(expr.CtKeySTATE, bits) }
func ctStatus(bits uint32) []expr.Any { return ctBits(expr.CtKeySTATUS, bits) }
