package e2e

import (
	"fmt"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// A call is made while no daemon runs, and its server sends GRE: to this router, as far as anybody knows, which makes an
// ordinary entry in conntrack, and would make one again whenever it were removed. The next daemon leaves it alone, for it
// looks like that of a tunnel of the router's own. It is in nobody's way: a call that has the Call ID is told as
// another, and the client of the dead call gets through when it dials again.
func TestAwayUntranslatedGRE(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{CallID: peer.Counting(500)})
	first := w.client(0, peer.Config{CallID: peer.Counting(6)})
	session := w.dial(first, server)
	up := w.up(w.call(session), server)
	w.kill()
	other := w.client(1, peer.Config{CallID: peer.Counting(7)})
	away := w.dial(other, server)
	dead := w.call(away)
	far := w.far(dead, server)
	sends := func() {
		if far.EchoWithin(w.ctx, 100*time.Millisecond, 1, 100) == nil {
			t.Error("an untranslated call carries GRE")
		}
	}
	kernels := func() (found *lab.Flow) {
		gre, err := w.Router.GRE()
		w.must(err)
		for _, f := range gre {
			if f.Original == (lab.Tuple{Src: server.Address(), Dst: lab.WANRouter, DstPort: 7}) {
				found = &f
			}
		}
		return found
	}
	sends()
	if f := kernels(); f == nil || f.Ours() {
		t.Fatalf("the kernel's entry of what the server sends: %v", f)
	}
	w.again(quickConfig)
	sends()
	l := w.up(w.call(session), server) // has Call ID 7
	if l.client.ID() != 7 || l.server.PeerID() == 7 {
		t.Errorf("Call ID %d is told as %d", l.client.ID(), l.server.PeerID())
	}
	sends()
	w.talkLeg(l, up)
	if f := kernels(); f == nil || f.Ours() {
		t.Errorf("the kernel's entry of what the server sends became %v", f)
	}
	again := w.up(w.call(away), server)
	sends()
	w.talkLeg(again, l, up)
	w.check(dead.HangUp(w.ctx), far.WaitEnd(w.ctx))
	w.eventually("calls that were translated should be listed, and no other", func() error {
		if n := len(w.daemonStatus().Up()); n != 3 {
			return fmt.Errorf("%d are up", n)
		}
		return nil
	})
	w.check(session.Stop(w.ctx), away.Stop(w.ctx))
	w.clearKernels()
	w.finish()
}
