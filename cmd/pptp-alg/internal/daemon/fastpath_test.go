//go:build !nofastpath

package daemon

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/nat"
)

// withFastPath is inKernel with a fast path and a mapping that is awaited.
func withFastPath(t *testing.T, f func(*fastPath, *nat.Mapping)) {
	t.Helper()
	inKernel(t, func(d *daemon) {
		d.log, d.volumes = slog.New(slog.DiscardHandler), map[string]*volume{}
		d.config.FastPath = config.FastPathOn
		if err := d.openFastPath(func(func() error) {}); err != nil || d.fast == nil {
			t.Errorf("no fast path: %v, %s", err, d.cannot)
			return
		}
		defer d.fast.path.Close()
		c := connected(t, d)
		if c == nil {
			return
		}
		m := c.Request(time.Now(), nat.Client, nat.Outgoing, 5, nil).End(nat.Client)
		if m == nil || d.fast.lanes[m] == nil {
			t.Error("a call that begins is not known to the fast path")
			return
		}
		f(d.fast, m)
	})
}

// A call leaves the fast path before its conntrack entry is replaced, and has to be seen again.
func TestFastPathRenews(t *testing.T) {
	withFastPath(t, func(f *fastPath, m *nat.Mapping) {
		l := f.lanes[m]
		l.carried, l.put = f.generation, true
		l.sight.Generation = f.generation
		f.awaited--
		err := f.path.Put(l.arrives, fastpath.Call{Generation: f.generation, Leaves: l.leaves, Gateway: l.leaves.Dst})
		if err == nil {
			err = f.daemon.plane.Renew(m)
		}
		all, e := f.path.All()
		if err != nil || e != nil || len(all) != 0 {
			t.Errorf("in the programs' map are %v; %v, %v", all, err, e)
		}
		if now := f.lanes[m]; now == nil || now == l || f.carries(now) || f.hasSeen(now) || f.awaited != 1 {
			t.Errorf("the call is carried, or not awaited: %+v, %d", now, f.awaited)
		}
	})
}

// What can't be read, or watched, is said, and tried again ever more rarely.
func TestFastPathTrouble(t *testing.T) {
	withFastPath(t, func(f *fastPath, m *nat.Mapping) {
		l, now := f.lanes[m], time.Now()
		if why := f.why(l); why != "no GRE of it has passed both ways yet" {
			t.Errorf("to begin with: %q", why)
		}
		f.blind = "some device can't be watched"
		if why := f.why(l); why != f.blind {
			t.Errorf("where what leaves is not seen: %q", why)
		}
		if err := f.ways.Close(); err != nil {
			t.Error(err)
		}
		f.halt(now, "a test")
		for _, pause := range []time.Duration{2 * firstHalt, 4 * firstHalt, 8 * firstHalt} {
			f.begin(now)
			if f.generation != 0 || f.pause != pause || !f.due.Equal(now.Add(pause)) || !strings.Contains(f.why(l), "could not be read") {
				t.Errorf("generation %d after %v, not %v: %s", f.generation, f.pause, pause, f.why(l))
			}
		}
		for range 10 {
			f.begin(now)
		}
		if f.pause != lastHalt {
			t.Errorf("at last it is tried again after %v", f.pause)
		}
	})
}

// A call that can't be taken from the programs is carried no longer all the same: nothing is any more, and where the programs
// can't be told that, they are taken away.
func TestFastPathKeepsACall(t *testing.T) {
	withFastPath(t, func(f *fastPath, m *nat.Mapping) {
		l := f.lanes[m]
		l.carried, l.put = f.generation, true
		next := netip.MustParseAddr("fd00::1") // in the hash table, which needs the kernel
		if err := f.path.Put(l.arrives, fastpath.Call{Generation: f.generation, Leaves: l.leaves, Gateway: next}); err != nil {
			t.Error(err)
		}
		if err := f.path.Close(); err != nil { // the kernel refuses whatever is asked of it now
			t.Error(err)
		}
		f.closed(m)
		if f.generation != 0 || f.lanes[m] != nil || !strings.Contains(f.over, "can no longer be told") {
			t.Errorf("generation %d, over because %q", f.generation, f.over)
		}
	})
}
