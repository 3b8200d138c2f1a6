package e2e

import (
	"fmt"
	"os"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// The fast path: programs at the devices carry packets of calls. These scenarios need to know whether they do, and have
// it on; with PPTP_ALG_FAST_PATH=on all the others have it on, too.

// fastPathOn says that all scenarios run with the fast path on.
var fastPathOn = os.Getenv(lab.FastPathVariable) == "on"

// withFastPath is withDaemon with the fast path on.
func withFastPath(t *testing.T, p lab.Plan) *world {
	t.Helper()
	return withDaemon(t, p, "--fast-path", "on")
}

// fast talks on calls until the daemon says that they are carried both ways.
func (w *world) fast(far *peer.Node, calls ...*peer.Call) {
	w.Helper()
	w.eventually("calls should take the fast path", func() error {
		for _, c := range calls {
			w.talk(c, far)
		}
		n := 0
		var why string
		for _, c := range w.daemonStatus().Calls {
			if f := c.FastPath; f != nil && f.ToServer && f.ToClient {
				n++
			} else {
				why = fmt.Sprintf("%+v", f)
			}
		}
		if n < len(calls) {
			return fmt.Errorf("%d of %d do, another %s", n, len(calls), why)
		}
		return nil
	})
}

// Calls of two clients with the same Call IDs enter the fast path when GRE of them has passed both ways, and work there.
// What both paths carried is counted.
func TestFastPath(t *testing.T) {
	w := withFastPath(t, lab.Plan{Clients: 2, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{})
	first := w.dialAndCall(w.client(0, peer.Config{CallID: peer.Fixed(5)}), server)
	second := w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(5)}), server)
	for _, c := range w.status(2).Calls {
		if f := c.FastPath; f == nil || f.ToServer || f.ToClient || f.Reason == "" {
			t.Errorf("before any GRE: %+v", f)
		}
	}
	w.fast(server, first, second)
	w.talk(first, server)
	w.talk(second, server)
	w.check(first.HangUp(w.ctx), second.HangUp(w.ctx))
	w.finish()
}
