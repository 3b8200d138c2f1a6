package e2e

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// Exit codes of the program.
const (
	exitFailure  = 1
	exitUsage    = 2
	exitNoDaemon = 3
)

// The status as JSON: every documented field with its type and its value.
func TestStatusJSON(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(500)})
	first := w.client(0, peer.Config{CallID: peer.Fixed(9)})
	w.dialAndCall(first, server)
	call := w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(9)}), server)
	w.talk(call, server)
	far := w.far(call, server)
	w.status(2)
	raw, err := w.daemon.StatusJSON(w.ctx)
	w.must(err)
	var got map[string]any
	w.must(json.Unmarshal(raw, &got))
	if v, ok := got["version"].(string); !ok || v == "" {
		t.Errorf("version is %v", got["version"])
	}
	if c, ok := got["connections"].([]any); !ok || len(c) != 2 {
		t.Errorf("connections are %v", got["connections"])
	}
	if c, ok := got["counters"].(map[string]any); !ok || len(c) == 0 {
		t.Errorf("counters are %v", got["counters"])
	}
	calls, ok := got["calls"].([]any)
	if !ok || len(calls) != 2 {
		t.Fatalf("calls are %v", got["calls"])
	}
	second := slices.IndexFunc(calls, func(c any) bool {
		client, _ := c.(map[string]any)["client"].(map[string]any)
		return client["address"] == w.Clients[1].Address.String()
	})
	if second < 0 {
		t.Fatalf("the second client is not in %s", raw)
	}
	c := calls[second].(map[string]any)
	want := map[string]any{
		"direction": "outgoing", "state": lab.StateUp,
		"client": map[string]any{"address": w.Clients[1].Address.String(), "call_id": 9.0,
			"translated_address": lab.WANRouter.String(), "translated_call_id": float64(far.PeerID())},
		"server": map[string]any{"address": server.Address().String(), "call_id": 501.0,
			"translated_address": server.Address().String(), "translated_call_id": float64(call.PeerID())},
	}
	for key, value := range want {
		a, _ := json.Marshal(value)
		b, _ := json.Marshal(c[key])
		if string(a) != string(b) {
			t.Errorf("%s is %s instead of %s", key, b, a)
		}
	}
	// talk: three questions and an acknowledgement from each side, three
	// answers from each side.
	for key, least := range map[string]float64{"id": 1, "packets_from_client": 7, "packets_from_server": 7,
		"bytes_from_client": 6 * 300, "bytes_from_server": 6 * 300} {
		if n, ok := c[key].(float64); !ok || n < least || n > 100*least {
			t.Errorf("%s is %v", key, c[key])
		}
	}
	since, err := time.Parse(time.RFC3339, c["since"].(string))
	if err != nil || time.Since(since) > time.Hour || time.Since(since) < 0 {
		t.Errorf("since is %v, %v", c["since"], err)
	}
	if text, err := w.daemon.StatusText(w.ctx); err != nil || !strings.Contains(text, w.Clients[1].Address.String()) {
		t.Errorf("the table for people: %v\n%s", err, text)
	}
	w.finish()
}

// SIGTERM takes the table away and nothing else; calls that are up go on.
func TestStopLeavesCalls(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{})
	var calls []*peer.Call
	for i := range 2 {
		calls = append(calls, w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server))
	}
	if tables, err := w.Router.Tables(); err != nil || !slices.Equal(tables, []string{"ip " + table}) {
		t.Errorf("the daemon's tables are %v, %v", tables, err)
	}
	before, err := w.Router.Conntrack()
	w.must(err)
	w.stop()
	after, err := w.Router.Conntrack()
	w.must(err)
	if len(after) != len(before) {
		t.Errorf("conntrack entries before the stop\n%s\nand after\n%s", lab.FlowsText(before), lab.FlowsText(after))
	}
	for _, c := range calls {
		w.talk(c, server)
	}
	if _, err := os.Stat(w.daemon.Socket()); !os.IsNotExist(err) {
		t.Errorf("the control socket is left: %v", err)
	}
	w.noFaults()
}

// A daemon that was killed and started again finds its table and changes
// nothing in it that is right; clients go on as before.
func TestStartAgain(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	first := w.structure()
	w.must(w.daemon.Kill())
	if s := w.structure(); s != first {
		t.Errorf("killing the daemon changed the rules from\n%s\nto\n%s", first, s)
	}
	w.start(quickConfig)
	if s := w.structure(); s != first {
		t.Errorf("starting again changed the rules from\n%s\nto\n%s", first, s)
	}
	server := w.server(0, peer.Config{})
	for i := range 2 {
		w.talk(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server), server)
	}
	w.finish()
}

// A second daemon by mistake gives up with a reason; the first goes on.
func TestSecondDaemonRefuses(t *testing.T) {
	for name, o := range map[string]lab.DaemonOptions{
		"same socket": {}, "another socket": {}, "another socket and queue": {Args: []string{"--queue", "99"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1})
			server := w.server(0, peer.Config{})
			call := w.dialAndCall(w.client(0, peer.Config{}), server)
			w.daemonStatus() // when it answers, the guard has what the last segment was about
			w.known(1)
			before := w.structure()
			o.Program = program(t)
			if name == "same socket" {
				o.Socket = w.daemon.Socket()
			}
			second, err := w.Router.StartDaemon(o)
			w.must(err)
			ctx, cancel := context.WithTimeout(w.ctx, patience)
			defer cancel()
			if code, err := second.ExitCode(ctx); err != nil || code != exitFailure || strings.TrimSpace(second.Log()) == "" {
				t.Errorf("the second daemon ended with %d, %v, saying %q", code, err, second.Log())
			}
			if after := w.structure(); after != before {
				t.Errorf("the second daemon changed the rules from\n%s\nto\n%s", before, after)
			}
			w.talk(call, server)
			w.status(1)
			w.check(call.HangUp(w.ctx))
			w.finish()
		})
	}
}

// The daemon comes when a control connection is already there, between
// messages: later calls work, and the one from before is left as it is.
func TestMidstream(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(1000)})
	client := w.client(0, peer.Config{CallID: peer.Counting(50), Keepalive: 100 * time.Millisecond})
	session := w.dial(client, server)
	accepted, err := server.Accept(w.ctx)
	w.must(err)
	old := w.call(session) // untranslated: nobody was there
	w.start(quickConfig)
	w.check(session.Ping(w.ctx), accepted.Ping(w.ctx))
	call := w.call(session)
	w.talk(call, server)
	w.status(1)
	other := w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(call.ID())}), server)
	w.talk(other, server)
	w.check(old.SetLinkInfo(), old.HangUp(w.ctx)) // what it says must arrive as it is
	w.talk(call, server)
	w.check(call.HangUp(w.ctx))
	w.status(1)
	w.check(session.Stop(w.ctx))
	<-accepted.Done()
	w.check(peer.CompareStreams(session.Sent(), accepted.Read(), false), peer.CompareStreams(accepted.Sent(), session.Read(), false))
	w.finish()
}

// The daemon comes in the middle of a message. That one goes through as it is;
// the connection and everybody else's calls are none the worse.
func TestMidMessage(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(1000)})
	session := w.dial(w.client(0, peer.Config{CallID: peer.Counting(50)}), server)
	accepted, err := server.Accept(w.ctx)
	w.must(err)
	echo := wire.Encode(&wire.EchoRequest{Identifier: 77})
	w.must(session.SendBytes(echo[:9]))
	w.start(quickConfig)
	w.must(session.SendBytes(echo[9:]))
	_, err = session.Wait(w.ctx, func(m wire.Message) bool { return m.Type() == wire.TypeEchoReply })
	w.must(err)
	w.check(session.Ping(w.ctx))
	w.talk(w.call(session), server)
	w.talk(w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(50)}), server), server)
	w.check(session.Stop(w.ctx))
	<-accepted.Done()
	w.check(peer.CompareStreams(session.Sent(), accepted.Read(), false))
	w.finish()
}

// What the program says to scripts.
func TestCommands(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1})
	before := w.structure()
	ran := func(code int, args ...string) (string, string) {
		t.Helper()
		out, errs, got, err := w.daemon.Command(w.ctx, args...)
		if err != nil || got != code {
			t.Errorf("%v: exit code %d instead of %d, %v\n%s%s", args, got, code, err, out, errs)
		}
		return out, errs
	}
	if _, errs := ran(exitNoDaemon, "status", "--socket", filepath.Join(w.Dir(), "nothing")); strings.Count(errs, "\n") != 1 {
		t.Errorf("status without a daemon should say one clear line: %q", errs)
	}
	ran(exitUsage, "status", "--bogus")
	ran(exitUsage, "bogus")
	ran(0, "version")
	out, _ := ran(0, "rules")
	if !strings.Contains(out, "table ip "+table) {
		t.Errorf("rules prints %q", out)
	}
	if after := w.structure(); after != before {
		t.Errorf("a command changed the rules from\n%s\nto\n%s", before, after)
	}
	w.finish()
}

// SIGHUP does not disturb calls.
func TestReload(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1})
	server := w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(0, peer.Config{}), server)
	w.must(w.daemon.WriteConfig("guard = \"all\"\n" + quickConfig))
	w.must(w.daemon.Signal(syscall.SIGHUP))
	w.eventually("guard = all should take effect", func() error {
		_, _, err := w.Router.Counter(table, counterBlocked)
		return err
	})
	w.talk(call, server)
	w.check(call.HangUp(w.ctx))
	w.finish()
}

// A control port of one's own.
func TestOtherPort(t *testing.T) {
	const port = 4723
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{lab.Masquerade("wan"), lab.StrictForward("lan", port)}}, "--port", "4723")
	server := w.node(w.Servers[0], peer.Config{})
	w.must(server.Listen(port))
	for i := range 2 {
		session, err := w.client(i, peer.Config{CallID: peer.Fixed(3)}).Dial(w.ctx, netip.AddrPortFrom(server.Address(), port))
		w.must(err)
		w.talk(w.call(session), server)
	}
	w.finish()
}
