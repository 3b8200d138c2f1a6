package e2e

import (
	"math/rand/v2"
	"sync"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// Both modes of RFC 2637: voluntary tunnels, where the client is the PNS and
// dials, and compulsory ones, where an access concentrator (PAC) announces the
// calls of many users on one control connection.

// An inside PNS and an outside PAC, with every message that the two have for
// each other, and the keepalives of two days. Days cannot pass in a test: a
// keepalive is due every 60 seconds (RFC 2637 section 3.1.4), and here they come
// one after the other. What time itself does to a connection is tested where
// time is an argument, in packages alg and nat.
func TestVoluntaryTunnel(t *testing.T) {
	const twoDays = 2 * 24 * 60
	keepalives := twoDays
	if testing.Short() {
		keepalives = 100
	}
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	other := w.up(w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(7)}), server), server)
	_, err := server.Accept(w.ctx)
	w.must(err)
	session := w.dial(w.client(0, peer.Config{CallID: peer.Counting(7)}), server)
	accepted, err := server.Accept(w.ctx)
	w.must(err)
	first, second := w.up(w.call(session), server), w.up(w.call(session), server)
	w.talkLeg(other, first, second)
	w.listed(other, first, second)

	w.check(first.client.SetLinkInfo(), second.client.SetLinkInfo(), second.client.SetLinkInfo(), first.server.WANError(),
		second.server.WANError(), first.server.WANError())
	var both sync.WaitGroup
	for _, s := range []*peer.Session{session, accepted} {
		both.Go(func() {
			for range keepalives {
				if err := s.Ping(w.ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	both.Wait()
	for _, n := range []struct {
		what      string
		got, want int
	}{
		{"Set-Link-Info for the first call", first.server.Stats().SetLinkInfo, 1},
		{"Set-Link-Info for the second call", second.server.Stats().SetLinkInfo, 2},
		{"WAN-Error-Notify for the first call", first.client.Stats().WAN, 2},
		{"WAN-Error-Notify for the second call", second.client.Stats().WAN, 1},
	} {
		if n.got != n.want {
			t.Errorf("%s arrived %d times instead of %d", n.what, n.got, n.want)
		}
	}
	w.talkLeg(first, second, other)

	w.check(first.client.HangUp(w.ctx)) // Call-Clear-Request, Call-Disconnect-Notify
	w.ended("cleared by the client", from(w.Clients[0].Address, first.client.ID()))
	w.check(second.server.HangUp(w.ctx), second.client.WaitEnd(w.ctx)) // Call-Disconnect-Notify alone
	w.ended("disconnected by the server", from(w.Clients[0].Address, second.client.ID()))
	third := w.up(w.call(session), server)
	w.talkLeg(third, other)
	w.check(session.Stop(w.ctx))
	<-accepted.Done()
	w.ended("client stopped the control connection", from(w.Clients[0].Address, third.client.ID()))
	w.check(peer.CompareStreams(session.Sent(), accepted.Read(), false), peer.CompareStreams(accepted.Sent(), session.Read(), false))
	w.listed(other)
	// And stopped by the server.
	w.check(other.server.Session().Stop(w.ctx), other.client.WaitEnd(w.ctx))
	w.ended("server stopped the control connection", from(w.Clients[1].Address, 7))
	w.finish()
}

// The same, with the PAC and the PNS in each place and TCP opened by each: many
// calls on one control connection, cleared in random order by both sides, while
// another pair does the same with the same Call IDs.
func TestCompulsoryTunnel(t *testing.T) {
	for _, c := range []struct {
		name              string
		pacInside, byPAC  bool
		many, manyInShort int
	}{
		{"PAC inside opens", true, true, 300, 20},
		{"PAC inside, PNS opens", true, false, 40, 10},
		{"PNS inside opens", false, false, 300, 20},
		{"PNS inside, PAC opens", false, true, 40, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			many := c.many
			if testing.Short() {
				many = c.manyInShort
			}
			outward := c.pacInside == c.byPAC // the inside opens
			w := inside(t, 2, 2, to(peer.Port, 0))
			// Two pairs. Opened from the inside: two clients, one server.
			// Opened from the outside: two outside clients, one server inside.
			openers, at, address := w.Clients, w.Servers[0], w.Servers[0].Address
			if !outward {
				openers, at, address = w.Servers, w.Clients[0], lab.WANRouter
			}
			opened := w.listen(at, peer.Config{CallID: peer.Counting(1)})
			var legs []leg
			for i := range 2 {
				opener := w.node(openers[i], peer.Config{CallID: peer.Counting(1)})
				session := w.dialTo(opener, public(address))
				accepted, err := opened.Accept(w.ctx)
				w.must(err)
				for range many / 2 {
					caller, place := session, w.up
					far := opened
					if !c.byPAC { // then the PAC is the end that was dialled
						caller, place, far = accepted, w.down, opener
					}
					call, err := caller.IncomingCall(w.ctx)
					w.must(err)
					legs = append(legs, place(call, far))
				}
			}
			w.talkMany(legs)
			w.listed(legs...)
			for _, s := range w.daemonStatus().Calls {
				if s.Direction != "incoming" {
					t.Errorf("status says %s for a call that the PAC announced", s.Direction)
				}
			}
			w.toldApart(legs)
			r.Shuffle(len(legs), func(i, j int) { legs[i], legs[j] = legs[j], legs[i] })
			for len(legs) > 0 {
				n := (len(legs) + 1) / 2
				for _, l := range legs[:n] {
					end, other := l.client, l.server
					if r.IntN(2) == 0 {
						end, other = other, end
					}
					w.check(end.HangUp(w.ctx), other.WaitEnd(w.ctx))
				}
				legs = legs[n:]
				w.status(len(legs))
				w.talkMany(legs)
				for _, l := range legs {
					if l.client.Ended() != "" || l.server.Ended() != "" {
						t.Errorf("%v ended with others: %q, %q", l.client, l.client.Ended(), l.server.Ended())
					}
				}
			}
			w.finish()
		})
	}
}

// talkMany is talkLeg for so many calls that they had better talk at once.
func (w *world) talkMany(legs []leg) {
	w.Helper()
	var wg sync.WaitGroup
	for _, l := range legs {
		wg.Go(func() { w.check(l.client.Echo(w.ctx, 3, 200), l.server.Echo(w.ctx, 2, 200)) })
	}
	wg.Wait()
}

// Calls announced by the PAC and calls dialled by the PNS on one connection.
func TestBothKindsOfCalls(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(1)})
	var legs []leg
	for i := range 2 {
		client := w.client(i, peer.Config{CallID: peer.Counting(1)})
		session := w.dial(client, server)
		accepted, err := server.Accept(w.ctx)
		w.must(err)
		for range 3 {
			announced, err := session.IncomingCall(w.ctx)
			w.must(err)
			dialledBack, err := accepted.OutgoingCall(w.ctx) // the server is the PNS here
			w.must(err)
			announcedBack, err := accepted.IncomingCall(w.ctx)
			w.must(err)
			legs = append(legs, w.up(announced, server), w.up(w.call(session), server), w.down(dialledBack, client), w.down(announcedBack, client))
		}
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.toldApart(legs)
	w.hangUp(legs...)
	w.finish()
}

// Several outgoing calls on one control connection, with equal client Call IDs.
// The client tells them apart by the server's IDs; the packets that it gets by
// their contents. A second client does the same.
func TestEqualCallIDsOnOneConnection(t *testing.T) {
	const id, calls = 5, 4
	w := withDaemon(t, lab.Plan{RawClients: 2, RawServers: 1})
	server := w.rawHost(w.RawServers[0], "wan", lab.WANRouter)
	listener := server.Listen(peer.Port, 77)
	type call struct {
		*pair
		serverID, told, serverTold uint16
	}
	var all []call
	var pairs []*pair
	for i := range 2 {
		p := w.connectRaw(w.rawHost(w.RawClients[i], "lan", lab.LANRouter), server, listener, raw.Options{})
		pairs = append(pairs, p)
		for j := range calls {
			c := call{pair: p, serverID: uint16(100 + i*calls + j)}
			c.told, c.serverTold = p.call(id, c.serverID)
			all = append(all, c)
		}
	}
	told := map[uint16]bool{}
	for _, c := range all {
		if told[c.told] || c.told == 0 {
			t.Errorf("the server was told Call ID %d twice", c.told)
		}
		told[c.told] = true
		c.gre(id, c.told, c.serverID, c.serverTold)
	}
	w.status(len(all))
	// The server clears them, the last ones first.
	for i := len(all) - 1; i >= 0; i-- {
		c := all[i]
		c.deliver(&c.down, wire.Encode(&wire.DisconnectNotify{CallID: c.serverID, Result: wire.DisconnectAdmin}))
		if got := last[*wire.DisconnectNotify](c.pair, &c.down).CallID; got != c.serverTold {
			t.Errorf("the client was told %d and is disconnected from %d", c.serverTold, got)
		}
		w.status(i)
		for _, rest := range all[:i] {
			rest.gre(id, rest.told, rest.serverID, rest.serverTold)
		}
	}
	for _, p := range pairs {
		p.consistent("equal Call IDs")
		w.must(p.up.from.Reset())
	}
	w.finish()
}

// The client clears calls with equal Call IDs. Its request names no single one
// of them; the oldest is meant, and the answer says which it was.
func TestClearOneOfEqualCallIDs(t *testing.T) {
	const id = 5
	w := withDaemon(t, lab.Plan{RawClients: 1, RawServers: 1})
	server := w.rawHost(w.RawServers[0], "wan", lab.WANRouter)
	p := w.connectRaw(w.rawHost(w.RawClients[0], "lan", lab.LANRouter), server, server.Listen(peer.Port, 77), raw.Options{})
	type ids struct{ told, serverTold uint16 }
	var all []ids
	for i := range 3 {
		told, serverTold := p.call(id, uint16(100+i))
		all = append(all, ids{told, serverTold})
	}
	for i, c := range all {
		p.deliver(&p.up, wire.Encode(&wire.ClearRequest{CallID: id}))
		if got := last[*wire.ClearRequest](p, &p.up).CallID; got != c.told {
			t.Errorf("the server is to clear %d instead of %d, the oldest", got, c.told)
		}
		p.deliver(&p.down, wire.Encode(&wire.DisconnectNotify{CallID: uint16(100 + i), Result: wire.DisconnectRequest}))
		if got := last[*wire.DisconnectNotify](p, &p.down).CallID; got != c.serverTold {
			t.Errorf("the client was told %d and is disconnected from %d", c.serverTold, got)
		}
		w.status(len(all) - i - 1)
		for j, rest := range all[i+1:] {
			p.gre(id, rest.told, uint16(100+i+1+j), rest.serverTold)
		}
	}
	p.consistent("equal Call IDs")
	w.must(p.up.from.Reset())
	w.finish()
}
