package e2e

import (
	"fmt"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// No NAT at all: a stateful firewall only. A' is A and B' is B.

// What the firewall lets in is the call, because its control connection is;
// GRE without a call is not.
func TestNoNAT(t *testing.T) {
	for name, opened := range map[string]string{"client inside": "lan", "client outside": "wan"} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 2, Routed: true,
				Firewall: []lab.Piece{lab.StrictForward(opened, peer.Port)}})
			callers, called := w.Clients, w.Servers[0]
			if opened == "wan" {
				callers, called = w.Servers, w.Clients[0]
			}
			server := w.listen(called, peer.Config{CallID: peer.Counting(40)})
			var legs []leg
			var clients []*peer.Node
			for i := range 2 {
				client := w.node(callers[i], peer.Config{CallID: peer.Fixed(40)})
				clients = append(clients, client)
				legs = append(legs, w.up(w.call(w.dialTo(client, public(called.Address))), server))
				if l := legs[i]; l.client.Remote() != called.Address || l.server.Remote() != callers[i].Address {
					t.Errorf("addresses are translated: the client sees %v, the server %v", l.client.Remote(), l.server.Remote())
				}
			}
			w.talkLeg(legs...)
			w.listed(legs...)
			// Without NAT nothing is in the way of anybody's Call ID.
			for _, l := range legs {
				if l.server.PeerID() != 40 || l.client.PeerID() != l.server.ID() {
					t.Errorf("%v and %v were told other Call IDs without need", l.client, l.server)
				}
			}
			session := legs[0].client.Session()
			w.stopped("GRE without a call", clients[0], called, 999, session)
			w.stopped("GRE without a call", server, callers[0], 999, session)
			w.hangUp(legs...)
			w.eventually("the entries should go", func() error {
				gre, err := w.Router.GRE()
				if err == nil && len(gre) > 0 {
					err = fmt.Errorf("left:\n%s", lab.FlowsText(gre))
				}
				return err
			})
			w.stopped("GRE of an ended call", clients[0], called, legs[0].server.ID(), session)
			w.stopped("GRE of an ended call", server, callers[1], 40, session)
			w.finish()
		})
	}
}

// stopped sends GRE to a host and fails if it arrives there. Control messages
// that are sent after it and answered say when it would have.
func (w *world) stopped(what string, from *peer.Node, to lab.Station, id uint16, session *peer.Session) {
	w.Helper()
	capture, err := to.CaptureIf(func(p *lab.Packet) bool { return p.GRE != nil && !p.Out && p.GRE.CallID == id })
	w.must(err)
	for range 3 {
		w.check(from.SendGRE(to.Address, wire.EncodeGRE(wire.GRE{CallID: id, HasSeq: true, Payload: []byte("nobody's")})))
	}
	w.check(session.Ping(w.ctx), session.Ping(w.ctx))
	for _, p := range capture.Packets() {
		w.Errorf("%s got through: %v", what, p)
	}
}

// Without NAT of its own a router has no NAT chain, and without any the kernel
// changes nothing; yet a Call ID of 0 has to be told as another one.
func TestNoNATCallIDZero(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Routed: true, Firewall: []lab.Piece{lab.StrictForward("lan", peer.Port)}})
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	var legs []leg
	for i := range 2 {
		legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(0)}), server), server))
	}
	if legs[0].client.PeerID() == 0 || legs[0].server.PeerID() == 0 {
		t.Errorf("the client was told %d, the server %d", legs[0].client.PeerID(), legs[0].server.PeerID())
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.hangUp(legs...)
	w.finish()
}
