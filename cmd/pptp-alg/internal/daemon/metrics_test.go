package daemon

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/calllog"
	"pptp-alg/cmd/pptp-alg/internal/metrics"
	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/cmd/pptp-alg/internal/status"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// allFamilies are the metrics with everything that there can be.
func allFamilies() []metrics.Family {
	s := measures{gre: map[string]rules.Counter{rules.Blocked: {}}, carried: nat.Traffic{Packets: 3, Bytes: 300}, counted: true}
	s.calls[2], s.alg.Retransmitted[1] = 4, 5
	return append(s.families("v1.2.3", time.Unix(1700000000, 0)), metrics.Process()...)
}

// promtool is what checks metrics and rules, where it can be had.
func promtool(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if path, err = filepath.Abs("../../../../bin/promtool"); err == nil {
			_, err = os.Stat(path)
		}
	}
	if err != nil {
		t.Log("not checked by promtool: it is missing (`make promtool` fetches it)")
		return
	}
	c := exec.Command(path, args...)
	c.Stdin = bytes.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

// Names and labels follow the conventions of Prometheus.
func TestMetricNames(t *testing.T) {
	families := allFamilies()
	text := string(metrics.Encode(families))
	seen := map[string]bool{}
	for _, f := range families {
		if seen[f.Name] {
			t.Errorf("%s is there twice", f.Name)
		}
		seen[f.Name] = true
		if total := strings.HasSuffix(f.Name, "_total"); total != (f.Kind == metrics.Counter) {
			t.Errorf("%s is a %s", f.Name, f.Kind)
		}
		if f.Help == "" || len(f.Samples) == 0 || len(f.Samples) > 6 {
			t.Errorf("%s: help %q, %d samples", f.Name, f.Help, len(f.Samples))
		}
	}
	for _, want := range []string{
		"pptp_alg_calls{state=\"established\"} 4\n", "pptp_alg_segments_retransmitted_total{side=\"server\"} 5\n",
		"pptp_alg_gre_bytes_total{kind=\"mapped\"} 300\n", "pptp_alg_gre_packets_total{kind=\"blocked\"} 0\n",
		"pptp_alg_start_time_seconds 1700000000\n", "pptp_alg_build_info{version=\"v1.2.3\",goversion=\"go",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	promtool(t, []byte(text), "check", "metrics")
}

// The dashboard, the alerts and the documentation name metrics that there are.
func TestContrib(t *testing.T) {
	exists := map[string]bool{}
	for _, f := range allFamilies() {
		exists[f.Name] = true
	}
	name := regexp.MustCompile(`\b(pptp_alg|process)_[a-z_]+`)
	for _, file := range []string{"contrib/pptp-alg.rules.yml", "contrib/grafana-dashboard.json", "docs/monitoring.md"} {
		b, err := os.ReadFile("../../../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := name.FindAllString(string(b), -1)
		if len(names) < 3 {
			t.Errorf("%s names %d metrics", file, len(names))
		}
		for _, n := range names {
			if !exists[n] {
				t.Errorf("%s: there is no %s", file, n)
			}
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(b) {
			t.Errorf("%s is no JSON", file)
		}
	}
	promtool(t, nil, "check", "rules", "../../../../contrib/pptp-alg.rules.yml")
}

// Which events become records, and what of them.
func TestCallRecord(t *testing.T) {
	at := time.Unix(1700000000, 0)
	call := status.Call{
		ID: 7, Since: at.Add(-time.Minute), Reason: "cleared by the client",
		Client: status.Endpoint{
			Address: netip.MustParseAddr("10.0.0.1"), CallID: status.Known(uint16(5)),
			TranslatedAddress: netip.MustParseAddr("203.0.113.1"), TranslatedCallID: status.Known(uint16(27)),
		},
		Server: status.Endpoint{
			Address: netip.MustParseAddr("198.51.100.2"), CallID: status.Known(uint16(0)),
			TranslatedAddress: netip.MustParseAddr("198.51.100.2"), TranslatedCallID: status.Known(uint16(255)),
		},
		PacketsFromClient: status.Known(uint64(1)), BytesFromClient: status.Known(uint64(2)),
		PacketsFromServer: status.Known(uint64(3)), BytesFromServer: status.Known(uint64(4)),
	}
	up := call
	up.Established = at.Add(-59 * time.Second)
	for _, c := range []struct {
		kind news.Kind
		call status.Call
		want string
	}{
		{news.CallRequested, call, ""}, {news.CallWarning, up, ""}, {news.Stopping, call, ""},
		{news.CallEstablished, up, "made"}, {news.CallEnded, up, "ended"}, {news.CallEnded, call, "failed"}, {news.CallRefused, call, "failed"},
	} {
		r, ok := callRecord(news.Event{Time: at, Kind: c.kind, Call: &c.call}, true)
		if ok != (c.want != "") || r.Event != c.want {
			t.Errorf("%s becomes %q", c.kind, r.Event)
		}
	}
	r, _ := callRecord(news.Event{Time: at, Kind: news.CallEnded, Call: &up}, true)
	want := calllog.Record{
		Time: at, Event: "ended", ID: 7, Client: call.Client.Address, ClientCallID: call.Client.CallID,
		Public: call.Client.TranslatedAddress, PublicCallID: call.Client.TranslatedCallID,
		Server: call.Server.Address, ServerCallID: call.Server.CallID, ServerToldCallID: call.Server.TranslatedCallID,
		Duration: time.Minute, Reason: call.Reason,
		PacketsFromClient: call.PacketsFromClient, BytesFromClient: call.BytesFromClient,
		PacketsFromServer: call.PacketsFromServer, BytesFromServer: call.BytesFromServer,
	}
	if r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if r, _ := callRecord(news.Event{Time: at, Kind: news.CallEnded, Call: &up}, false); r.Server.IsValid() {
		t.Error("the server's address is not left out")
	}
}
