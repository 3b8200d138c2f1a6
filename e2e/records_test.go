package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// What the daemon writes down: the call log, metrics, and the packets of
// connections that failed. One call of two clients with one Call ID fails.
func TestRecords(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1})
	dir := t.TempDir()
	calls, captures, socket := filepath.Join(dir, "calls.log"), filepath.Join(dir, "captures"), filepath.Join(dir, "metrics.sock")
	w.start(quickConfig+fmt.Sprintf("[call_log]\nto = %q\n[metrics]\nlisten = %q\n", calls, socket), "--capture", captures)
	busy := false
	server := w.server(0, peer.Config{Answer: func(wire.Message) peer.Answer {
		if busy {
			return peer.Answer{Result: wire.ResultBusy}
		}
		return peer.Answer{Result: wire.ResultConnected}
	}})
	first := w.up(w.dialAndCall(w.client(0, peer.Config{CallID: peer.Counting(5)}), server), server)
	second := w.up(w.dialAndCall(w.client(1, peer.Config{CallID: peer.Counting(5)}), server), server)
	w.talkLeg(first, second)
	carried := w.carried(w.metric(socket, `pptp_alg_calls{state="established"} 2`))
	if carried < 24 {
		t.Errorf("two calls are said to have carried %d packets instead of 24", carried)
	}
	busy = true
	if _, err := second.client.Session().OutgoingCall(w.ctx); err == nil {
		t.Error("a busy server took the call")
	}
	w.hangUp(first, second)
	// The counters of the kernel's rules are there too.
	text := w.metric(socket, "pptp_alg_calls_failed_total 1")
	if after := w.carried(text); after < carried {
		t.Errorf("the calls had carried %d packets, and after their end %d", carried, after)
	}
	for _, want := range []string{
		"pptp_alg_calls_established_total 2\n", "pptp_alg_calls_requested_total 3\n", "pptp_alg_calls_ended_total 3\n",
		"pptp_alg_call_ids_translated_total ", `pptp_alg_build_info{version="`, "process_resident_memory_bytes ",
		`pptp_alg_gre_packets_total{kind="unmapped"} 0`, `pptp_alg_segments_retransmitted_total{side="server"} `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the metrics\n%s", want, text)
		}
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		check := exec.Command(promtool, "check", "metrics")
		check.Stdin = strings.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	} else {
		t.Log("not checked by promtool: it is missing")
	}
	w.check(w.daemon.Stop(w.ctx))

	// The daemon has ended: everything is written.
	written, err := os.ReadFile(calls)
	w.must(err)
	lines := strings.Split(strings.TrimSpace(string(written)), "\n")
	count := map[string]int{}
	for _, l := range lines {
		f := strings.Fields(l)
		count[f[2]]++
		if _, err := time.Parse("2006-01-02T15:04:05.000Z", f[0]); err != nil {
			t.Errorf("%v: %s", err, l)
		}
		for _, want := range []string{"public=" + lab.WANRouter.String(), "server=" + server.Address().String()} {
			if !strings.Contains(l, want) {
				t.Errorf("no %q in %q", want, l)
			}
		}
	}
	if count["made"] != 2 || count["ended"] != 2 || count["failed"] != 1 {
		t.Errorf("call log:\n%s", written)
	}
	if !strings.Contains(string(written), `reason="server refused the call: busy (result 4)"`) {
		t.Errorf("call log does not say why a call failed:\n%s", written)
	}

	files, err := filepath.Glob(filepath.Join(captures, "*-failed.pcap"))
	if err != nil || len(files) != 1 {
		t.Fatalf("captures: %q, %v", files, err)
	}
	out, err := exec.Command(program(t), "replay", "--json", files[0]).Output()
	w.must(err)
	var last struct {
		Connections []struct{ Client, Unparsed string }
		Calls       []struct{ State, Reason, Diagnosis string }
	}
	w.must(json.Unmarshal(bytes.TrimSpace(out[bytes.LastIndexByte(bytes.TrimSpace(out), '\n')+1:]), &last))
	if len(last.Connections) != 1 || last.Connections[0].Unparsed != "" || !strings.HasPrefix(last.Connections[0].Client, w.Clients[1].Address.String()) ||
		len(last.Calls) != 2 || last.Calls[0].Reason != "" || last.Calls[1].Diagnosis != "never came up: server refused the call: busy (result 4)" {
		t.Errorf("replayed:\n%s", out)
	}
}

// carried is how many packets of calls the metrics count.
func (w *world) carried(metrics string) (packets int) {
	w.Helper()
	const name = `pptp_alg_gre_packets_total{kind="mapped"} `
	_, value, _ := strings.Cut(metrics, name)
	if _, err := fmt.Sscan(value, &packets); err != nil {
		w.Fatalf("no %q in the metrics: %v\n%s", name, err, metrics)
	}
	return packets
}

// metric asks for the metrics until they have a line, and returns them.
func (w *world) metric(socket, line string) string {
	w.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for {
		r, err := client.Get("http://daemon/metrics")
		w.must(err)
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		w.must(err)
		if r.StatusCode != 200 {
			w.Fatalf("%s: %s", r.Status, text)
		}
		if strings.Contains(string(text), line+"\n") {
			return string(text)
		}
		select {
		case <-w.ctx.Done():
			w.Fatalf("no %q in the metrics\n%s", line, text)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
