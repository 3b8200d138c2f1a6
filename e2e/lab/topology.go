package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	ctnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// chainOf is chain for those that the ordinary pieces do not need.
func (f *firewall) chainOf(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) {
	if f.made[name] == nil {
		f.made[name] = f.conn.AddChain(&nftables.Chain{Table: f.table, Name: name, Type: kind, Hooknum: hook, Priority: priority})
	}
}

// Spread says by what a balancing DNAT chooses the server.
type Spread int

// Ways to choose a server.
const (
	InTurn   Spread = iota // numgen inc: the next one for every connection
	ByClient               // jhash of address and port of the client
)

// Balance forwards a TCP port of the address public to several inside hosts:
// dnat to numgen inc mod N map { 0 : A, 1 : B, ... }, or jhash in its place.
func Balance(public netip.AddrPort, by Spread, port uint16, to ...netip.Addr) Piece {
	return func(f *firewall) {
		table := &nftables.Set{Table: f.table, Anonymous: true, Constant: true, IsMap: true,
			KeyType: nftables.TypeInteger, DataType: nftables.TypeIPAddr}
		var elements []nftables.SetElement
		for i, a := range to {
			elements = append(elements, nftables.SetElement{Key: binary.NativeEndian.AppendUint32(nil, uint32(i)), Val: a.AsSlice()})
		}
		if err := f.conn.AddSet(table, elements); err != nil {
			panic("lab: " + err.Error()) // fixed values: our own mistake
		}
		choose := just(&expr.Numgen{Register: 1, Modulus: uint32(len(to)), Type: unix.NFT_NG_INCREMENTAL})
		if by == ByClient {
			choose = just(
				&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
				&expr.Payload{DestRegister: unix.NFT_REG32_01, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
				&expr.Hash{SourceRegister: 1, DestRegister: 1, Length: 8, Modulus: uint32(len(to)), Seed: 0x5eed, Type: expr.HashTypeJenkins})
		}
		f.rule("prerouting", toAddress(public.Addr()), tcpTo(public.Port()), choose,
			just(&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: table.Name, SetID: table.ID},
				&expr.Immediate{Register: 2, Data: be16(port)},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2}))
	}
}

// KernelHelper gives connections to a TCP port the kernel's own PPTP helper:
// ct helper set "pptp". Kernels without CONFIG_NF_CONNTRACK_PPTP do not load it.
func KernelHelper(port uint16) Piece { return kernelHelper(port, "mangle") }

// LateKernelHelper is KernelHelper at the priority at which OpenWrt's firewall
// has it, and the manual of nft.
func LateKernelHelper(port uint16) Piece {
	return func(f *firewall) {
		f.chainOf("helpers", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityFilter)
		kernelHelper(port, "helpers")(f)
	}
}

func kernelHelper(port uint16, chain string) Piece {
	const name = "pptp"
	return func(f *firewall) {
		f.conn.AddObj(&nftables.NamedObj{Table: f.table, Name: name, Type: nftables.ObjTypeCtHelper,
			Obj: &expr.CtHelper{Name: "pptp", L3Proto: unix.NFPROTO_IPV4, L4Proto: unix.IPPROTO_TCP}})
		f.rule(chain, tcpTo(port), just(&expr.Objref{Type: unix.NFT_OBJECT_CT_HELPER, Name: name}))
	}
}

// QueueNew gives the first packets of connections to a queue, as intrusion
// detection does, by the xtables target NFQUEUE, which all kernels have.
func QueueNew(queue uint16) Piece {
	var info xt.Unknown // struct xt_NFQ_info_v3: queue, number of queues, flags
	for _, v := range []uint16{queue, 1, 0, 0} {
		info = binary.NativeEndian.AppendUint16(info, v)
	}
	return func(f *firewall) {
		f.rule("forward", ctState(expr.CtStateBitNEW), just(&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}))
	}
}

// MarkTCPFrom gives connections from an address to a TCP port a conntrack mark.
func MarkTCPFrom(from netip.Addr, port uint16, mark uint32) Piece {
	return func(f *firewall) {
		f.rule("mangle", fromNetwork(netip.PrefixFrom(from, 32)), tcpTo(port), just(
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, mark)},
			&expr.Ct{Register: 1, SourceRegister: true, Key: expr.CtKeyMARK}))
	}
}

// MarkLate gives what leaves through a device a mark when it is routed already, as for traffic shaping: meta mark set MARK.
func MarkLate(out string, mark uint32) Piece {
	return func(f *firewall) {
		f.rule("late", outDevice(out), just(
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, mark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1}))
	}
}

// Zone puts what comes in through a device into a conntrack zone, both
// directions of its connections: ct zone set ID.
func Zone(in string, id uint16) Piece {
	return func(f *firewall) {
		f.raw()
		f.rule("raw", inDevice(in), just(
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint16(nil, id)},
			&expr.Ct{Register: 1, SourceRegister: true, Key: expr.CtKeyZONE}))
	}
}

// Raw makes the chain that Host.ZoneOriginal needs.
func Raw() Piece { return (*firewall).raw }

func (f *firewall) raw() {
	f.chainOf("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
}

// RouteByMark sends packets with a mark by a table of their own, in which
// there is one route. The zero Prefix is the default route; via may be the zero
// Addr where the device alone says it.
func (h *Host) RouteByMark(mark uint32, table int, to netip.Prefix, via netip.Addr, device string) error {
	rule := netlink.NewRule()
	rule.Family, rule.Mark, rule.Table, rule.Priority = unix.AF_INET, mark, table, 100+table
	if err := h.handle.RuleAdd(rule); err != nil {
		return fmt.Errorf("add rule for mark %d on %s: %w", mark, h.name, err)
	}
	route := &netlink.Route{Table: table}
	if to.IsValid() {
		route.Dst = ipNet(to.Masked())
	} else {
		route.Dst = ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	if via.IsValid() {
		route.Gw = via.AsSlice()
	}
	link, err := h.handle.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s on %s: %w", device, h.name, err)
	}
	route.LinkIndex = link.Attrs().Index
	if !via.IsValid() {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := h.handle.RouteAdd(route); err != nil {
		return fmt.Errorf("add route for mark %d on %s: %w", mark, h.name, err)
	}
	return nil
}

// SmallMTU has the host forward to a network on one of its devices with a
// smaller MTU than the device has: ip route add TO dev DEVICE mtu MTU. The MTU of
// the device itself would not do, as a veth drops what comes in above it.
func (h *Host) SmallMTU(to netip.Prefix, device string, mtu int) error {
	link, err := h.handle.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s on %s: %w", device, h.name, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to.Masked()), Scope: netlink.SCOPE_LINK, MTU: mtu}
	if err := h.handle.RouteAdd(route); err != nil {
		return fmt.Errorf("route %v with MTU %d on %s: %w", to, mtu, h.name, err)
	}
	return nil
}

// ConnectedFirst has all routes but the default one asked before those of
// RouteByMark: ip rule add lookup main suppress_prefixlength 0.
func (h *Host) ConnectedFirst() error {
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority, rule.SuppressPrefixlen = unix.AF_INET, unix.RT_TABLE_MAIN, 50, 0
	if err := h.handle.RuleAdd(rule); err != nil {
		return fmt.Errorf("add rule for the main table on %s: %w", h.name, err)
	}
	return nil
}

// ctMessageExpectGet is IPCTNL_MSG_EXP_GET, of the subsystem
// NFNL_SUBSYS_CTNETLINK_EXP.
const ctMessageExpectGet = 1

// Expectations counts what conntrack helpers wait for.
func (h *Host) Expectations() (int, error) {
	conn, err := ctnetlink.Dial(unix.NETLINK_NETFILTER, &ctnetlink.Config{NetNS: int(h.ns)})
	if err != nil {
		return 0, fmt.Errorf("open ctnetlink of %s: %w", h.name, err)
	}
	defer func() { _ = conn.Close() }()
	replies, err := conn.Execute(ctnetlink.Message{
		Header: ctnetlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK_EXP<<8 | ctMessageExpectGet, Flags: ctnetlink.Request | ctnetlink.Dump},
		Data:   []byte{unix.AF_INET, 0, 0, 0}, // struct nfgenmsg
	})
	if err != nil {
		return 0, fmt.Errorf("dump expectations of %s: %w", h.name, err)
	}
	return len(replies), nil
}
