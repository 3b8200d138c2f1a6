package e2e

import (
	"os"
	"strings"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// fullKernel in the environment says that the kernel has everything that is
// optional: what the daemon then does without is a failure.
const fullKernel = "PPTP_ALG_FULL_KERNEL"

// How control packets reach the daemon, and how it learns of their NAT: it does
// what it says, and uses what the kernel offers.
func TestWhatTheKernelOffers(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{})
	for i := range 2 {
		w.talk(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server), server)
	}
	s := w.status(2)
	opened, asked := s.Counter("connections_opened"), s.Counter("connections_looked_up")
	var ready string
	for line := range strings.Lines(w.daemon.Log()) {
		if strings.Contains(line, "msg=ready") {
			ready = strings.TrimSpace(line)
		}
	}
	t.Log(ready)
	want := opened
	if strings.Contains(ready, "come along") {
		want = 0
	}
	if opened != 2 || asked != want {
		t.Errorf("%d connections were opened, %d of their conntrack entries asked for, want 2 and %d", opened, asked, want)
	}
	if os.Getenv(fullKernel) != "" {
		for _, offered := range []string{"the nftables queue expression", "come along"} {
			if !strings.Contains(ready, offered) {
				t.Errorf("this kernel offers more: %q is not said", offered)
			}
		}
	}
	w.finish()
}
