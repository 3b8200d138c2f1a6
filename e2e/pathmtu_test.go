package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// Path MTU: a hop that cannot forward a packet says so with an ICMP message that
// quotes the packet as it was there. It has to reach the end that sent the
// packet, and the quotation has to be the packet as that end knows it.

const smallMTU = 700

// hops draws two clients, an inner hop, the router, an outer hop and a server.
// Beyond both hops the MTU is small. raws decides what kind of hosts.
func hops(t *testing.T, raws bool) *world {
	t.Helper()
	return drawn(t, func(p *plan) {
		office, lan, wan, far := p.segment("office"), p.segment("lan"), p.segment("wan"), p.segment("far")
		router := p.router("router")
		p.attach(router, lan, "10.77.0.1/16")
		p.attach(router, wan, "198.18.0.1/16")
		p.try(router.Route(netip.MustParsePrefix("10.78.0.0/16"), at("10.77.0.2")))
		p.try(router.Route(netip.MustParsePrefix("203.0.113.0/24"), at("198.18.0.2")))
		p.try(router.Firewall(lab.Masquerade("wan"), lab.StrictForward("lan", peer.Port)))
		in := p.router("inner hop")
		p.attach(in, lan, "10.77.0.2/16")
		p.attach(in, office, "10.78.0.1/16")
		p.try(in.Route(netip.Prefix{}, at("10.77.0.1")))
		out := p.router("outer hop")
		p.attach(out, wan, "198.18.0.2/16")
		p.attach(out, far, "203.0.113.254/24")
		p.try(in.SmallMTU(netip.MustParsePrefix("10.78.1.0/24"), "office", smallMTU))
		p.try(out.SmallMTU(netip.MustParsePrefix("203.0.113.1/32"), "far", smallMTU))
		for i := range 2 {
			name, address := fmt.Sprintf("client%d", i+1), fmt.Sprintf("10.78.1.%d", i+1)
			if raws {
				p.RawClients = append(p.RawClients, p.raw(name, office, address))
			} else {
				p.Site.Clients = append(p.Site.Clients, p.station(name, office, address+"/16", "10.78.0.1"))
			}
		}
		if raws {
			p.RawServers = append(p.RawServers, p.raw("server", far, "203.0.113.1"))
		} else {
			p.Site.Servers = append(p.Site.Servers, p.station("server", far, "203.0.113.1/24", "203.0.113.254"))
		}
	})
}

// quoted is what an ICMP "fragmentation needed" says about a GRE packet.
type quoted struct {
	src, dst netip.Addr
	callID   uint16
	mtu      uint16
}

func (q quoted) String() string {
	return fmt.Sprintf("GRE %v > %v call %d, MTU %d", q.src, q.dst, q.callID, q.mtu)
}

func readQuoted(m *layers.ICMPv4) (q quoted, ok bool) {
	b := m.Payload
	if m.TypeCode.Type() != layers.ICMPv4TypeDestinationUnreachable || m.TypeCode.Code() != layers.ICMPv4CodeFragmentationNeeded ||
		len(b) < 28 || b[9] != wire.ProtocolGRE {
		return q, false
	}
	q.src, q.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	return quoted{q.src, q.dst, binary.BigEndian.Uint16(b[int(b[0]&15)*4+6:]), m.Seq}, true // the MTU stands where an echo has its number
}

// tooBig sends a packet that a hop cannot forward and waits for the news.
func (w *world) tooBig(from *raw.Host, to netip.Addr, id uint16, wait time.Duration) (quoted, error) {
	seen := len(from.ICMP())
	err := from.SendGRE(to, wire.GRE{CallID: id, HasSeq: true, Payload: bytes.Repeat([]byte{0xa5}, 1000)})
	for end := time.Now().Add(wait); err == nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, m := range from.ICMP()[seen:] {
			if got, ok := readQuoted(m); ok {
				return got, nil
			}
		}
	}
	return quoted{}, errors.Join(err, fmt.Errorf("no ICMP about GRE reached %v", from.Address()))
}

// The news from a hop beyond the router reaches the client and the server that
// sent the packet, with the Call ID that it put there itself.
func TestFragmentationNeeded(t *testing.T) {
	w := hops(t, true)
	w.start(quickConfig)
	server := w.rawHost(w.RawServers[0], "far", netip.MustParseAddr("203.0.113.254"))
	listener := server.Listen(peer.Port, 1)
	var pairs []*pair
	for i, station := range w.RawClients {
		p := w.connectRaw(w.rawHost(station, "office", netip.MustParseAddr("10.78.0.1")), server, listener, raw.Options{})
		serverID := uint16(100 + i)
		if i == 1 {
			serverID = 5 // for the client nobody's, so that it may be told as it is
		}
		told, serverTold := p.call(5, serverID)
		p.gre(5, told, serverID, serverTold)
		got, err := w.tooBig(p.client, server.Address(), serverTold, patience)
		if want := (quoted{station.Address, server.Address(), serverTold, smallMTU}); got != want {
			t.Errorf("the client got news of %v instead of %v: %v", got, want, err)
		}
		got, err = w.tooBig(server, lab.WANRouter, told, patience)
		if want := (quoted{server.Address(), lab.WANRouter, told, smallMTU}); got != want {
			t.Errorf("the server got news of %v instead of %v: %v", got, want, err)
		}
		// Nobody else heard of it.
		if n := len(p.client.ICMP()); n != 1 {
			t.Errorf("the client got %d ICMP messages", n)
		}
		if n := len(server.ICMP()); n != i+1 {
			t.Errorf("the server got %d ICMP messages", n)
		}
		p.gre(5, told, serverID, serverTold)
		pairs = append(pairs, p)
	}
	w.status(2)
	for _, p := range pairs {
		p.consistent("small MTU")
		w.must(p.up.from.Reset())
	}
	w.finish()
}

// And so ends that listen to it send smaller packets: calls work.
func TestPathMTUDiscovery(t *testing.T) {
	w := hops(t, false)
	w.start(quickConfig)
	server := w.listen(w.Servers[0], peer.Config{CallID: peer.Counting(0)})
	var legs []leg
	for i := range w.Clients {
		legs = append(legs, w.up(w.dialAndCall(w.node(w.Clients[i], peer.Config{CallID: peer.Fixed(5)}), server), server))
	}
	w.talkLeg(legs...)
	for _, l := range legs {
		for what, c := range map[string]*peer.Call{"from the client": l.client, "from the server": l.server} {
			w.eventually("big packets "+what, func() error { return c.EchoWithin(w.ctx, 500*time.Millisecond, 1, 1200) })
			w.check(c.Echo(w.ctx, 3, 1200))
		}
	}
	w.listed(legs...)
	w.hangUp(legs...)
	w.finish()
}

// GRE that its sender has fragmented arrives whole.
func TestFragmentedGRE(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	capture, err := w.Router.CaptureIf(func(p *lab.Packet) bool { return p.Fragment }, "lan", "wan")
	w.must(err)
	var legs []leg
	for i := range 2 {
		legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(5)}), server), server))
	}
	for _, l := range legs {
		for _, size := range []int{1468, 1469, 1500, 4000, 20_000} {
			w.check(l.client.Echo(w.ctx, 2, size), l.server.Echo(w.ctx, 2, size))
		}
	}
	fragments := map[string]int{}
	for _, p := range capture.Packets() {
		fragments[fmt.Sprintf("%s %v", p.Device, p.Out)]++
	}
	if len(fragments) != 4 {
		t.Errorf("fragments were seen at %v; they should come and leave on both sides", fragments)
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.hangUp(legs...)
	w.finish()
}
