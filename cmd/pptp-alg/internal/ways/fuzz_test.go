package ways

import (
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// FuzzMessages has every parser read every message: whatever comes, none may panic, and what is said to be understood must be whole.
func FuzzMessages(f *testing.F) {
	for _, typ := range []uint16{unix.RTM_NEWLINK, unix.RTM_NEWROUTE, unix.RTM_NEWRULE, unix.RTM_NEWTFILTER, unix.RTM_NEWNEIGH, unix.RTM_NEWNETCONF, xfrmNewPolicy} {
		for _, size := range []int{0, 4, sizeofNdMsg, unix.SizeofIfInfomsg, sizeofTcMsg, xfrmPolicyInfo} {
			f.Add(typ, make([]byte, size))
		}
	}
	e := netlink.NewAttributeEncoder()
	e.String(unix.IFLA_IFNAME, "lan")
	e.Uint32(unix.IFLA_MTU, 1500)
	e.Nested(unix.IFLA_LINKINFO, func(n *netlink.AttributeEncoder) error {
		n.String(unix.IFLA_INFO_KIND, "bridge")
		n.Nested(unix.IFLA_INFO_DATA, func(n *netlink.AttributeEncoder) error {
			n.Uint8(unix.IFLA_BR_NF_CALL_IPTABLES, 1)
			return nil
		})
		return nil
	})
	link, err := e.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(unix.RTM_NEWLINK), append(make([]byte, unix.SizeofIfInfomsg), link...))
	e = netlink.NewAttributeEncoder()
	e.Bytes(unix.RTA_VIA, make([]byte, 18))
	e.Bytes(unix.RTA_GATEWAY, make([]byte, 4))
	e.Nested(unix.RTA_METRICS, func(n *netlink.AttributeEncoder) error { n.Uint32(unix.RTAX_MTU, 1400); return nil })
	route, err := e.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(unix.RTM_NEWROUTE), append([]byte{unix.AF_INET, 11: 0}, route...))
	e = netlink.NewAttributeEncoder()
	e.Bytes(unix.NDA_LLADDR, make([]byte, 6))
	e.Uint32(unix.NDA_MASTER, 3)
	station, err := e.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(unix.RTM_NEWNEIGH), append([]byte{unix.AF_BRIDGE, sizeofNdMsg - 1: 0}, station...))
	e = netlink.NewAttributeEncoder()
	e.Nested(unix.IFLA_PROTINFO, func(n *netlink.AttributeEncoder) error {
		n.Uint8(unix.IFLA_BRPORT_STATE, forwarding)
		n.Uint8(unix.IFLA_BRPORT_LOCKED, 1)
		return nil
	})
	port, err := e.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(unix.RTM_NEWLINK), append([]byte{unix.AF_BRIDGE, unix.SizeofIfInfomsg - 1: 0}, port...))
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		m := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ)}, Data: data}
		if l, ok := parseLink(m); ok && l.filtered && l.kind != "bridge" {
			t.Errorf("%+v is filtered", l)
		}
		if r, ok := parseRoute(m); ok && typ != unix.RTM_NEWROUTE {
			t.Errorf("%+v is of a message of type %d", r, typ)
		}
		if h, ok := parseNeighbour(m); ok && !h.gateway.IsValid() {
			t.Errorf("%+v is no neighbour", h)
		}
		if p, ok := parsePort(m); ok && typ != unix.RTM_NEWLINK {
			t.Errorf("%+v is of a message of type %d", p, typ)
		}
		if f, ok := parseFilter(m); ok && f.ours() && f.kind != "bpf" {
			t.Errorf("%+v is ours", f)
		}
		parseSettings(m)
		if p, ok := parsePrefix(m); ok {
			a := asked{set: map[uint32]struct{}{}}
			q := Question{Src: p.Addr(), Dst: p.Addr()}
			if a.in(p) {
				t.Errorf("nothing is in %v", p)
			}
			if a.add(q); !a.in(p) {
				t.Errorf("%v is not in %v", q.Dst, p)
			}
		}
		parseRules([]netlink.Message{m})
		for _, p := range parsePolicies([]netlink.Message{m}) {
			if !p.dst.IsValid() {
				t.Errorf("a policy for no addresses")
			}
		}
		// And the news, which forget or do not.
		w := &Ways{changes: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
		w.forget()
		w.route(m)
		w.neighbour(m)
		if s, _, ok := parseStation(m); ok {
			w.stations[s] = nil
		}
		w.move(m)
		if (len(w.Stations()) > 0) != (len(w.stations) > 0) {
			t.Errorf("a station moved, or did not")
		}
	})
}
