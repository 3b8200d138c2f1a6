package e2e

import (
	"errors"
	"os"
	"strings"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// wholeMachine in the environment says that this machine is there for one test alone, which may turn what counts for
// all namespaces.
const wholeMachine = "PPTP_ALG_WHOLE_MACHINE"

const conntrackMax = "/proc/sys/net/netfilter/nf_conntrack_max"

// Conntrack's table is full: a new call is refused in the protocol's words, those that are up stay, and once there is
// room another comes up.
func TestConntrackFull(t *testing.T) {
	if os.Getenv(wholeMachine) == "" {
		t.Skip("nf_conntrack_max is one for all namespaces: this runs in machines of its own (make test-vm)")
	}
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1})
	server := w.server(0, peer.Config{})
	session := w.dial(w.client(0, peer.Config{CallID: peer.Counting(5)}), server)
	up := w.call(session)
	w.talk(up, server)
	w.status(1)

	had, err := os.ReadFile(conntrackMax)
	w.must(err)
	room := func() { w.must(os.WriteFile(conntrackMax, had, 0)) }
	t.Cleanup(room)
	entries, err := w.Router.Run(w.ctx, "cat", "/proc/sys/net/netfilter/nf_conntrack_count")
	w.must(err, os.WriteFile(conntrackMax, []byte(strings.TrimSpace(entries)), 0))
	var refused *peer.RefusedError
	if _, err := session.OutgoingCall(w.ctx); !errors.As(err, &refused) || *refused != (peer.RefusedError{Result: wire.ResultError, ErrorCode: wire.ErrorNoResource}) {
		t.Errorf("with a full table a new call ends with: %v", err)
	}
	if s := w.status(1); s.Counter("calls_refused_kernel") != 1 {
		t.Errorf("%d calls are counted as refused by the kernel", s.Counter("calls_refused_kernel"))
	}
	w.talk(up, server)
	for line := range strings.Lines(w.daemon.Log()) {
		if strings.Contains(line, "refused") {
			t.Log(strings.TrimSpace(line))
		}
	}

	room()
	w.talk(w.call(session), server)
	w.talk(up, server)
	w.finish()
}
