package e2e

import (
	"net/netip"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// What peers do with Call IDs.

// Call-Disconnect-Notify names the server's own Call ID by RFC 2637 section
// 2.13, and the client's with some servers. Some clients look for the first,
// some for the second; each gets what it would have got without a router.
func TestDisconnectNotify(t *testing.T) {
	for name, byPeer := range map[string]bool{"own ID": false, "peer's ID": true} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 3, Servers: 1})
			// No two IDs anywhere are equal but the clients': then the one that
			// arrives says which was meant.
			server := w.server(0, peer.Config{CallID: peer.Counting(5000), DisconnectPeerID: byPeer})
			var legs []leg
			for i := range 3 {
				session := w.dial(w.client(i, peer.Config{CallID: peer.Counting(9)}), server)
				legs = append(legs, w.up(w.call(session), server), w.up(w.call(session), server))
			}
			w.talkLeg(legs...)
			w.listed(legs...)
			for i, l := range legs {
				want := l.client.PeerID()
				if byPeer {
					want = l.client.ID()
				}
				session := l.client.Session()
				seen := len(session.Received())
				if i%2 == 0 { // by itself, and as the answer to Call-Clear-Request
					w.check(l.server.HangUp(w.ctx))
				} else {
					w.check(l.client.HangUp(w.ctx))
				}
				m, err := session.WaitAfter(w.ctx, seen, func(m wire.Message) bool { return m.Type() == wire.TypeDisconnectNotify })
				w.must(err)
				if got := m.(*wire.DisconnectNotify).CallID; got != want {
					t.Errorf("%v is disconnected with %d instead of %d", l.client, got, want)
				}
				w.check(l.client.WaitEnd(w.ctx))
				w.status(len(legs) - i - 1)
				for _, rest := range legs[i+1:] {
					if rest.client.Ended() != "" {
						t.Errorf("%v ended with another call: %s", rest.client, rest.client.Ended())
					}
					w.talkLeg(rest)
				}
			}
			w.finish()
		})
	}
}

// The number in Call-Disconnect-Notify is the server's own ID of one call and
// the client's of another. By the RFC it is the server's own, and so it is read.
func TestDisconnectNotifyTie(t *testing.T) {
	w := withDaemon(t, lab.Plan{RawClients: 1, RawServers: 1})
	server := w.rawHost(w.RawServers[0], "wan", lab.WANRouter)
	p := w.connectRaw(w.rawHost(w.RawClients[0], "lan", lab.LANRouter), server, server.Listen(peer.Port, 1), raw.Options{})
	toldA, serverToldA := p.call(10, 20)
	toldB, serverToldB := p.call(20, 30) // the client's ID is the server's of the other call
	if toldA != 10 || toldB != 20 {
		t.Fatalf("free Call IDs became %d and %d", toldA, toldB)
	}
	p.deliver(&p.down, wire.Encode(&wire.DisconnectNotify{CallID: 20, Result: wire.DisconnectAdmin}))
	if got := last[*wire.DisconnectNotify](p, &p.down).CallID; got != serverToldA {
		t.Errorf("the client was told %d for the call that ended and is disconnected from %d", serverToldA, got)
	}
	w.status(1)
	p.gre(20, toldB, 30, serverToldB)
	p.consistent("tie")
	w.must(p.up.from.Reset())
	w.finish()
}

// Odd and equal Call IDs on each side and on both. Two clients at one server
// have the same one, so at least one of them is translated.
func TestOddCallIDs(t *testing.T) {
	for _, c := range []struct {
		name           string
		client, server uint16 // the server counts upwards, past 65535 to 0
	}{
		{"client 0", 0, 300},
		{"server 0", 300, 0},
		{"both 0", 0, 0},
		{"client 65535", 65535, 300},
		{"server 65535, then 0", 300, 65535},
		{"both 65535", 65535, 65535},
		{"client 0, server 65535", 0, 65535},
		{"client 65535, server 0", 65535, 0},
		{"equal", 1234, 1234},
		{"one apart", 1235, 1234}, // the client's is the second call's server ID
	} {
		t.Run(c.name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 3, Servers: 1, Firewall: strict()})
			server := w.server(0, peer.Config{CallID: peer.Counting(c.server)})
			var legs []leg
			for i := range 3 {
				legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(c.client)}), server), server))
			}
			w.talkLeg(legs...)
			w.listed(legs...)
			told := map[uint16]bool{}
			for _, l := range legs {
				if a, b := l.client.PeerID(), l.server.PeerID(); a == 0 || b == 0 || told[b] {
					t.Errorf("%v was told %d, the server %d: never 0, nor one twice", l.client, a, b)
				}
				told[l.server.PeerID()] = true
			}
			w.hangUp(legs...)
			w.finish()
		})
	}
}

// Both sides use their Call IDs again at once after clearing, while the old
// call's last packets may be under way and its told Call IDs rest.
func TestCallIDUsedAgain(t *testing.T) {
	const again = 8
	for _, c := range []struct {
		name       string
		reconnect  bool
		byServer   bool
		client, id uint16
	}{
		{"same connection", false, false, 5, 6},
		{"same connection, cleared by the server", false, true, 5, 6},
		{"same connection, 0 and 0", false, false, 0, 0},
		{"new connection", true, false, 5, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			ids := peer.Fixed(c.id)
			others := true
			server := w.server(0, peer.Config{CallID: func() uint16 {
				if others {
					return c.id + 1
				}
				return ids()
			}})
			bystander := w.up(w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(c.client)}), server), server)
			others = false
			client := w.client(0, peer.Config{CallID: peer.Fixed(c.client)})
			session := w.dial(client, server)
			for range again {
				l := w.up(w.call(session), server)
				w.talkLeg(l, bystander)
				w.listed(l, bystander)
				switch {
				case c.reconnect:
					w.check(session.Stop(w.ctx))
					<-l.server.Done()
					session = w.dial(client, server)
				case c.byServer:
					w.check(l.server.HangUp(w.ctx), l.client.WaitEnd(w.ctx))
				default:
					w.check(l.client.HangUp(w.ctx))
				}
			}
			w.talkLeg(bystander)
			w.finish()
		})
	}
}

// Several configured control ports: the one that is dialled counts, and so does
// the one on which the server listens, where a DNAT lies between.
func TestSeveralControlPorts(t *testing.T) {
	for _, c := range []struct {
		name          string
		dialled, real uint16
		config        string
	}{
		{"1723 beside another", 1723, 1723, "ports = [1723, 4723]"},
		{"another beside 1723", 4723, 4723, "ports = [1723, 4723]"},
		{"dialled one configured", 4723, 9999, "ports = [1723, 4723]"},
		{"real one configured", 9999, 4723, "ports = [1723, 4723]"},
		{"both configured", 4723, 1723, "ports = [1723, 4723]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, lab.Plan{Clients: 1, Servers: 2, Firewall: []lab.Piece{lab.Masquerade("wan"),
				lab.DNAT(netip.AddrPortFrom(lab.WANRouter, c.dialled), netip.AddrPortFrom(at("10.77.1.1"), c.real))}})
			w.start(c.config + "\n" + quickConfig)
			server := w.node(w.Clients[0], peer.Config{CallID: peer.Counting(0)})
			w.must(server.Listen(c.real))
			var legs []leg
			for i := range 2 {
				client := w.node(w.Servers[i], peer.Config{CallID: peer.Fixed(8)})
				legs = append(legs, w.up(w.call(w.dialTo(client, netip.AddrPortFrom(lab.WANRouter, c.dialled))), server))
			}
			w.talkLeg(legs...)
			w.listed(legs...)
			w.hangUp(legs...)
			w.finish()
		})
	}
}
