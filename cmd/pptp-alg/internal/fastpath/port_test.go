//go:build !nofastpath

package fastpath

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridge makes the router's inner link a port of a bridge that has its address, and returns the bridge.
func (l *lab) bridge() (link int, address [6]byte) {
	l.router.t.Helper()
	l.router.do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}}
		port, err := netlink.LinkByName("lan")
		if err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr("192.168.1.1/24")
		err = errors.Join(netlink.AddrDel(port, addr), netlink.LinkAdd(bridge), netlink.LinkSetMaster(port, bridge))
		if err != nil {
			return err
		}
		link, err = up("bridge", "192.168.1.1/24")
		address = [6]byte{2, 0, 0, 0, 0, 1}
		return err
	})
	l.inner.address("192.168.1.1", address)
	return link, address
}

// address sets the Ethernet address of a neighbour.
func (h *host) address(neighbour string, address [6]byte) {
	h.t.Helper()
	h.do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
			IP: net.ParseIP(neighbour), HardwareAddr: address[:]})
	})
}

// Packets for a bridge are taken at its port, and what is not for the bridge, or has another port, is not: the router forwards nothing
// by itself, and the bridge has no other port.
func TestPort(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := newLab(t)
		bridge, address := l.bridge()
		p := l.open(o)
		call := l.call()
		call.Arrives, call.Port = 0, l.in
		l.router.do(func() error { return errors.Join(p.Begin(1), p.CarryAtPort(l.in, address), p.Put(arrives, call)) })
		carried := func(yes bool, why string) {
			t.Helper()
			sent := packet(arrives, 64, 20, nil)
			before := p.Traffic(arrives).Packets
			l.inner.send(sent)
			if yes {
				same(t, l.outer.receive(long), sent, leaves)
			} else if got := l.outer.receive(100 * time.Millisecond); got != nil {
				t.Errorf("%s: it was carried", why)
			}
			if n := p.Traffic(arrives).Packets - before; n != map[bool]uint64{true: 1}[yes] {
				t.Errorf("%s: %d packets were counted", why, n)
			}
		}
		carried(true, "for the bridge")
		l.inner.address("192.168.1.1", [6]byte{2, 0, 0, 0, 0, 2})
		carried(false, "for another Ethernet address")
		l.inner.address("192.168.1.1", [6]byte{2, 0, 0, 0, 1, 1})
		carried(false, "for an Ethernet address that differs in its fifth byte")
		l.inner.address("192.168.1.1", [6]byte{2, 0, 0, 1, 0, 1})
		carried(false, "for an Ethernet address that differs in its fourth byte")
		l.inner.address("192.168.1.1", [6]byte{2, 1, 0, 0, 0, 1})
		carried(false, "for an Ethernet address that differs in its second byte")
		l.inner.address("192.168.1.1", [6]byte{3, 0, 0, 0, 0, 1})
		carried(false, "for a group")
		l.inner.address("192.168.1.1", address)
		carried(true, "for the bridge again")

		call.Port = l.in + 1000
		l.router.do(func() error { return p.Put(arrives, call) })
		carried(false, "at another port")
		call.Port = l.in
		l.router.do(func() error { return p.Put(arrives, call) })
		carried(true, "at its port again")
		l.router.do(func() error { return p.Move(arrives, 0, 0) })
		carried(false, "at a port that it has left")
		call.Port, call.Arrives = 0, bridge
		l.router.do(func() error { return p.Put(arrives, call) })
		carried(false, "at the bridge, where no program is")
		l.router.do(func() error { return p.Carry(bridge, false) })
		carried(true, "at the bridge")
		call.Port = l.in
		l.router.do(func() error { return p.Put(arrives, call) })
		carried(true, "at either")
		other := address
		other[5]++
		l.router.do(func() error { return p.CarryAtPort(l.in, other) })
		carried(true, "at the bridge, which is not the one that the port is said to be of")
		call.Arrives = 0
		l.router.do(func() error { return p.Put(arrives, call) })
		carried(false, "at the port of another bridge")
		l.router.do(func() error { return errors.Join(p.CarryAtPort(l.in, address), p.Keep([]int{l.in})) })
		carried(true, "at a port that is kept")
		l.router.do(func() error { return p.Keep([]int{bridge}) })
		carried(false, "at a port that is not kept")
		k, v := uint32(l.in), bridgeValue{}
		l.router.do(func() error {
			if element(unix.BPF_MAP_LOOKUP_ELEM, p.ports, &k, &v) == nil {
				t.Errorf("the port's bridge is still known: %x", v.Address)
			}
			return nil
		})
	})
}

// What is carried out of the hash table moves like all others.
func TestMoveInTable(t *testing.T) {
	l := newLab(t)
	bridge, address := l.bridge()
	p := l.open(Options{})
	p.places.apart = true
	call := l.call()
	call.Arrives, call.Port = bridge, l.in
	l.router.do(func() error { return errors.Join(p.Begin(1), p.CarryAtPort(l.in, address), p.Put(arrives, call)) })
	sent := packet(arrives, 64, 20, nil)
	l.inner.send(sent)
	same(t, l.outer.receive(long), sent, leaves)
	another := arrives
	another.CallID++
	l.router.do(func() error {
		return errors.Join(p.Move(arrives, bridge, 0), p.Move(another, 1, 2), p.Carry(bridge, false))
	})
	l.inner.send(sent)
	same(t, l.outer.receive(long), sent, leaves)
	k, v := arrives.encode(), otherValue{}
	l.router.do(func() error { return element(unix.BPF_MAP_LOOKUP_ELEM, p.calls, &k, &v) })
	if v.Port != 0 || v.Arrives != uint32(bridge) || v.Packets != 2 {
		t.Errorf("in the table: %+v", v)
	}
}

// A call that had no place in the array gets one when it is put again and one is free, and counts on.
func TestBackIntoAPlace(t *testing.T) {
	l := newLab(t)
	p := l.open(Options{})
	p.places.apart = true
	l.router.do(func() error { return errors.Join(p.Carry(l.in, false), p.Put(arrives, l.call()), p.Begin(1)) })
	var want Traffic
	for i := range 3 {
		sent := packet(arrives, 64, 10, nil)
		l.inner.send(sent)
		same(t, l.outer.receive(long), sent, leaves)
		want.Packets, want.Bytes = want.Packets+1, want.Bytes+uint64(len(sent))
		if got := p.Traffic(arrives); got != want {
			t.Errorf("counted %+v, not %+v", got, want)
		}
		if placed := p.places.of[arrives] != nil; placed != (i > 0) {
			t.Errorf("after %d packets it has a place: %v", i+1, placed)
		}
		p.places.apart = false
		l.router.do(func() error { return p.Put(arrives, l.call()) })
	}
	if left := p.inTable(arrives); left != (Traffic{}) {
		t.Errorf("in the hash table still are %+v", left)
	}
	if got, err := p.Take(arrives); err != nil || got != want {
		t.Errorf("taken with %+v, %v", got, err)
	}
}
