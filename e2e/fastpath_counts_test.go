package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// What both paths have carried adds up to what the ends sent, wherever it is shown: in the status, in metrics while a call is up, when it
// was closed out of the fast path in between, and after its end, and in the call log.
func TestFastPathCounts(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Firewall: strict()})
	dir := t.TempDir()
	calls, socket := filepath.Join(dir, "calls.log"), filepath.Join(dir, "metrics.sock")
	w.start(quickConfig+fmt.Sprintf("[call_log]\nto = %q\n[metrics]\nlisten = %q\n", calls, socket), fastPathFlags...)
	server := w.server(0, peer.Config{})
	var legs []leg
	for i := range w.Clients {
		legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(5)}), server), server))
	}
	// Packets wait for their answers here: those that were sent have arrived.
	sent := func(i int) (out, in int) { return legs[i].client.Stats().Sent, legs[i].server.Stats().Sent }
	counted := func(line string) {
		w.Helper()
		all := 0
		for i := range legs {
			out, in := sent(i)
			all += out + in
		}
		w.eventually("metrics should count what the ends sent", func() error {
			if n := w.carried(w.metric(socket, line)); n != all {
				return fmt.Errorf("they count %d packets, not %d", n, all)
			}
			return nil
		})
	}
	for range 2 {
		w.fast(legs...)
		before := w.conntracked()
		w.check(legs[0].client.Echo(w.ctx, 50, 1000), legs[1].server.Echo(w.ctx, 50, 10))
		if w.conntracked() != before {
			t.Error("the programs have carried nothing, so that nothing is added up")
		}
		counted("pptp_alg_fast_path_calls 2")
		w.must(w.forbid()) // all of it closes
		w.ordinary()
		w.must(w.Router.DeleteTable("forbid"))
	}
	w.fast(legs...)
	w.check(legs[0].client.Echo(w.ctx, 5, 1000), legs[1].server.Echo(w.ctx, 50, 10))
	counted("pptp_alg_fast_path_calls 2")
	w.hangUp(legs...)
	type ended struct{ client, packets string }
	want := map[ended]bool{}
	for i := range legs {
		out, in := sent(i)
		want[ended{"client=" + w.Clients[i].Address.String() + " ", fmt.Sprintf(" packets_from_client=%d ", out)}] = true
		want[ended{"client=" + w.Clients[i].Address.String() + " ", fmt.Sprintf(" packets_from_server=%d ", in)}] = true
	}
	counted("pptp_alg_fast_path_calls 0")
	w.check(w.daemon.Stop(w.ctx))
	log, err := os.ReadFile(calls)
	w.must(err)
	for e := range want {
		found := false
		for line := range strings.Lines(string(log)) {
			found = found || strings.Contains(line, " ended ") && strings.Contains(line, e.client) && strings.Contains(line, e.packets)
		}
		if !found {
			t.Errorf("no end of a call with%s of %s in the call log:\n%s", e.packets, e.client, log)
		}
	}
}
