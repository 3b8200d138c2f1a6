package e2e

import (
	"errors"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// What may happen to the TCP connection under a control connection.

// A control connection is opened again from the same port, after a reset and
// after an end in order, with the same Call IDs.
func TestReopenedFromSamePort(t *testing.T) {
	for name, end := range map[string]func(*world, leg){
		"after RST": func(_ *world, l leg) { l.client.Session().Abort() },
		// Whoever closes first remembers the connection for a minute.
		"after FIN of the server": func(w *world, l leg) { l.server.Session().Close(); <-l.client.Session().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			server := w.server(0, peer.Config{CallID: peer.Counting(20)})
			client := w.client(0, peer.Config{CallID: peer.Fixed(6)})
			bystander := w.up(w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(6)}), server), server)
			for range 4 {
				var session *peer.Session
				w.eventually("the port should be free again", func() (err error) { // until the last FIN is acknowledged
					session, err = client.ConnectFrom(w.ctx, 41_000, control(server))
					return err
				})
				w.must(session.Start(w.ctx))
				l := w.up(w.call(session), server)
				w.talkLeg(l, bystander)
				w.listed(l, bystander)
				end(w, l)
				w.check(l.client.WaitEnd(w.ctx), l.server.WaitEnd(w.ctx))
			}
			w.talkLeg(bystander)
			w.finish()
		})
	}
}

// A reset in the middle of a message, in either direction.
func TestResetInMessage(t *testing.T) {
	for name, byServer := range map[string]bool{"by the client": false, "by the server": true} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			server := w.server(0, peer.Config{})
			first := w.client(0, peer.Config{CallID: peer.Counting(6)})
			legs := []leg{w.up(w.dialAndCall(first, server), server),
				w.up(w.dialAndCall(w.client(1, peer.Config{CallID: peer.Counting(6)}), server), server)}
			w.talkLeg(legs...)
			end := legs[0].client.Session()
			half := wire.Encode(&wire.OutgoingCallRequest{CallID: 0x0607})[:13] // into the Call ID
			if byServer {
				end, half = legs[0].server.Session(), wire.Encode(&wire.DisconnectNotify{CallID: legs[0].server.ID()})[:13]
			}
			w.must(end.SendBytes(half))
			w.talkLeg(legs[0]) // half a message ends nothing
			end.Abort()
			w.check(legs[0].client.WaitEnd(w.ctx), legs[0].server.WaitEnd(w.ctx))
			w.ended("control connection reset by the", from(w.Clients[0].Address, 6))
			w.listed(legs[1])
			again := w.up(w.dialAndCall(first, server), server)
			w.talkLeg(legs[1], again)
			w.finish()
		})
	}
}

// The client has closed its half of the connection; what the server still says
// is translated, and its calls end.
func TestHalfClosed(t *testing.T) {
	w := withDaemon(t, lab.Plan{RawClients: 2, RawServers: 1})
	server := w.rawHost(w.RawServers[0], "wan", lab.WANRouter)
	listener := server.Listen(peer.Port, 1000)
	other := w.connectRaw(w.rawHost(w.RawClients[1], "lan", lab.LANRouter), server, listener, raw.Options{})
	otherTold, otherServerTold := other.call(9, 200)
	p := w.connectRaw(w.rawHost(w.RawClients[0], "lan", lab.LANRouter), server, listener, raw.Options{})
	told, serverTold := p.call(9, 100)
	p.gre(9, told, 100, serverTold)
	w.status(2)
	w.must(p.up.from.Finish())
	w.must(p.up.to.WaitEnd(w.ctx))
	w.ended("control connection closed by the client", from(w.RawClients[0].Address, 9))
	p.deliver(&p.down, wire.Encode(&wire.EchoRequest{Identifier: 5}))
	p.deliver(&p.down, wire.Encode(&wire.DisconnectNotify{CallID: 100, Result: wire.DisconnectLostCarrier}))
	if got := last[*wire.DisconnectNotify](p, &p.down).CallID; got != serverTold {
		t.Errorf("the client was told %d and is disconnected from %d", serverTold, got)
	}
	p.consistent("half-closed")
	w.must(p.down.from.Finish())
	w.must(p.down.to.WaitEnd(w.ctx))
	w.status(1)
	other.gre(9, otherTold, 200, otherServerTold)
	w.must(other.up.from.Reset())
	w.finish()
}

// A control connection that is silent for longer than conntrack remembers it
// (an hour or days; here conntrack is told to forget after a second). Time
// cannot be given to the program from outside: the hour itself passes in alg's
// tests, where it is an argument. The calls go on, and so does the connection.
func TestIdleBeyondConntrack(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{lab.Masquerade("wan")}})
	w.must(w.Router.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "1"))
	w.start(quickConfig)
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	var legs []leg
	for i := range 2 {
		legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Counting(6)}), server), server))
	}
	w.talkLeg(legs...)
	w.eventually("conntrack should forget the control connections", func() error {
		flows, err := w.Router.Conntrack()
		for _, f := range flows {
			if f.Protocol == 6 {
				err = errors.New("a TCP entry is there")
			}
		}
		return err
	})
	w.talkLeg(legs...)
	w.status(2)
	w.must(w.Router.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "432000"))
	for _, l := range legs {
		w.check(l.client.Session().Ping(w.ctx), l.server.Session().Ping(w.ctx))
	}
	more := w.up(w.call(legs[0].client.Session()), server)
	legs = append(legs, more)
	w.talkLeg(legs...)
	w.listed(legs...)
	w.hangUp(legs...)
	w.finish()
}
