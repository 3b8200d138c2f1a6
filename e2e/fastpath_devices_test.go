package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// The fast path at devices as routers have them. VLAN and PPP devices are in e2e/vm/fast: not every kernel has them.

// The inside is a bridge, as a router with several ports has, and its clients' packets are taken at the port. Also where the firewall sees
// packets there (bridge-nf-call-iptables, as on hosts with containers). Where rules look at what passes the bridge, calls are taken
// behind it; both together leave them on the ordinary path. A client that is at another port now is followed, without a packet lost.
func TestFastPathBridge(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{lab.Masquerade("wan")}})
	h := w.Router.Netlink()
	port, err := h.LinkByName("lan")
	w.must(err)
	inside := netip.PrefixFrom(lab.LANRouter, 16)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge", HardwareAddr: port.Attrs().HardwareAddr}}
	w.must(h.LinkAdd(bridge))
	w.must(h.LinkSetMaster(port, bridge), h.LinkSetUp(bridge), w.Router.DeleteAddress("lan", inside), w.Router.AddAddress("bridge", inside))
	w.must(w.Router.AddDevice("empty"))
	empty, err := h.LinkByName("empty")
	w.must(err, h.LinkSetMaster(empty, bridge), w.Router.SetLink("empty-end", true))
	const filter = "net.bridge.bridge-nf-call-iptables"
	err = w.Router.Sysctl(filter, "0")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	filters := err == nil
	w.start(quickConfig, fastPathFlags...)
	server := w.server(0, peer.Config{})
	var legs []leg
	for i := range w.Clients {
		legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(5)}), server), server))
	}
	// passed counts what comes through the bridge while something is done.
	passed := func(do func()) uint64 {
		count := func() uint64 {
			l, err := h.LinkByName("bridge")
			w.must(err)
			return l.Attrs().Statistics.RxPackets
		}
		before := count()
		do()
		return count() - before
	}
	const many = 100
	talk := func() {
		for _, l := range legs {
			w.check(l.client.Echo(w.ctx, many, 100), l.server.Echo(w.ctx, many, 100))
		}
	}
	looked := false // by the firewall, at the ports
	atPort := func() {
		t.Helper()
		w.fast(legs...)
		if !looked && !hasTCX(t) {
			return // taken behind the bridge
		}
		w.eventually("packets should be taken at the port", func() error {
			before := w.conntracked()
			n := passed(talk)
			if c := w.conntracked() - before; n >= many || c != 0 {
				return fmt.Errorf("%d packets went through the bridge, and %d took the ordinary path", n, c)
			}
			return nil
		})
	}
	atPort()
	// The bridge forgets where clients are, and learns it from their packets; then others say that they are elsewhere.
	learns := func() {
		t.Helper()
		w.eventually("packets should come through the bridge, and it should learn from them", func() error {
			entries, err := h.NeighList(port.Attrs().Index, unix.AF_BRIDGE)
			w.must(err)
			known := 0
			for _, e := range entries {
				for _, c := range w.Clients {
					if slices.Equal(e.HardwareAddr, w.ethernetOf(c)) {
						known++
					}
				}
			}
			if known < len(w.Clients) {
				return fmt.Errorf("it knows %d of %d clients at their port", known, len(w.Clients))
			}
			return nil
		})
	}
	follows := func() {
		t.Helper()
		all := streams(legs...)
		for range 3 {
			for _, c := range w.Clients {
				w.must(h.NeighDel(&netlink.Neigh{LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, HardwareAddr: w.ethernetOf(c)}))
			}
			learns()
		}
		w.noneLost(all)
		atPort()
		all = streams(legs...)
		for _, c := range w.Clients {
			w.eventually("the other port should forward", func() error { // a moment after it has a carrier
				return h.NeighSet(&netlink.Neigh{LinkIndex: empty.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_REACHABLE,
					Flags: netlink.NTF_MASTER, HardwareAddr: w.ethernetOf(c)})
			})
		}
		learns()
		for _, s := range all { // what went to the other port is lost
			if _, _, err := s.Stop(w.ctx); err != nil {
				t.Error(err)
			}
		}
		atPort()
	}
	follows()

	if hasTCX(t) { // or else clsact is in the place of ingress
		// What is at the bridge itself sees what comes by it, and what comes later, too.
		ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: bridge.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
		mirror := netlink.NewMirredAction(empty.Attrs().Index)
		mirror.MirredAction, mirror.ActionAttrs.Action = netlink.TCA_EGRESS_MIRROR, netlink.TC_ACT_PIPE
		w.must(h.QdiscAdd(ingress), h.FilterAdd(&netlink.U32{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: bridge.Attrs().Index, Parent: netlink.MakeHandle(0xffff, 0), Priority: 10, Protocol: unix.ETH_P_ALL},
			ClassId:     netlink.MakeHandle(1, 1), Actions: []netlink.Action{mirror},
		}))
		w.eventually("what comes by the bridge should go through its filter", func() error {
			talk()
			for _, c := range w.daemonStatus().Calls {
				if c.FastPath.ToServer || !c.FastPath.ToClient || !strings.Contains(c.FastPath.Reason, "bridge has a tc filter (u32)") {
					return fmt.Errorf("%+v", c.FastPath)
				}
			}
			return nil
		})
		mirrored := func() uint64 {
			l, err := h.LinkByName("empty")
			w.must(err)
			return l.Attrs().Statistics.TxPackets
		}
		before := mirrored()
		talk()
		if n := mirrored() - before; n < 2*many {
			t.Errorf("%d packets went through the filter", n)
		}
		w.must(h.QdiscDel(ingress))
		atPort()
	}

	// Ports of bridges where no call is come and go.
	all := streams(legs...)
	w.must(w.Router.AddDevice("guest"))
	guest, err := h.LinkByName("guest")
	w.must(err, h.LinkSetMaster(guest, bridge))
	w.must(w.Router.SetLink("guest-end", true), w.Router.SetLink("guest-end", false), w.Router.DeleteDevice("guest"))
	w.noneLost(all)
	atPort()

	conn, err := w.Router.Nftables()
	w.must(err)
	table := &nftables.Table{Family: nftables.TableFamilyBridge, Name: "ports"}
	chain := func() {
		conn.AddChain(&nftables.Chain{Table: conn.AddTable(table), Name: "in", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter})
		w.must(conn.Flush())
	}
	chain()
	w.ordinary()
	w.fast(legs...)
	if n := passed(talk); n < 2*many {
		t.Errorf("%d packets went through the bridge, where a chain wants to see all", n)
	}
	if filters { // of which nobody is told
		w.must(w.Router.Sysctl(filter, "1"))
		looked = true
		w.stays("bridge-nf-call-iptables", legs...)
		w.stays("nftables has a chain for what passes bridges", legs...)
	} else {
		t.Log("this kernel has no br_netfilter")
	}
	conn.DelTable(table)
	w.must(conn.Flush())
	atPort()
	follows()
	w.hangUp(legs...)
	w.finish()
}

// hasTCX reports whether the kernel attaches programs without a queueing discipline.
func hasTCX(t *testing.T) bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 6
}

// ethernetOf returns the Ethernet address of an inside host.
func (w *world) ethernetOf(h lab.Station) net.HardwareAddr {
	w.Helper()
	links, err := h.Netlink().LinkList()
	w.must(err)
	for _, l := range links {
		if l.Attrs().Name != "lo" && len(l.Attrs().HardwareAddr) == 6 {
			return l.Attrs().HardwareAddr
		}
	}
	w.Fatal("a host has no Ethernet address")
	return nil
}

// What arrives from outside is sent through a shaper, as SQM does. It goes there with the fast path, too, from the moment that
// the shaper is there; what goes out takes the fast path meanwhile.
func TestFastPathShaper(t *testing.T) {
	w, legs := fastCalls(t, 2)
	h := w.Router.Netlink()
	wan, err := h.LinkByName("wan")
	w.must(err)
	shaper := &netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: "shaper"}}
	w.must(h.LinkAdd(shaper))
	w.must(h.LinkSetUp(shaper))
	w.fast(legs...)
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: wan.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
	w.must(h.QdiscAdd(ingress))
	w.must(h.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: wan.Attrs().Index, Parent: netlink.MakeHandle(0xffff, 0), Priority: 10, Protocol: unix.ETH_P_ALL},
		ClassId:     netlink.MakeHandle(1, 1), Actions: []netlink.Action{netlink.NewMirredAction(shaper.Attrs().Index)},
	}))
	w.stays("wan has a tc filter (u32)", legs...)
	w.eventually("what goes out should take the fast path", func() error {
		w.talkLeg(legs...)
		for _, c := range w.daemonStatus().Calls {
			if !c.FastPath.ToServer || c.FastPath.ToClient {
				return fmt.Errorf("%+v", c.FastPath)
			}
		}
		return nil
	})
	shaped := func() uint64 {
		l, err := h.LinkByName("shaper")
		w.must(err)
		return l.Attrs().Statistics.TxPackets
	}
	before, sent := shaped(), legs[0].server.Stats().Sent
	w.check(legs[0].server.Echo(w.ctx, 50, 500))
	if n, all := shaped()-before, legs[0].server.Stats().Sent-sent; n < uint64(all) {
		t.Errorf("%d packets went through the shaper, of %d", n, all)
	}
	w.must(h.QdiscDel(ingress))
	w.fast(legs...)
	w.hangUp(legs...)
	w.finish()
}

// A chain of nftables at a device's ingress is not passed by.
func TestFastPathIngressChain(t *testing.T) {
	w, legs := fastCalls(t, 1)
	w.fast(legs...)
	conn, err := w.Router.Nftables()
	w.must(err)
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: "guard"})
	conn.AddChain(&nftables.Chain{Table: table, Name: "wan", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress,
		Priority: nftables.ChainPriorityFilter, Device: "wan"})
	w.must(conn.Flush())
	w.stays("nftables has a chain at the ingress of devices", legs...)
	conn.DelTable(table)
	w.must(conn.Flush())
	w.fast(legs...)
	w.hangUp(legs...)
	w.finish()
}
