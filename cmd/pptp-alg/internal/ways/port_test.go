package ways

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// station is one that sends nothing by itself.
func (l *lab) station() Station {
	return Station{l.index("lan"), [6]byte{2, 0, 0, 0, 0, 0x99}}
}

// learned has the bridge know the client.
func (l *lab) learned(s Station) {
	l.t.Helper()
	if err := l.try("bridge", "fdb", "replace", net.HardwareAddr(s.Address[:]).String(), "dev", "port", "master", "dynamic"); err != nil {
		l.t.Fatal(err)
	}
}

// awaited asks until the answer is right: news of what the test did may still be on their way.
func (l *lab) awaited(s Station, right func(Port, error) bool) (p Port, err error) {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if p, err = l.w.Port(s); right(p, err) || time.Now().After(end) {
			return p, err
		}
	}
}

func (l *lab) notAtPort(s Station, words string) {
	l.t.Helper()
	right := func(_ Port, err error) bool {
		reason := (*Unsafe)(nil)
		return errors.As(err, &reason) && strings.Contains(reason.Reason, words)
	}
	if p, err := l.awaited(s, right); !right(p, err) {
		l.t.Errorf("%+v, %v, instead of a reason with %q", p, err, words)
	}
}

func (l *lab) atPort(s Station, port string) {
	l.t.Helper()
	bridge, err := net.InterfaceByName("lan")
	if err != nil {
		l.t.Fatal(err)
	}
	want := Port{l.index(port), port, [6]byte(bridge.HardwareAddr)}
	right := func(p Port, err error) bool { return err == nil && p == want }
	if p, err := l.awaited(s, right); !right(p, err) {
		l.t.Errorf("%+v, %v, instead of %+v", p, err, want)
	}
}

// moves does something after which the station has to be asked for again.
func (l *lab) moves(what string, s Station, do func()) {
	l.t.Helper()
	for len(l.w.moved) > 0 {
		<-l.w.moved
	}
	l.w.Stations()
	do()
	end := time.After(30 * time.Second)
	for {
		select {
		case <-l.w.Changes(): // everything has to be asked for again
			return
		case <-l.w.Moved():
			if slices.Contains(l.w.Stations(), s) {
				return
			}
		case <-end:
			l.t.Errorf("%s is no news", what)
			return
		}
	}
}

// The port of a station is where the bridge has learned that it is.
func TestPort(t *testing.T) {
	l := newLab(t)
	s := l.station()
	l.notAtPort(s, "lan does not know at which port")
	l.moves("a station that is new", s, func() { l.learned(s) })
	l.atPort(s, "port")
	l.moves("a station that is forgotten", s, func() { l.ip("link set port type bridge_slave fdb_flush") })
	l.notAtPort(s, "lan does not know at which port")
	l.learned(s)
	l.atPort(s, "port")

	other := Station{s.Bridge, [6]byte{2, 3, 4, 5, 6, 7}}
	l.notAtPort(other, "02:03:04:05:06:07")
	own := l.bridgeAddress()
	l.notAtPort(Station{s.Bridge, own}, "does not know at which port")
	l.notAtPort(Station{l.index("up1"), s.Address}, "up1 is no bridge")
	l.notAtPort(Station{9999, s.Address}, "no device with the index 9999")

	l.ip("link add name port2 type veth peer name client2", "link set port2 master lan", "link set port2 up", "link set client2 up")
	l.index("port2")
	l.settle()
	l.atPort(s, "port")
	l.moves("another port", s, func() {
		if err := l.try("bridge", "fdb", "replace", net.HardwareAddr(s.Address[:]).String(), "dev", "port2", "master", "dynamic"); err != nil {
			t.Fatal(err)
		}
	})
	l.atPort(s, "port2")
	l.unchanged("where stations are", func() { l.learned(s); l.learned(other) })
}

func (l *lab) bridgeAddress() [6]byte {
	l.t.Helper()
	bridge, err := net.InterfaceByName("lan")
	if err != nil {
		l.t.Fatal(err)
	}
	return [6]byte(bridge.HardwareAddr)
}

// What a bridge does besides is not passed by, and when that changes it is news.
func TestPortWhereBridgesDoMore(t *testing.T) {
	l := newLab(t)
	s := l.station()
	l.learned(s)
	for _, c := range []struct{ name, do, undo, words string }{
		{"VLANs", "link set lan type bridge vlan_filtering 1", "link set lan type bridge vlan_filtering 0", "lan filters VLANs"},
		{"a locked port", "link set port type bridge_slave locked on", "link set port type bridge_slave locked off", "certain stations only"},
		{"a port that is down", "link set port down", "link set port up", ""},
		{"no port of it", "link set port nomaster", "link set port master lan", ""},
	} {
		l.learned(s)
		l.settle()
		l.atPort(s, "port")
		if strings.Contains(c.do, "vlan_filtering") || strings.Contains(c.do, "locked") {
			if err := l.try("ip", strings.Fields(c.do)...); err != nil {
				t.Logf("this kernel does not know %s: %v", c.name, err)
				continue
			}
			l.ip(c.undo)
			l.settle()
			l.atPort(s, "port")
		}
		l.moves(c.name, s, func() { l.ip(c.do) })
		l.notAtPort(s, c.words)
		l.ip(c.undo)
		l.index("lan")
		l.settle()
	}
	l.learned(s)
	l.settle()
	l.atPort(s, "port")
	l.moves("the bridge's address", s, func() {
		l.unchanged("a bridge's address", func() { l.ip("link set lan address 02:00:00:00:00:77") })
	})
	l.atPort(s, "port")

	l.ip("link add shaper type ifb", "link set shaper up")
	l.tc("qdisc add dev port clsact")
	l.settle()
	l.atPort(s, "port")
	l.moves("a filter", s, func() {
		l.tc("filter add dev port ingress protocol ip prio 10 u32 match u32 0 0 action mirred egress redirect dev shaper")
	})
	l.notAtPort(s, "port has a tc filter (u32)")
	l.moves("no filter", s, func() { l.unchanged("a filter of a port", func() { l.tc("qdisc del dev port clsact") }) })
	l.atPort(s, "port")

	l.tc("qdisc add dev lan clsact")
	l.changed("a filter at the bridge", func() {
		l.tc("filter add dev lan ingress protocol ip prio 10 u32 match u32 0 0 action mirred egress redirect dev shaper")
	})
	l.notAtPort(s, "lan has a tc filter (u32)")
	l.changed("no filter at the bridge", func() { l.tc("qdisc del dev lan clsact") })
	l.atPort(s, "port")

	// Ports where nobody is who was asked for are nobody's business.
	l.ip("link add name port2 type veth peer name client2", "link set port2 master lan")
	for _, do := range []string{"link set port2 up", "link set client2 up", "link set client2 down", "link set port2 nomaster", "link del port2"} {
		l.unchanged("another port: "+do, func() { l.ip(do) })
	}
}

// A bridge that filters VLANs is told from one that does not, also where this kernel has none.
func TestBridgeFiltersVLANs(t *testing.T) {
	for _, filters := range []uint8{0, 1} {
		e := netlink.NewAttributeEncoder()
		e.String(unix.IFLA_IFNAME, "lan")
		e.Bytes(unix.IFLA_ADDRESS, []byte{2, 0, 0, 0, 0, 1})
		e.Uint32(unix.IFLA_MTU, 1500)
		e.Nested(unix.IFLA_LINKINFO, func(n *netlink.AttributeEncoder) error {
			n.String(unix.IFLA_INFO_KIND, "bridge")
			n.Nested(unix.IFLA_INFO_DATA, func(n *netlink.AttributeEncoder) error {
				n.Uint8(unix.IFLA_BR_VLAN_FILTERING, filters)
				return nil
			})
			return nil
		})
		attributes, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		l, ok := parseLink(netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWLINK}, Data: append(make([]byte, unix.SizeofIfInfomsg), attributes...)})
		if want := [6]byte{2, 0, 0, 0, 0, 1}; !ok || l.vlans != (filters != 0) || l.address != want {
			t.Errorf("filtering %d: %+v, %v", filters, l, ok)
		}
		if filters == 0 {
			continue
		}
		w := &Ways{}
		w.forget()
		w.links[7], w.arrives[7] = l, nil
		(&lab{t: t, w: w}).notAtPort(Station{Bridge: 7}, "lan filters VLANs")
	}
}

// What a bridge tells of a port that an answer was for is news when it changes whether the port may be used.
func TestNewsOfPorts(t *testing.T) {
	for _, c := range []struct {
		index         uint32
		state, locked uint8
		news          bool
	}{
		{5, forwarding, 0, false}, {5, 1, 0, true}, {5, forwarding, 1, true}, {6, 1, 1, false},
	} {
		e := netlink.NewAttributeEncoder()
		e.Uint32(unix.IFLA_MASTER, 7)
		e.Nested(unix.IFLA_PROTINFO, func(n *netlink.AttributeEncoder) error {
			n.Uint8(unix.IFLA_BRPORT_STATE, c.state)
			n.Uint8(unix.IFLA_BRPORT_LOCKED, c.locked)
			return nil
		})
		attributes, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		head := make([]byte, unix.SizeofIfInfomsg)
		head[0] = unix.AF_BRIDGE
		binary.NativeEndian.PutUint32(head[4:], c.index)
		w := &Ways{moved: make(chan struct{}, 1)}
		w.forget()
		s := Station{Bridge: 7}
		w.ports[5] = link{index: 5, state: forwarding, master: 7, up: true}
		w.stations[s] = &spot{port: 5}
		if w.route(netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWLINK}, Data: append(head, attributes...)}) {
			t.Errorf("%+v: it is news for others, too", c)
		}
		if moved := len(w.Stations()) > 0; moved != c.news || moved != (w.stations[s] == nil) || moved == w.isPort(5) {
			t.Errorf("%+v: who is there has moved: %v", c, moved)
		}
	}
}

// A port that is not as it was concerns who is there; so does its end.
func TestPortThatChanges(t *testing.T) {
	mtu := netlink.NewAttributeEncoder()
	mtu.Uint32(unix.IFLA_MTU, 1500)
	attributes, err := mtu.Encode()
	if err != nil {
		t.Fatal(err)
	}
	flags := func(index, flags uint32) []byte {
		head := make([]byte, unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint32(head[4:], index)
		binary.NativeEndian.PutUint32(head[8:], flags)
		return append(head, attributes...)
	}
	for _, c := range []struct {
		name  string
		kind  netlink.HeaderType
		data  []byte
		moved bool
	}{
		{"as it was", unix.RTM_NEWLINK, flags(5, unix.IFF_UP), false},
		{"another one", unix.RTM_NEWLINK, flags(6, 0), false},
		{"down", unix.RTM_NEWLINK, flags(5, 0), true},
		{"gone", unix.RTM_DELLINK, flags(5, 0), true},
		{"another one gone", unix.RTM_DELLINK, flags(6, 0), false},
	} {
		w := &Ways{moved: make(chan struct{}, 1), appeared: make(chan struct{}, 1)}
		w.forget()
		s, other := Station{Bridge: 7}, Station{7, [6]byte{1}}
		w.ports[5] = link{index: 5, up: true, mtu: 1500}
		w.stations[s], w.stations[other] = &spot{port: 5}, &spot{port: 8}
		if w.route(netlink.Message{Header: netlink.Header{Type: c.kind}, Data: c.data}) {
			t.Errorf("%s: it is news for others, too", c.name)
		}
		if got := w.Stations(); c.moved != slices.Equal(got, []Station{s}) || !c.moved && len(got) != 0 {
			t.Errorf("%s: %v have moved", c.name, got)
		}
	}
}

// News of wireless extensions say of a device only whose they are: it is no other one than it was.
func TestWirelessNews(t *testing.T) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.IFLA_IFNAME, "wlan0")
	e.Bytes(unix.IFLA_WIRELESS, make([]byte, 24))
	attributes, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(head[4:], 5)
	w := &Ways{moved: make(chan struct{}, 1), appeared: make(chan struct{}, 1)}
	w.forget()
	s := Station{Bridge: 7}
	w.links[5], w.ports[5], w.stations[s] = link{index: 5, mtu: 1500}, link{index: 5, mtu: 1500}, &spot{port: 5}
	if news := w.route(netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWLINK}, Data: append(head, attributes...)}); news || len(w.Stations()) > 0 || len(w.appeared) > 0 {
		t.Errorf("news %v, %d devices have appeared, who is there: %v", news, len(w.appeared), w.stations[s])
	}
}

// A port that spanning tree does not let forward yet is none, and that it does is news.
func TestPortUnderSpanningTree(t *testing.T) {
	l := newLab(t)
	s := l.station()
	if err := l.try("bridge", "fdb", "replace", net.HardwareAddr(s.Address[:]).String(), "dev", "port", "master", "static"); err != nil {
		t.Fatal(err)
	}
	l.ip("link set lan type bridge forward_delay 200 stp_state 1", "link set port down", "link set port up")
	l.notAtPort(s, "") // the bridge has no carrier, or the port does not forward
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		select {
		case <-l.w.Changes():
		case <-l.w.Moved():
		case <-time.After(time.Until(end)):
		}
		if _, err := l.w.Port(s); err == nil {
			break
		}
	}
	l.atPort(s, "port")
}

// After news were lost every station that was asked for may be elsewhere.
func TestStationsLost(t *testing.T) {
	w := &Ways{moved: make(chan struct{}, 1)}
	w.forget()
	var want []string
	for i := range 3 {
		s := Station{7, [6]byte{2, 0, 0, 0, 0, byte(i)}}
		w.stations[s] = nil
		want = append(want, fmt.Sprint(s))
	}
	w.allMoved()
	<-w.Moved()
	var got []string
	for _, s := range w.Stations() {
		got = append(got, fmt.Sprint(s))
	}
	if slices.Sort(got); !slices.Equal(got, want) || len(w.Stations()) != 0 {
		t.Errorf("%q have moved, not %q", got, want)
	}
}

// A kernel that has ebtables is told from one that has not, as far as it can be seen here: by the symbols of the kernel.
func TestEbtables(t *testing.T) {
	var reason *Unsafe
	err := Ebtables()
	if err != nil && !errors.As(err, &reason) {
		t.Fatal(err)
	}
	symbols, e := os.ReadFile("/proc/kallsyms")
	if e != nil {
		t.Skipf("which symbols has the kernel? %v", e)
	}
	if has := strings.Contains(string(symbols), " ebt_register_table"); has != (err != nil) {
		t.Errorf("the kernel has ebtables: %v; it is said: %v", has, err)
	}
}
