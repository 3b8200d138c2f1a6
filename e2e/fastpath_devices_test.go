package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// The fast path at devices as routers have them. VLAN and PPP devices are in e2e/vm/fast: not every kernel has them.

// The inside is a bridge, as a router with several ports has. Its ports are nobody's way, and where the firewall sees packets there
// already (bridge-nf-call-iptables, as on hosts with containers), calls that arrive by it stay on the ordinary path.
func TestFastPathBridge(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{lab.Masquerade("wan")}})
	h := w.Router.Netlink()
	port, err := h.LinkByName("lan")
	w.must(err)
	inside := netip.PrefixFrom(lab.LANRouter, 16)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge", HardwareAddr: port.Attrs().HardwareAddr}}
	w.must(h.LinkAdd(bridge))
	w.must(h.LinkSetMaster(port, bridge), h.LinkSetUp(bridge), w.Router.DeleteAddress("lan", inside), w.Router.AddAddress("bridge", inside))
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
	w.fast(legs...)
	before := w.conntracked()
	w.talkLeg(legs...)
	if n := w.conntracked() - before; n != 0 {
		t.Errorf("%d packets took the ordinary path", n)
	}
	if filters { // of which nobody is told
		w.must(w.Router.Sysctl(filter, "1"))
		w.stays("bridge-nf-call-iptables", legs...)
		w.must(w.Router.Sysctl(filter, "0"))
	} else {
		t.Log("this kernel has no br_netfilter")
	}
	w.hangUp(legs...)
	w.finish()
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
