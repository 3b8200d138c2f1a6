package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// Connections are closed by both ends while the daemon's rules are gone, so that it sees nothing of it. It finds
// out as soon as it puts the rules back, not when conntrack forgets the connections two minutes later. One that lives
// on is left alone.
func TestConnectionEndedUnseen(t *testing.T) {
	for name, flush := range map[string]bool{"rules gone": false, "rules gone, conntrack flushed": true} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 3, Servers: 1, Firewall: strict()})
			server := w.server(0, peer.Config{CallID: peer.Counting(500)})
			var legs []leg
			for i := range 3 {
				legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Counting(9)}), server), server))
			}
			w.talkLeg(legs...)
			w.status(3)
			w.freeze()
			w.must(w.Router.DeleteTable(table))
			closed, reset, lives := legs[0], legs[1], legs[2]
			closed.client.Session().Close()
			reset.client.Session().Abort()
			w.eventually("the connections should be over", func() error {
				flows, err := w.Router.Conntrack()
				n := 0
				for _, f := range flows {
					if f.Protocol == tcp && f.Timeout.Hours() < 1 {
						n++
					}
				}
				if err == nil && n != 2 {
					err = fmt.Errorf("%d of 2 are", n)
				}
				return err
			})
			if flush {
				w.must(w.Router.FlushConntrack())
			}
			w.must(w.daemon.Signal(syscall.SIGCONT))
			w.status(1)
			w.listed(lives)
			w.talkLeg(lives)
			w.check(lives.client.SetLinkInfo(), lives.client.Session().Ping(w.ctx), lives.client.HangUp(w.ctx), lives.server.WaitEnd(w.ctx))
			w.untranslated()
			w.finish()
		})
	}
}

// Both ends of a connection are gone and nobody saw it, for conntrack has been flushed. The daemon puts the entry back,
// and it is over when nothing comes for a time. One that says something lives on, and so does one whose calls carry GRE.
func TestConnectionUnheard(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 3, Servers: 1, Firewall: strict()})
	ctx, cancel := context.WithTimeout(context.Background(), 30*patience)
	defer cancel()
	w.ctx = ctx
	w.start(quickConfig + "unheard = \"5s\"\n")
	server := w.server(0, peer.Config{CallID: peer.Counting(500)})
	var legs []leg
	for i, keepalive := range []time.Duration{0, time.Second, 0} {
		client := w.client(i, peer.Config{CallID: peer.Counting(9), Keepalive: keepalive})
		legs = append(legs, w.up(w.dialAndCall(client, server), server))
	}
	w.talkLeg(legs...)
	gone, speaks, carries := legs[0], legs[1], legs[2]
	stream := carries.client.Traffic(50*time.Millisecond, 100)
	w.silent(legs...) // a late acknowledgement would count as a sign of life
	w.must(gone.server.Session().Vanish(), gone.client.Session().Vanish(), w.Router.FlushConntrack())
	w.settle(2)
	w.listed(speaks, carries)
	w.ended("control connection disappeared", from(w.Clients[0].Address, gone.client.ID()))
	// The entry of the third has expired as often.
	for end := time.Now().Add(2 * patience); w.daemonStatus().Counter("connections_restored") < 6 && time.Now().Before(end); {
		time.Sleep(time.Second)
	}
	if n := w.daemonStatus().Counter("connections_restored"); n < 6 {
		t.Errorf("entries of control connections were put back %d times", n)
	}
	_, lost, err := stream.Stop(w.ctx)
	t.Logf("%d packets lost, %v", lost, err)
	w.settle(2)
	w.listed(speaks, carries)
	w.talkLeg(speaks, carries)
	w.check(speaks.client.Session().Ping(w.ctx), carries.client.Session().Ping(w.ctx))
	w.finish()
}

// freeze stops every thread of the daemon where it is, until SIGCONT.
func (w *world) freeze() {
	w.Helper()
	w.must(w.daemon.Signal(syscall.SIGSTOP))
	w.eventually("the daemon should stand still", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", w.daemon.PID()))
		for _, t := range threads {
			b, e := os.ReadFile(t)
			if err == nil && (e != nil || !strings.Contains(string(b), ") T ")) {
				err = fmt.Errorf("%s: %w", b, e)
			}
		}
		return err
	})
}
