package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// asleep is how long the machine was suspended.
const asleep = 10 * time.Minute

// lateBy gives a program that runs the daemon in a time namespace whose clock since the boot, which suspended time counts
// in, is ahead. The clock of timers is the same, as it is after a suspend.
func (w *world) lateBy(d time.Duration) (wrapper string) {
	w.Helper()
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		w.Skipf("this kernel has no time namespaces (CONFIG_TIME_NS): %v", err)
	}
	wrapper = filepath.Join(w.Dir(), "after-a-suspend")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = run ] || exec %[1]s \"$@\"\nexec unshare --time --boottime %[2]d %[1]s \"$@\"\n",
		program(w), int(d.Seconds()))
	w.must(os.WriteFile(wrapper, []byte(script), 0o700))
	return wrapper
}

// The machine was suspended for ten minutes between a daemon and the next. Calls that were up go on, and are as old as they
// are; a call that nobody answered in time has ended.
func TestSuspended(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 2, Firewall: strict()})
	server, legs := w.pairOfCalls()
	deaf := w.server(1, peer.Config{Answer: func(wire.Message) peer.Answer { return peer.Answer{Silent: true} }})
	half := w.dial(w.nodes[1], deaf)
	w.must(half.Send(&wire.OutgoingCallRequest{CallID: 77, PhoneNumber: wire.MakeText("x")}))
	w.check(half.Ping(w.ctx))
	before := w.status(len(legs))
	if len(before.Calls) != len(legs)+1 {
		t.Fatalf("%d calls instead of those that are up and one that is not", len(before.Calls))
	}
	lost := w.counted(legs...)
	w.kill()
	d, err := w.Router.StartDaemon(lab.DaemonOptions{Program: w.lateBy(asleep), Config: quickConfig, Socket: w.daemon.Socket()})
	w.must(err)
	w.must(d.Ready(w.ctx))
	w.daemon = d
	w.eventually("the call that nobody answered should have ended", func() error {
		if n := len(w.daemonStatus().Calls); n != len(legs) {
			return fmt.Errorf("%d calls are listed", n)
		}
		return nil
	})
	after := w.status(len(legs))
	was := map[string]time.Time{}
	for _, c := range before.Calls {
		was[identity(c)] = c.Since
	}
	for _, c := range after.Calls {
		old, ok := was[identity(c)]
		if !ok {
			t.Errorf("after the suspend there is %s", identity(c))
		}
		// The clock on the wall was not set here, as it is after a real suspend: so the calls began earlier.
		if d := (old.Sub(c.Since) - asleep).Abs(); d > time.Second {
			t.Errorf("%s: began %v before it began", identity(c), old.Sub(c.Since))
		}
	}
	if sent, gone := lost(); gone > 0 || sent == 0 {
		t.Errorf("%d of %d packets of the calls were lost", gone, sent)
	}
	half.Abort()
	w.goOn(server, legs)
}
