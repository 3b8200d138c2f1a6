package e2e

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// Control connections that a flow table carries when the daemon comes are taken
// out of it, and their next calls are translated.
func TestOffloadedBefore(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1})
	err := w.Router.Firewall(append([]lab.Piece{lab.FlowOffload("lan", "wan")}, strict()...)...)
	if os.Getenv(fullKernel) == "" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)) {
		// Also under CI: that it is missing is no fault of ours.
		t.Skipf("this kernel has no flow tables (CONFIG_NFT_FLOW_OFFLOAD): %v", err)
	}
	w.must(err)
	w.before = w.structure()
	server := w.server(0, peer.Config{CallID: peer.Counting(50)})
	var sessions [2]*peer.Session
	for i := range sessions {
		sessions[i] = w.dial(w.client(i, peer.Config{CallID: peer.Fixed(7)}), server)
		w.check(sessions[i].Ping(w.ctx))
	}
	offloaded := func() (n int) {
		flows, err := w.Router.Conntrack()
		w.must(err)
		for _, f := range flows {
			if f.Protocol == unix.IPPROTO_TCP && f.Status&lab.Offloaded != 0 {
				n++
			}
		}
		return n
	}
	w.eventually("the firewall offloads control connections", func() error {
		if n := offloaded(); n != 2 {
			return fmt.Errorf("%d are in the flow table", n)
		}
		return nil
	})
	w.start(quickConfig)
	if s := w.daemonStatus(); s.Counter("connections_reclaimed") != 2 || offloaded() != 0 {
		t.Errorf("%d connections were taken out of the flow table, %d are in it", s.Counter("connections_reclaimed"), offloaded())
	}
	w.anchored(2)
	// The table lets go of them when its collector comes by.
	w.eventually("the daemon sees them", func() error {
		w.check(sessions[0].Ping(w.ctx), sessions[1].Ping(w.ctx))
		if n := w.daemonStatus().Counter("connections_opened"); n != 2 {
			return fmt.Errorf("it sees %d", n)
		}
		return nil
	})
	for _, s := range sessions {
		w.talk(w.call(s), server)
	}
	w.status(2)
	w.check(sessions[0].Stop(w.ctx), sessions[1].Stop(w.ctx))
	w.finish()
}
