package e2e

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// builtWithCgo says whether the program under test is one that can't drop its
// privileges: the race detector needs cgo.
func builtWithCgo(t *testing.T) bool {
	t.Helper()
	info, err := buildinfo.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" {
			return s.Value == "1"
		}
	}
	return false
}

// privileged gives what any thread of the daemon has beyond CAP_NET_ADMIN.
func (w *world) privileged() error {
	w.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/status", w.daemon.PID()))
	w.must(err)
	if len(files) < 2 {
		w.Fatalf("the daemon has %d threads", len(files))
	}
	uid := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d", os.Getuid())
	for _, f := range files {
		b, err := os.ReadFile(f)
		if os.IsNotExist(err) {
			continue
		}
		w.must(err)
		for _, want := range []string{
			"CapInh:\t0000000000000000", "CapPrm:\t0000000000001000", "CapEff:\t0000000000001000",
			"CapBnd:\t0000000000001000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", uid,
		} {
			if !strings.Contains(string(b), want+"\n") {
				return fmt.Errorf("%s has no line %q:\n%s", f, want, b)
			}
		}
	}
	return nil
}

// sockets gives the lines of a table of sockets in the router's namespace.
func (w *world) sockets(table string) (list []string) {
	w.Helper()
	w.must(w.Router.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/" + table)
		if os.IsNotExist(err) {
			return nil // no such protocol in this kernel
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		list = lines[1:] // behind the heading
		return err
	}))
	return list
}

// After its start every thread of the daemon has CAP_NET_ADMIN and nothing
// else, and listens to no network. It can still do everything: calls, a reload,
// and leaving the router as it was.
func TestLeastPrivilege(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1})
	w.must(w.Router.Sysctl("net.netfilter.nf_conntrack_acct", "0"))
	w.start(quickConfig)
	if builtWithCgo(t) {
		if !strings.Contains(w.daemon.Log(), "keeps the privileges") {
			t.Errorf("the daemon says nothing of the privileges that it keeps:\n%s", w.daemon.Log())
		}
		w.stop()
		return
	}
	server := w.server(0, peer.Config{})
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "packet"} {
		if list := w.sockets(table); len(list) > 0 {
			t.Errorf("the router has sockets in %s: %q", table, list)
		}
	}
	w.check(w.privileged())
	first := w.dialAndCall(w.client(0, peer.Config{CallID: peer.Fixed(3)}), server)
	w.talk(first, server)

	w.must(w.daemon.WriteConfig("guard = \"all\"\n" + quickConfig))
	w.must(w.daemon.Signal(syscall.SIGHUP))
	w.eventually("guard = all should take effect", func() error {
		_, _, err := w.Router.Counter(table, counterBlocked)
		return err
	})
	second := w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(3)}), server)
	w.talk(second, server)
	w.talk(first, server)
	w.status(2)
	w.check(w.privileged()) // threads that came since, too
	w.check(first.HangUp(w.ctx), second.HangUp(w.ctx))
	w.finish()
	if v, err := w.Router.SysctlGet("net.netfilter.nf_conntrack_acct"); err != nil || strings.TrimSpace(v) != "0" {
		t.Errorf("nf_conntrack_acct is %q after the daemon, %v", v, err)
	}
}

// Started with CAP_NET_ADMIN alone, the daemon has all it needs.
func TestOnlyNetAdmin(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 1})
	setpriv, err := exec.LookPath("setpriv")
	w.must(err)
	script := filepath.Join(w.Dir(), "less")
	w.must(os.WriteFile(script, []byte("#!/bin/sh\nexec "+setpriv+" --bounding-set=-all,+net_admin --inh-caps=-all "+program(t)+" \"$@\"\n"), 0o755))
	d, err := w.Router.StartDaemon(lab.DaemonOptions{Program: script, Config: quickConfig})
	w.must(err)
	w.must(d.Ready(w.ctx))
	w.daemon = d
	server := w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(0, peer.Config{}), server)
	w.talk(call, server)
	if !builtWithCgo(t) {
		w.check(w.privileged())
	}
	w.check(call.HangUp(w.ctx))
	w.finish()
}
