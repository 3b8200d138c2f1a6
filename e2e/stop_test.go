package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// Whoever stops a process group, as timeout(1) and a terminal do, signals
// twice. Nothing of what has to be undone may be left out for that: the table,
// the accounting switch, the socket.
func TestSignalledTwice(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 1})
	const accounting = "/proc/sys/net/netfilter/nf_conntrack_acct"
	read := func() (value string) {
		w.must(w.Router.Do(func() error {
			b, err := os.ReadFile(accounting)
			value = strings.TrimSpace(string(b))
			return err
		}))
		return value
	}
	w.must(w.Router.Do(func() error { return os.WriteFile(accounting, []byte("0"), 0) }))
	for range 5 {
		d := w.start(quickConfig)
		if read() != "1" {
			t.Error("calls would not be counted")
		}
		w.dialAndCall(w.client(0, peer.Config{CallID: peer.Fixed(1)}), w.server(0, peer.Config{CallID: peer.Counting(1)}))
		for range 3 {
			_ = d.Signal(syscall.SIGTERM) // it may have ended by the last one
		}
		if code, err := d.ExitCode(w.ctx); err != nil || code != 0 {
			t.Fatalf("exit code %d, %v", code, err)
		}
		if now := w.structure(); now != w.before {
			t.Fatalf("the rules were\n%s\nand are\n%s", w.before, now)
		}
		if read() != "0" {
			t.Fatal("accounting was off before the daemon started, and is left on")
		}
		if _, err := os.Stat(d.Socket()); !os.IsNotExist(err) {
			t.Fatalf("the socket: %v, want none", err)
		}
		for _, n := range w.nodes {
			w.must(n.Close())
		}
		w.nodes = nil
	}
}

// What a daemon that was killed leaves behind can be taken away, but not the
// rules of one that is at work. Calls that are up go on.
func TestRemoveRules(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(0, peer.Config{}), server)
	remove := func() (string, int) {
		_, errs, code, err := w.daemon.Command(w.ctx, "rules", "--remove")
		w.must(err)
		return errs, code
	}
	w.daemonStatus() // when it answers, the guard has what the last segment was about
	w.known(1)
	before := w.structure()
	if errs, code := remove(); code != exitFailure || !strings.Contains(errs, "at work") {
		t.Errorf("beside a daemon: exit code %d, %q", code, errs)
	}
	if s := w.structure(); s != before {
		t.Errorf("the rules changed from\n%s\nto\n%s", before, s)
	}
	w.must(w.daemon.Kill())
	for range 2 { // nothing to remove is fine
		if errs, code := remove(); code != 0 {
			t.Errorf("after the daemon: exit code %d, %q", code, errs)
		}
	}
	if s := w.structure(); s != w.before {
		t.Errorf("the rules were\n%s\nand are\n%s", w.before, s)
	}
	w.talk(call, server)
	w.noFaults()
}
