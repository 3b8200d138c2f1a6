package ways

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestLinks(t *testing.T) {
	l := newLab(t)
	names := func() (names []string) {
		all, err := l.w.Links()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range all {
			l.w.mu.Lock()
			if k.Port && l.w.uses(k.Index) {
				t.Errorf("news of %s count", k.Name)
			}
			l.w.mu.Unlock()
			if k.Port != (k.Name == "port") || k.Bridge != (k.Name == "lan") {
				t.Errorf("%+v", k)
			}
			names = append(names, k.Name)
			if !k.Ethernet {
				t.Errorf("%s is no Ethernet", k.Name)
			}
		}
		slices.Sort(names)
		return names
	}
	want := []string{"client", "isp1", "isp2", "lan", "port", "up1", "up2"} // not lo
	if got := names(); !slices.Equal(got, want) {
		t.Errorf("the devices are %v instead of %v", got, want)
	}
	l.ip("link set up2 down")
	want = []string{"client", "isp1", "lan", "port", "up1"} // isp2 has no carrier then
	if got := names(); !slices.Equal(got, want) {
		t.Errorf("the devices are %v instead of %v", got, want)
	}
}

func TestDeviceChanges(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.found(q, "up1", "198.18.1.254", 1500)
	l.unchanged("a device that nobody asked for", func() { l.ip("link add other type veth peer name another", "link del other") })
	l.changed("an MTU", func() { l.ip("link set up1 mtu 1300") })
	l.found(q, "up1", "198.18.1.254", 1300)
	l.unchanged("an alias", func() { l.ip("link set up1 alias something") })
	l.changed("no carrier", func() { l.ip("link set isp1 down") })
	l.refused(q, "up1 has no carrier")
	l.changed("a carrier", func() { l.ip("link set isp1 up") })
	l.found(q, "up1", "198.18.1.254", 1300)
	l.changed("a master", func() { l.ip("link add name other type bridge", "link set up1 master other") })
	l.refused(q, "up1 is a part of another device")
	l.changed("no master", func() { l.ip("link set up1 nomaster") })
	l.found(q, "up1", "198.18.1.254", 1300)
	l.changed("the end of a device", func() { l.ip("link del up1") })
	l.refused(q, "no route")
}

// Links asks too, but what an answer was made of stays: the news of a change must differ from it.
func TestLinksKeepsWhatAnswersWereMadeOf(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("an MTU", func() {
		l.w.mu.Lock() // the news wait
		l.ip("link set up1 mtu 1300")
		l.w.mu.Unlock()
		if _, err := l.w.Links(); err != nil {
			t.Fatal(err)
		}
	})
	l.found(q, "up1", "198.18.1.254", 1300)
}

// A route by a device that packets can't be given to.
func TestOtherDevices(t *testing.T) {
	l := newLab(t)
	q := l.out()
	for _, c := range []struct {
		kind, words string
	}{
		{"ifb", "a kind that the fast path does not know: ifb"},
		{"vrf table 10", "a kind that the fast path does not know: vrf"},
		{"ipip local 198.18.1.1 remote 192.0.2.1", "a kind that the fast path does not know: ipip"},
	} {
		if err := l.try("ip", append([]string{"link", "add", "odd", "type"}, strings.Fields(c.kind)...)...); err != nil {
			t.Logf("this kernel does not know %s: %v", c.kind, err)
			continue
		}
		l.ip("link set odd up", "route add 203.0.113.0/24 dev odd")
		l.settle()
		l.refused(q, c.words)
		l.ip("link del odd")
		l.settle()
	}
	l.found(q, "up1", "198.18.1.254", 1500)
}

// A VLAN, where the kernel has them, and a macvlan, which is stacked alike.
func TestStacked(t *testing.T) {
	l := newLab(t)
	for _, kind := range []string{"macvlan", "vlan id 7"} {
		if err := l.try("ip", append([]string{"link", "add", "link", "up2", "stacked", "type"}, strings.Fields(kind)...)...); err != nil {
			t.Logf("this kernel does not know %s: %v", kind, err)
			continue
		}
		l.ip("link set stacked mtu 1496", "link set stacked up", "addr add 198.18.3.1/24 dev stacked", "route add 203.0.113.0/24 via 198.18.3.254")
		l.settle()
		l.found(l.out(), "stacked", "198.18.3.254", 1496)
		q := Question{Src: netip.MustParseAddr(server), Dst: netip.MustParseAddr(client), Link: l.index("stacked")}
		l.found(q, "lan", client, 1500)
		l.changed("no carrier below", func() { l.ip("link set isp2 down") })
		l.refused(l.out(), "has no carrier")
		l.ip("link set isp2 up", "link del stacked")
		l.settle()
	}
}

// A device without a link-layer header: a tun device is what a PPP one is to everything here.
func TestPointToPoint(t *testing.T) {
	l := newLab(t)
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var request [40]byte // ifreq: name, flags
	copy(request[:], "wan")
	binary.NativeEndian.PutUint16(request[16:18], unix.IFF_TUN|unix.IFF_NO_PI)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request[0]))); e != 0 {
		t.Fatal(e)
	}
	l.ip("link set wan mtu 1492 up", "addr add 198.18.3.1 peer 198.18.3.254 dev wan", "route add 203.0.113.0/24 dev wan")
	l.settle()
	q := l.out()
	got, err := l.w.Find(q)
	if want := (Way{Link: got.Link, Name: "wan", Gateway: q.Dst, MTU: 1492}); err != nil || got != want {
		t.Errorf("the way is %+v instead of %+v, %v", got, want, err)
	}
	l.found(Question{Src: q.Dst, Dst: q.Src, Link: got.Link}, "lan", client, 1500)
	l.changed("the end of it", func() {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	})
	l.found(q, "up1", "198.18.1.254", 1500)
}

// Somebody else's filter at the ingress, as for shaping, is to see the packets.
func TestIngress(t *testing.T) {
	for _, qdisc := range []string{"ingress", "clsact"} {
		t.Run(qdisc, func(t *testing.T) {
			l := newLab(t)
			q := l.out()
			back := Question{Src: q.Dst, Dst: q.Src, Link: l.index("up1")}
			l.found(q, "up1", "198.18.1.254", 1500)
			l.found(back, "lan", client, 1500)
			l.unchanged("a qdisc", func() { l.tc("qdisc add dev up1 " + qdisc) })
			l.found(back, "lan", client, 1500) // it has no filter
			l.ip("link add shaper type ifb", "link set shaper up", "link add other1 type veth peer name other2")
			const filter = "ingress protocol ip prio 10 u32 match u32 0 0 action mirred egress redirect dev shaper"
			l.changed("a filter", func() { l.tc("filter add dev up1 " + filter) })
			l.refused(back, "up1 has a tc filter (u32)")
			l.found(q, "up1", "198.18.1.254", 1500) // what goes out is shaped behind everything
			if err := l.w.Arrives(back.Link); err == nil {
				t.Error("a program may come before the filter")
			}
			l.changed("no filter", func() { l.tc("filter del dev up1 ingress prio 10") })
			l.found(back, "lan", client, 1500)
			if err := l.w.Arrives(back.Link); err != nil {
				t.Error(err)
			}
			l.changed("another filter", func() { l.tc("filter add dev up1 " + filter) })
			l.refused(back, "up1 has a tc filter (u32)")
			l.changed("the end of the qdisc", func() { l.tc("qdisc del dev up1 " + qdisc) })
			l.found(back, "lan", client, 1500)
			l.tc("qdisc add dev other1 ingress_block 7 " + qdisc)
			l.tc("filter add block 7 protocol ip u32 match u32 0 0 action mirred egress redirect dev shaper")
			l.settle()
			l.found(back, "lan", client, 1500)
			l.changed("a qdisc with others' filters", func() { l.tc("qdisc add dev up1 ingress_block 7 " + qdisc) })
			l.refused(back, "up1 has a tc filter (u32)")
			l.changed("no filters of others", func() { l.tc("filter del block 7") })
			l.found(back, "lan", client, 1500)
			l.unchanged("a filter of a device that is none of ours", func() {
				l.ip("link add other type veth peer name another")
				l.tc("qdisc add dev other " + qdisc)
				l.tc("filter add dev other " + filter)
			})
		})
	}
}

// Filters of this program are no news, and in nobody's way, wherever they are and whoever comes first.
func TestOwnFilters(t *testing.T) {
	l := newLab(t)
	back := Question{Src: netip.MustParseAddr(server), Dst: netip.MustParseAddr(client), Link: l.index("up1")}
	l.found(back, "lan", client, 1500)
	program := []uint64{0xb7, 0x95} // r0 = 0; exit
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		program = []uint64{0xb7 << 56, 0x95 << 56}
	}
	licence := []byte("GPL\x00")
	load := struct {
		kind, count           uint32
		instructions, licence unsafe.Pointer
		_                     [112]byte
	}{unix.BPF_PROG_TYPE_SCHED_CLS, uint32(len(program)), unsafe.Pointer(&program[0]), unsafe.Pointer(&licence[0]), [112]byte{}}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		t.Fatal("load an eBPF program:", errno)
	}
	defer func() { _ = unix.Close(int(fd)) }()
	filters := func(name string) (put, take func()) {
		var all []netlink.Filter
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			all = append(all, &netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: back.Link, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 100},
				Fd: int(fd), Name: name, DirectAction: true})
		}
		each := func(do func(netlink.Filter) error) {
			for _, f := range all {
				if err := do(f); err != nil {
					t.Fatal(err)
				}
			}
		}
		return func() { each(netlink.FilterAdd) }, func() { each(netlink.FilterDel) }
	}
	put, take := filters(FilterPrefix + "-something")
	l.unchanged("a qdisc", func() { l.tc("qdisc add dev up1 clsact") })
	l.unchanged("our filters", put)
	l.changed("something else", func() { l.ip("rule add fwmark 9 lookup main") }) // so that it is asked again
	l.found(back, "lan", client, 1500)
	l.unchanged("the end of our filters", take)
	l.unchanged("the end of the qdisc", func() { l.tc("qdisc del dev up1 clsact") })
	l.found(back, "lan", client, 1500)

	put, take = filters("others")
	l.tc("qdisc add dev up1 clsact")
	l.changed("others' filters", put)
	l.refused(back, "up1 has a tc filter (bpf)")
	l.changed("their end", take)
	l.found(back, "lan", client, 1500)

	// Somebody else takes ours away: whoever put them there believes that they are.
	l.w.Ours(1)
	put, take = filters(FilterPrefix)
	for what, do := range map[string]func(){"the end of our filters": take, "the end of the qdisc": func() { l.tc("qdisc del dev up1 clsact") }} {
		_ = l.try("tc", "qdisc", "add", "dev", "up1", "clsact")
		put()
		l.settle()
		l.found(back, "lan", client, 1500)
		l.changed(what, do)
		l.found(back, "lan", client, 1500)
	}
}

func TestBridgeFilteredAtItsPorts(t *testing.T) {
	l := newLab(t)
	q := l.out()
	back := Question{Src: q.Dst, Dst: q.Src, Link: l.index("up1")}
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("nf_call_iptables", func() { l.ip("link set lan type bridge nf_call_iptables 1") })
	l.refused(q, "bridge-nf-call-iptables")
	l.found(back, "lan", client, 1500)
	l.ip("link set lan type bridge nf_call_iptables 0")
	l.settle()
	l.found(q, "up1", "198.18.1.254", 1500)
	if _, err := os.Stat(bridges); err != nil {
		t.Logf("this kernel has no br_netfilter: %v", err)
		return
	}
	l.sysctl("net/bridge/bridge-nf-call-iptables", "1")
	l.refused(q, "bridge-nf-call-iptables") // at once: nothing tells of it
	l.sysctl("net/bridge/bridge-nf-call-iptables", "0")
	l.found(q, "up1", "198.18.1.254", 1500)
}
