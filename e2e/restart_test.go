package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// again starts the daemon anew in the place of the last one.
func (w *world) again(config string, args ...string) {
	w.Helper()
	d, err := w.Router.StartDaemon(lab.DaemonOptions{Program: program(w), Args: args, Config: config, Socket: w.daemon.Socket()})
	w.must(err)
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	w.must(d.Ready(ctx))
	w.daemon = d
}

// identity is what a restart may not change of a call.
func identity(c lab.CallStatus) string {
	return fmt.Sprintf("call %s %s %s %v %v", c.ID, c.Direction, c.State, c.Client, c.Server)
}

// sameCalls compares the calls before and after a restart.
func (w *world) sameCalls(before, after *lab.Status) {
	w.Helper()
	was := map[string]lab.CallStatus{}
	for _, c := range before.Calls {
		was[identity(c)] = c
	}
	for _, c := range after.Calls {
		old, ok := was[identity(c)]
		if !ok {
			w.Errorf("after the restart there is %s", identity(c))
			continue
		}
		delete(was, identity(c))
		if d := c.Since.Sub(old.Since).Abs(); d > time.Second {
			w.Errorf("%s: announced %v, and after the restart %v", identity(c), old.Since, c.Since)
		}
		// What the fast path had carried of it a killed daemon alone knew.
		if !fastPathOn && (c.PacketsFromClient < old.PacketsFromClient || c.PacketsFromServer < old.PacketsFromServer) {
			w.Errorf("%s: %d and %d packets, and after the restart %d and %d", identity(c),
				old.PacketsFromClient, old.PacketsFromServer, c.PacketsFromClient, c.PacketsFromServer)
		}
	}
	for id := range was {
		w.Errorf("after the restart %s is missing", id)
	}
}

// Calls outlive the daemon, and another one goes on with them: nothing of their
// GRE is lost, and whatever is said about them later is translated.
func TestRestart(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"killed":  func(w *world) { w.must(w.daemon.Kill()) },
		"stopped": func(w *world) { w.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 3, Servers: 1, Firewall: strict()})
			server := w.server(0, peer.Config{CallID: peer.Counting(500)})
			var calls []*peer.Call
			for i := range 3 {
				session := w.dial(w.client(i, peer.Config{CallID: peer.Counting(9)}), server)
				calls = append(calls, w.call(session), w.call(session))
			}
			before := w.status(len(calls))
			var streams []*peer.Traffic
			for _, c := range calls {
				streams = append(streams, c.Traffic(2*time.Millisecond, 200), w.far(c, server).Traffic(2*time.Millisecond, 200))
			}
			time.Sleep(50 * time.Millisecond)
			end(w)
			time.Sleep(50 * time.Millisecond)
			w.again(quickConfig)
			after := w.status(len(calls))
			w.sameCalls(before, after)
			time.Sleep(50 * time.Millisecond)
			for _, s := range streams {
				sent, lost, err := s.Stop(w.ctx)
				if lost != 0 || err != nil || sent == 0 {
					t.Errorf("%d of %d packets lost, %v", lost, sent, err)
				}
			}
			w.afterRestart(server, calls)
			w.finish()
		})
	}
}

// afterRestart uses three sessions of two calls each in all the ways in which
// messages name calls.
func (w *world) afterRestart(server *peer.Node, calls []*peer.Call) {
	w.Helper()
	for _, c := range calls {
		far := w.far(c, server)
		w.check(c.SetLinkInfo())
		w.eventually("Set-Link-Info should arrive", func() error {
			if far.Stats().SetLinkInfo == 0 {
				return fmt.Errorf("%v got none", far)
			}
			return nil
		})
	}
	fresh := w.call(calls[0].Session())
	w.talk(fresh, server)
	w.check(calls[0].HangUp(w.ctx))                // Call-Clear-Request and what answers it
	w.check(w.far(calls[2], server).HangUp(w.ctx)) // Call-Disconnect-Notify
	w.check(calls[2].WaitEnd(w.ctx))
	w.check(calls[4].Session().Stop(w.ctx))
	for _, c := range []*peer.Call{calls[1], calls[3], fresh} {
		w.talk(c, server)
	}
	w.status(3)
}
