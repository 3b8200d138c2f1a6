package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// kills is how often TestKills kills the daemon, unless this variable says otherwise.
const (
	kills         = 12
	killsVariable = "PPTP_ALG_KILLS"
)

// storm places calls on a session and ends them, until it is over. What is said while no daemon runs passes
// untranslated: the Call IDs are such that this does no harm, but such a call has no GRE through this firewall.
func (w *world) storm(over *atomic.Bool, s *peer.Session, placed, failed *atomic.Int64) {
	ctx := w.ctx
	for !over.Load() {
		c, err := s.OutgoingCall(ctx)
		if err == nil {
			err = errors.Join(c.EchoWithin(ctx, 300*time.Millisecond, 2, 100), c.HangUp(ctx))
		}
		if err != nil {
			failed.Add(1)
		} else {
			placed.Add(1)
		}
	}
}

// The daemon is killed at random moments, while it is idle and while calls come and go. Calls that are up lose
// no packet, and stay the calls that they were.
func TestKills(t *testing.T) {
	n := kills
	if v, err := strconv.Atoi(os.Getenv(killsVariable)); err == nil {
		n = v
	}
	w := withDaemon(t, lab.Plan{Clients: 4, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{CallID: peer.Counting(20000)})
	var calls []*peer.Call
	var streams []*peer.Traffic
	var sessions []*peer.Session
	for i := range 4 {
		// The first two calls of each have the same Call IDs as the others', so they are translated.
		next := uint16(0)
		client := w.client(i, peer.Config{CallID: func() uint16 {
			if next++; next <= 2 {
				return next
			}
			return uint16(1000+4000*i) + next%4000
		}})
		session := w.dial(client, server)
		sessions = append(sessions, session)
		for range 2 {
			c := w.call(session)
			calls = append(calls, c)
			streams = append(streams, c.Traffic(5*time.Millisecond, 200), w.far(c, server).Traffic(5*time.Millisecond, 200))
		}
	}
	before := w.status(len(calls))
	var placed, failed atomic.Int64
	var away time.Duration
	for i := range n {
		var storms sync.WaitGroup
		var over atomic.Bool
		if i%4 != 0 {
			for _, s := range sessions {
				storms.Go(func() { w.storm(&over, s, &placed, &failed) })
			}
		}
		time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		w.must(w.daemon.Kill())
		gone := time.Now()
		w.again(quickConfig)
		away += time.Since(gone)
		w.survivors(before)
		over.Store(true)
		storms.Wait()
	}
	sent := 0
	for _, s := range streams {
		some, lost, err := s.Stop(w.ctx)
		if sent += some; lost != 0 || err != nil {
			t.Errorf("%d of %d packets lost, %v", lost, some, err)
		}
	}
	t.Logf("%d kills, without a daemon for %v in all; %d packets of calls that were up, none lost; %d calls came and went, %d more had no daemon",
		n, away.Round(time.Millisecond), sent, placed.Load(), failed.Load())
	for _, c := range calls {
		w.check(c.SetLinkInfo())
		w.talk(c, server)
		w.check(c.HangUp(w.ctx))
	}
	for _, s := range sessions {
		w.talk(w.call(s), server)
		w.check(s.Stop(w.ctx))
	}
	w.finish()
}

// survivors wants the calls that were up before to be there, and to be the same.
func (w *world) survivors(before *lab.Status) {
	w.Helper()
	now := w.daemonStatus()
	is := map[string]lab.CallStatus{}
	for _, c := range now.Calls {
		is[identity(c)] = c
	}
	for _, c := range before.Calls {
		got, ok := is[identity(c)]
		if !ok {
			w.Fatalf("after the restart %s is missing", identity(c))
		}
		if d := got.Since.Sub(c.Since).Abs(); d > time.Second {
			w.Errorf("%s: announced %v, and after the restart %v", identity(c), c.Since, got.Since)
		}
	}
}
