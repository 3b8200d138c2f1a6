package e2e

import (
	"net/netip"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// The router's own PPTP client and server share its addresses with the clients
// behind it. Their control connections pass the daemon too; for them A' is A
// or B' is B, whatever happens to others.

func router(w *world, address netip.Addr) lab.Station {
	return lab.Station{Host: w.Router, Address: address}
}

// The router dials the same server as the clients behind it, with equal Call
// IDs, before them and after them.
func TestRoutersOwnClient(t *testing.T) {
	for name, first := range map[string]bool{"first": true, "last": false} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			server := w.server(0, peer.Config{CallID: peer.Counting(0)})
			own := w.node(router(w, lab.WANRouter), peer.Config{CallID: peer.Fixed(7)})
			var legs []leg
			if first {
				legs = append(legs, w.up(w.dialAndCall(own, server), server))
			}
			for i := range 2 {
				legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(7)}), server), server))
			}
			if !first {
				legs = append(legs, w.up(w.dialAndCall(own, server), server))
			}
			w.talkLeg(legs...)
			w.listed(legs...)
			w.hangUp(legs...)
			w.finish()
		})
	}
}

// A tunnel of the router's own that was up before the daemon came: its Call ID
// is not given away while it carries traffic.
func TestRoutersOwnClientBefore(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(50)})
	own := w.up(w.dialAndCall(w.node(router(w, lab.WANRouter), peer.Config{CallID: peer.Fixed(7)}), server), server)
	w.talkLeg(own)
	traffic := own.client.Traffic(20*time.Millisecond, 100)
	w.start(quickConfig)
	var legs []leg
	for i := range 2 {
		l := w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(7)}), server), server)
		if l.server.PeerID() == 7 {
			t.Errorf("%v was told the Call ID of the router's own tunnel", l.server)
		}
		legs = append(legs, l)
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.hangUp(legs...)
	sent, lost, err := traffic.Stop(w.ctx)
	w.check(err)
	if lost != 0 || sent == 0 {
		t.Errorf("%d of %d packets of the router's own tunnel were lost", lost, sent)
	}
	w.talkLeg(own)
	w.check(own.client.HangUp(w.ctx))
	w.noFaults()
	w.stop()
	for _, f := range w.gre() {
		if f.Ours() {
			t.Errorf("left: %v", f)
		}
	}
}

func (w *world) gre() []lab.Flow {
	w.Helper()
	flows, err := w.Router.GRE()
	w.must(err)
	return flows
}

// The router is a PPTP server itself, for inside clients and outside ones,
// beside clients that dial out to one of the outside clients.
func TestRoutersOwnServer(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 2})
	server := w.server(0, peer.Config{CallID: peer.Counting(7)})
	own := w.listen(router(w, lab.WANRouter), peer.Config{CallID: peer.Counting(7)})
	inner := w.listen(router(w, lab.LANRouter), peer.Config{CallID: peer.Counting(7)})
	var legs []leg
	// From outside: the server of the inside clients, as a client, and another.
	for i := range 2 {
		client := server
		if i == 1 {
			client = w.node(w.Servers[1], peer.Config{CallID: peer.Counting(7)})
		}
		legs = append(legs, w.up(w.call(w.dialTo(client, public(lab.WANRouter))), own))
	}
	for i := range 2 {
		client := w.client(i, peer.Config{CallID: peer.Counting(7)})
		legs = append(legs,
			w.up(w.dialAndCall(client, server), server),                  // through the router
			w.up(w.call(w.dialTo(client, public(lab.LANRouter))), inner), // to the router
			w.up(w.call(w.dialTo(client, public(lab.WANRouter))), own),   // to its outside address
		)
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.hangUp(legs...)
	w.finish()
}

// Two routers with tunnels of their own between the same two public addresses,
// one dialled by each: the usual site-to-site route.
func TestRoutersOwnSiteToSite(t *testing.T) {
	w, e, hosts := twoSites(t)
	west := w.listen(router(w, at(westPublic)), peer.Config{CallID: peer.Counting(1)})
	east := w.listen(router(e, at(eastPublic)), peer.Config{CallID: peer.Counting(1)})
	// The DNAT of the lab's routers takes what comes to their addresses, so
	// those that dial in reach the inside hosts instead.
	inWest := w.listen(hosts["west"][0], peer.Config{CallID: peer.Counting(1)})
	inEast := w.listen(hosts["east"][0], peer.Config{CallID: peer.Counting(1)})
	legs := []leg{
		w.up(w.call(w.dialTo(west, public(at(eastPublic)))), inEast),
		w.up(w.call(w.dialTo(east, public(at(westPublic)))), inWest),
		w.up(w.call(w.dialTo(inWest, public(at(eastPublic)))), inEast),
		w.up(w.call(w.dialTo(inEast, public(at(westPublic)))), inWest),
	}
	w.talkLeg(legs...)
	w.status(4)
	e.status(4)
	w.check(legs[0].client.HangUp(w.ctx), legs[3].client.HangUp(w.ctx))
	w.status(2)
	e.status(2)
	w.talkLeg(legs[1], legs[2])
	w.finishAll(e)
}
