package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// Several uplinks, and conntrack zones: a call goes the way of its control
// connection.

const (
	routerOne, routerTwo = "198.18.1.1", "198.18.2.1" // the router's addresses on its uplinks
	ispOne, ispTwo       = "198.18.1.254", "198.18.2.254"
)

// twoUplinks has a router with two uplinks to two providers, and a server
// behind both. The choice of clients is up to the router's firewall and routes.
func twoUplinks(t *testing.T, firewall ...lab.Piece) (w *world, server lab.Station) {
	t.Helper()
	w = drawn(t, func(p *plan) {
		lan, one, two, core := p.segment("lan"), p.segment("one"), p.segment("two"), p.segment("core")
		router := p.router("router")
		p.attach(router, lan, "10.77.0.1/16")
		p.attach(router, one, routerOne+"/24")
		p.attach(router, two, routerTwo+"/24")
		p.try(router.Route(netip.Prefix{}, at(ispOne)))
		p.try(router.ConnectedFirst())
		p.try(router.RouteByMark(1, 101, netip.Prefix{}, at(ispOne), "one"))
		p.try(router.RouteByMark(2, 102, netip.Prefix{}, at(ispTwo), "two"))
		// What arrives by one uplink may be answered by the other: no strict
		// rp_filter, as with any router of several uplinks.
		for _, dev := range []string{"all", "one", "two"} {
			p.try(router.Sysctl("net.ipv4.conf."+dev+".rp_filter", "0"))
		}
		p.try(router.Firewall(append(firewall, lab.Masquerade("one"), lab.Masquerade("two"))...))
		internet := p.router("internet")
		p.attach(internet, one, ispOne+"/24")
		p.attach(internet, two, ispTwo+"/24")
		p.attach(internet, core, "203.0.113.254/24")
		server = p.station("server", core, "203.0.113.1/24", "203.0.113.254")
		for i := range 4 {
			p.Site.Clients = append(p.Site.Clients, p.station(fmt.Sprintf("client%d", i+1), lan, fmt.Sprintf("10.77.1.%d/16", i+1), "10.77.0.1"))
		}
	})
	return w, server
}

// Policy routing by mark: two clients go by one uplink and two by the other,
// and one of those gives up its place for a client that goes the default way.
func TestUplinksByMark(t *testing.T) {
	w, station := twoUplinks(t, lab.MarkTCPFrom(at("10.77.1.1"), peer.Port, 1), lab.MarkTCPFrom(at("10.77.1.2"), peer.Port, 2),
		lab.MarkTCPFrom(at("10.77.1.3"), peer.Port, 2), lab.RestoreMark())
	w.start(quickConfig)
	server := w.listen(station, peer.Config{CallID: peer.Counting(0)})
	wrong := w.wrongWay()
	var legs []leg
	for i, want := range []string{routerOne, routerTwo, routerTwo, routerOne} {
		l := w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(11)}), server), server)
		if l.server.Remote() != at(want) {
			t.Errorf("client %d comes from %v instead of %s", i+1, l.server.Remote(), want)
		}
		legs = append(legs, l)
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.hangUp(legs...)
	wrong()
	w.finish()
}

// wrongWay watches for packets that leave by another uplink than the one whose
// address they have. The function that it returns reports them.
func (w *world) wrongWay() func() {
	w.Helper()
	wrong, err := w.Router.CaptureIf(func(p *lab.Packet) bool {
		return p.Out && (p.GRE != nil || p.TCP != nil) && (p.Src == at(routerOne) && p.Device != "one" || p.Src == at(routerTwo) && p.Device != "two")
	}, "one", "two")
	w.must(err)
	return func() {
		w.Helper()
		for _, p := range wrong.Packets() {
			w.Errorf("left by the wrong uplink: %v", p)
		}
	}
}

// One host with two addresses, each by an uplink of its own, and one Call ID:
// the calls come from two public addresses.
func TestOneClientTwoUplinks(t *testing.T) {
	w, station := twoUplinks(t, lab.MarkTCPFrom(at("10.77.1.1"), peer.Port, 1), lab.MarkTCPFrom(at("10.77.1.77"), peer.Port, 2), lab.RestoreMark())
	w.start(quickConfig)
	server := w.listen(station, peer.Config{CallID: peer.Counting(9)})
	wrong := w.wrongWay()
	second := w.Clients[0]
	w.must(second.AddAddress("lan", netip.MustParsePrefix("10.77.1.77/16")))
	first := w.up(w.dialAndCall(w.client(0, peer.Config{CallID: peer.Fixed(9)}), server), server)
	second.Address = at("10.77.1.77")
	other := w.up(w.dialAndCall(w.node(second, peer.Config{CallID: peer.Fixed(9)}), server), server)
	if first.server.Remote() != at(routerOne) || other.server.Remote() != at(routerTwo) {
		t.Errorf("the calls come from %v and %v", first.server.Remote(), other.server.Remote())
	}
	w.talkLeg(first, other)
	w.listed(first, other)
	w.hangUp(first, other)
	wrong()
	w.finish()
}

// Everything of the lab in a conntrack zone of its own.
func TestZoneBothDirections(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{lab.Zone("lan", 7), lab.Zone("wan", 7),
		lab.Masquerade("wan"), lab.StrictForward("lan", peer.Port)}})
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	var legs []leg
	for i := range 2 {
		legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server), server))
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	gre, err := w.Router.GRE()
	w.must(err)
	for _, f := range gre {
		if f.Zone != 7 {
			t.Errorf("not in zone 7: %v", f)
		}
	}
	w.hangUp(legs...)
	w.finish()
}

// Two inside networks with the same addresses, told apart by a zone for what
// they send. What comes back is in no zone: the public side has one set of
// Call IDs for both.
func TestZonePerNetwork(t *testing.T) {
	w, blue, red := twoNetworks(t)
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	var legs []leg
	for j := range 2 {
		for _, network := range [][]lab.Station{blue, red} {
			client := w.node(network[j], peer.Config{CallID: peer.Fixed(3)})
			legs = append(legs, w.up(w.dialAndCall(client, server), server))
			w.talkLeg(legs[len(legs)-1])
		}
	}
	w.talkLeg(legs...)
	w.status(4)
	told := map[uint16]bool{}
	for _, l := range legs {
		if told[l.server.PeerID()] {
			t.Errorf("the server was told Call ID %d twice", l.server.PeerID())
		}
		told[l.server.PeerID()] = true
	}
	w.hangUp(legs...)
	w.finish()
}

// twoNetworks draws two inside networks that have the same addresses, and
// starts the daemon on their router.
func twoNetworks(t *testing.T) (w *world, blue, red []lab.Station) {
	t.Helper()
	w = drawn(t, func(p *plan) {
		wan := p.segment("wan")
		router := p.router("router")
		p.attach(router, wan, lab.WANRouter.String()+"/16")
		pieces := []lab.Piece{lab.Raw()}
		for i, name := range []string{"blue", "red"} {
			s := p.segment(name)
			p.try(router.Attach(s))
			mark := uint32(i + 1)
			// The networks overlap, so neither is in the main table.
			p.try(router.AddAddress(name, netip.MustParsePrefix(fmt.Sprintf("10.77.0.%d/32", i+1))))
			p.try(router.RouteByMark(mark, 100+int(mark), netip.MustParsePrefix("10.77.1.0/24"), netip.Addr{}, name))
			p.try(router.Sysctl("net.ipv4.conf."+name+".rp_filter", "0"))
			pieces = append(pieces, lab.MarkTCP(name, peer.Port, mark))
			for j := range 2 {
				at := p.station(fmt.Sprintf("%s%d", name, j+1), s, fmt.Sprintf("10.77.1.%d/16", j+1), fmt.Sprintf("10.77.0.%d", i+1))
				if name == "blue" {
					blue = append(blue, at)
				} else {
					red = append(red, at)
				}
			}
		}
		p.try(router.Sysctl("net.ipv4.conf.all.rp_filter", "0"))
		p.try(router.Firewall(append(pieces, lab.RestoreMark(), lab.Masquerade("wan"))...))
		p.try(router.ZoneOriginal("blue", 1))
		p.try(router.ZoneOriginal("red", 2))
		p.Site.Servers = append(p.Site.Servers, p.station("server", wan, "198.18.1.1/16", ""))
	})
	w.start(quickConfig)
	return w, blue, red
}

// The same, and the two clients with equal addresses have chosen equal ports as
// well: nothing but the zone tells their control connections apart. Where the
// kernel sends it along with the packet both have their calls. Where it does
// not, the second connection is refused and the first is not harmed.
func TestZonePerNetworkEqualPorts(t *testing.T) {
	w, blue, red := twoNetworks(t)
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	dial := func(at lab.Station) (*peer.Session, error) {
		ctx, cancel := context.WithTimeout(w.ctx, 3*time.Second)
		defer cancel()
		return w.node(at, peer.Config{CallID: peer.Fixed(3)}).ConnectFrom(ctx, 40_000, control(server))
	}
	up := func(session *peer.Session) leg {
		w.must(session.Start(w.ctx))
		return w.up(w.call(session), server)
	}
	session, err := dial(blue[0])
	w.must(err)
	legs := []leg{up(session)}
	session, err = dial(red[0])
	if strings.Contains(w.daemon.Log(), "come along") {
		w.must(err)
		legs = append(legs, up(session))
		if a, b := legs[0].server.PeerID(), legs[1].server.PeerID(); a == b {
			t.Errorf("the server was told Call ID %d twice", a)
		}
	} else if err == nil {
		t.Error("a control connection that nothing tells from another was let through")
	}
	w.talkLeg(legs...)
	w.status(len(legs))
	w.check(legs[0].client.HangUp(w.ctx))
	w.talkLeg(legs[1:]...)
	w.finish()
}
