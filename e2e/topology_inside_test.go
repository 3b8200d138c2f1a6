package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// Servers inside: port forwarding (B' is the router's address), alone and
// several, and hairpin NAT, where A' differs from A as well.

const lanNet = "10.77.0.0/16"

// inside makes a lab whose Clients are inside and, here, mostly servers, and
// whose Servers are outside and, here, mostly clients.
func inside(t *testing.T, insiders, outsiders int, pieces ...lab.Piece) *world {
	t.Helper()
	pieces = append(pieces, lab.Masquerade("wan"))
	return withDaemon(t, lab.Plan{Clients: insiders, Servers: outsiders, Firewall: pieces})
}

// to is a DNAT from a port of the router's public address to the control port
// of the i-th inside host.
func to(port uint16, i int) lab.Piece {
	address := lab.LANRouter.As4()
	address[2], address[3] = 1, byte(1+i)
	return lab.DNAT(netip.AddrPortFrom(lab.WANRouter, port), public(netip.AddrFrom4(address)))
}

// One server inside, several outside clients with equal Call IDs; the firewall
// lets nothing in but its control connections.
func TestPortForwarding(t *testing.T) {
	w := inside(t, 1, 3, to(peer.Port, 0), lab.ForwardDrop(), lab.DropInvalid(), lab.AcceptEstablished(), lab.AcceptTCP("wan", peer.Port))
	server := w.listen(w.Clients[0], peer.Config{CallID: peer.Counting(0)})
	var legs []leg
	for i := range 3 {
		call := w.call(w.dialTo(w.node(w.Servers[i], peer.Config{CallID: peer.Fixed(7)}), public(lab.WANRouter)))
		legs = append(legs, w.up(call, server))
		if l := legs[i]; l.client.Remote() != lab.WANRouter || l.server.Remote() != w.Servers[i].Address {
			t.Errorf("the client sees %v, the server %v", l.client.Remote(), l.server.Remote())
		}
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.hangUp(legs...)
	w.finish()
}

// Several inside servers on different ports of one public address, and all of
// them give equal Call IDs to the same outside address.
func TestServersOnPorts(t *testing.T) {
	const servers = 3
	w := inside(t, servers, 2, to(peer.Port, 0), to(2723, 1), to(3723, 2))
	var clients []*peer.Node
	for i := range 2 {
		clients = append(clients, w.node(w.Servers[i], peer.Config{CallID: peer.Counting(30)}))
	}
	var legs []leg
	for i := range servers {
		server := w.listen(w.Clients[i], peer.Config{CallID: peer.Counting(0)})
		for _, client := range clients {
			port := []uint16{peer.Port, 2723, 3723}[i]
			legs = append(legs, w.up(w.call(w.dialTo(client, netip.AddrPortFrom(lab.WANRouter, port))), server))
		}
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.toldApart(legs)
	w.hangUp(legs...)
	w.finish()
}

// toldApart fails if one client was told one server Call ID twice, or 0.
func (w *world) toldApart(legs []leg) {
	w.Helper()
	told := map[string]bool{}
	for _, l := range legs {
		name := fmt.Sprintf("%v %v", l.expect().Client.Address, l.client.PeerID())
		if told[name] || l.client.PeerID() == 0 {
			w.Errorf("%v was told server Call ID %d (0, or told before)", l.client, l.client.PeerID())
		}
		told[name] = true
	}
}

// Servers behind a DNAT that spreads connections. Every connection's calls stay
// with its own server, though they all give equal Call IDs to one address.
func TestBalancedServers(t *testing.T) {
	for name, by := range map[string]lab.Spread{"numgen": lab.InTurn, "jhash": lab.ByClient} {
		t.Run(name, func(t *testing.T) {
			const servers, connections = 3, 9
			var addresses []netip.Addr
			for i := range servers {
				addresses = append(addresses, netip.AddrFrom4([4]byte{10, 77, 1, byte(1 + i)}))
			}
			w := inside(t, servers, 1, lab.Balance(public(lab.WANRouter), by, peer.Port, addresses...))
			var nodes []*peer.Node
			for i := range servers {
				nodes = append(nodes, w.listen(w.Clients[i], peer.Config{CallID: peer.Counting(0)}))
			}
			client := w.node(w.Servers[0], peer.Config{CallID: peer.Counting(500)})
			var legs []leg
			for range connections {
				call := w.call(w.dialTo(client, public(lab.WANRouter)))
				legs = append(legs, leg{call, w.anywhere(call, nodes)})
			}
			used := map[netip.Addr]int{}
			for _, l := range legs {
				used[l.expect().Server.Address]++
			}
			if by == lab.InTurn && len(used) != servers || len(used) < 2 {
				t.Errorf("the connections went to %v", used)
			}
			w.talkLeg(legs...)
			w.listed(legs...)
			w.toldApart(legs)
			w.hangUp(legs...)
			w.finish()
		})
	}
}

// anywhere finds a call's other end at one of several nodes.
func (w *world) anywhere(c *peer.Call, nodes []*peer.Node) *peer.Call {
	w.Helper()
	for _, n := range nodes {
		for _, far := range n.Calls() {
			if far.Token() == c.Token() {
				return far
			}
		}
	}
	w.Fatalf("%v is at no server", c)
	return nil
}

// One client gives one Call ID to two servers that share their public address:
// as far as the client can know they are one server, and it has begun a new
// call with the ID of another. The newer call has it.
func TestOneIDForTwoServersBehindOneAddress(t *testing.T) {
	w := inside(t, 2, 2, to(peer.Port, 0), to(2723, 1))
	first, second := w.listen(w.Clients[0], peer.Config{}), w.listen(w.Clients[1], peer.Config{})
	bystander := w.up(w.call(w.dialTo(w.node(w.Servers[1], peer.Config{CallID: peer.Fixed(7)}), public(lab.WANRouter))), first)
	// A peer would not do that: its first connection speaks by hand.
	var manual net.Conn
	w.must(w.Servers[0].Do(func() (err error) {
		manual, err = net.Dial("tcp4", public(lab.WANRouter).String())
		return err
	}))
	defer func() { _ = manual.Close() }()
	_, err := manual.Write(slices.Concat(wire.Encode(&wire.StartRequest{ProtocolVersion: wire.Version}),
		wire.Encode(&wire.OutgoingCallRequest{CallID: 7, PhoneNumber: wire.MakeText("1")})))
	w.must(err)
	w.status(2)
	client := w.node(w.Servers[0], peer.Config{CallID: peer.Fixed(7)})
	call := w.up(w.call(w.dialTo(client, netip.AddrPortFrom(lab.WANRouter, 2723))), second)
	w.talkLeg(call, bystander)
	w.ended("its Call ID was given to a newer call", func(c lab.CallStatus) bool {
		return c.Client.Address == w.Servers[0].Address && c.Server.Address == w.Clients[0].Address
	})
	w.listed(call, bystander)
	w.finish()
}

// Inside clients reach an inside server by the public address: all four
// addresses differ. An outside client with the same Call ID is there as well.
func TestHairpin(t *testing.T) {
	w := inside(t, 3, 1, to(peer.Port, 0), lab.SNATInside(netip.MustParsePrefix(lanNet), "lan"))
	server := w.listen(w.Clients[0], peer.Config{CallID: peer.Counting(6)})
	var legs []leg
	for _, at := range []lab.Station{w.Clients[1], w.Clients[2], w.Servers[0]} {
		legs = append(legs, w.up(w.call(w.dialTo(w.node(at, peer.Config{CallID: peer.Fixed(6)}), public(lab.WANRouter))), server))
	}
	for _, l := range legs[:2] {
		if l.client.Remote() != lab.WANRouter || l.server.Remote() != lab.LANRouter {
			t.Errorf("not a hairpin: the client sees %v, the server %v", l.client.Remote(), l.server.Remote())
		}
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.toldApart(legs)
	w.hangUp(legs...)
	w.finish()
}

// Two clients behind one public address to whom one server gave one Call ID:
// their packets to the server would be the same. The second is refused with a
// reason, and the first goes on.
func TestOneServerIDForTwoClients(t *testing.T) {
	w := withDaemon(t, lab.Plan{RawClients: 2, RawServers: 1})
	server := w.rawHost(w.RawServers[0], "wan", lab.WANRouter)
	listener := server.Listen(peer.Port, 1000)
	first := w.connectRaw(w.rawHost(w.RawClients[0], "lan", lab.LANRouter), server, listener, raw.Options{})
	second := w.connectRaw(w.rawHost(w.RawClients[1], "lan", lab.LANRouter), server, listener, raw.Options{})
	told, serverTold := first.call(7, 100)
	first.gre(7, told, 100, serverTold)

	second.deliver(&second.up, request(8))
	second.deliver(&second.down, reply(100, last[*wire.OutgoingCallRequest](second, &second.up).CallID))
	answer := last[*wire.OutgoingCallReply](second, &second.down)
	if answer.PeerCallID != 8 || answer.Result != wire.ResultError || answer.ErrorCode != wire.ErrorNoResource {
		t.Errorf("the second client got %s, error %d, instead of general error, no resources", wire.Describe(answer), answer.ErrorCode)
	}
	w.ended("refused by this router: Call ID is in use by another call between the same addresses", from(w.RawClients[1].Address, 8))
	first.gre(7, told, 100, serverTold)

	toldNext, serverToldNext := second.call(9, 101) // now with an ID of its own
	second.gre(9, toldNext, 101, serverToldNext)
	first.gre(7, told, 100, serverTold)
	first.consistent("first client")
	w.status(2)
	w.must(first.up.from.Reset(), second.up.from.Reset())
	w.finish()
}

// A pool of public addresses: the call leaves from the address that its control
// connection has.
func TestAddressPool(t *testing.T) {
	first, last := at("198.18.0.40"), at("198.18.0.47")
	for name, piece := range map[string]lab.Piece{
		"plain":      lab.SNAT("wan", first, last),
		"persistent": lab.SNATPersistent("wan", first, last),
		"random":     lab.SNATRandom("wan", first, last),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, lab.Plan{Clients: 12, Servers: 2, Shared: true, Firewall: []lab.Piece{piece}})
			for a := first; a.Compare(last) <= 0; a = a.Next() {
				w.must(w.Router.AddAddress("wan", netip.PrefixFrom(a, 16)))
			}
			w.start(quickConfig)
			var servers []*peer.Node
			for i := range 2 {
				servers = append(servers, w.server(i, peer.Config{CallID: peer.Counting(0)}))
			}
			var legs []leg
			used := map[netip.Addr]bool{}
			for i := range 12 {
				client := w.client(i, peer.Config{CallID: peer.Fixed(9)})
				for _, server := range servers {
					l := w.up(w.dialAndCall(client, server), server)
					if l.server.Session().Remote().Addr() != l.server.Remote() {
						t.Errorf("%v: its control connection comes from %v", l.server, l.server.Session().Remote())
					}
					used[l.server.Remote()] = true
					legs = append(legs, l)
				}
			}
			if len(used) < 2 || used[lab.WANRouter] {
				t.Errorf("calls come from %v", used)
			}
			w.talkLeg(legs...)
			w.listed(legs...)
			w.finish()
		})
	}
}

// One server gives one Call ID twice to one client, on two control connections.
// The newer call has it.
func TestOneServerIDForOneClient(t *testing.T) {
	w := withDaemon(t, lab.Plan{RawClients: 2, RawServers: 1})
	server := w.rawHost(w.RawServers[0], "wan", lab.WANRouter)
	listener := server.Listen(peer.Port, 1000)
	client := w.rawHost(w.RawClients[0], "lan", lab.LANRouter)
	older := w.connectRaw(client, server, listener, raw.Options{})
	newer := w.connectRaw(client, server, listener, raw.Options{})
	bystander := w.connectRaw(w.rawHost(w.RawClients[1], "lan", lab.LANRouter), server, listener, raw.Options{})
	told, serverTold := older.call(7, 100)
	older.gre(7, told, 100, serverTold)
	bystanderTold, bystanderServerTold := bystander.call(7, 101)
	told, serverTold = newer.call(8, 100)
	newer.gre(8, told, 100, serverTold)
	w.ended("its Call ID was given to a newer call", from(w.RawClients[0].Address, 7))
	w.status(2)
	bystander.gre(7, bystanderTold, 101, bystanderServerTold)
	w.must(older.up.from.Reset(), newer.up.from.Reset(), bystander.up.from.Reset())
	w.finish()
}
