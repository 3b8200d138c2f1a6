package daemon

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// inKernel runs f with a data plane in a network namespace of its own. The thread
// stays locked.
func inKernel(t *testing.T, f func(d *daemon)) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		defer close(done)
		ct, err := conntrack.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer ct.Close()
		kernel, err := rules.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer kernel.Close()
		c := config.Default()
		d := &daemon{config: c, unheard: map[*alg.Connection]heard{}}
		if d.features, err = kernel.Features(); err == nil {
			d.ruleset, err = rules.New(rulesConfig(c, d.features))
		}
		if err == nil {
			err = kernel.Apply(d.ruleset)
		}
		if err != nil {
			t.Error(err)
			return
		}
		d.plane = &plane{
			ct: ct, rules: kernel, limited: func(message string, args ...any) { t.Log(append([]any{message}, args...)...) },
			restore: func() error { return kernel.Apply(d.ruleset) },
			away:    d.isAway,
			live:    func(conntrack.GRE, conntrack.Zone) bool { return false },
		}
		d.table = nat.NewTable(tableConfig(c, nil), d.plane, rand.New(rand.NewPCG(1, 2)))
		f(d)
	}()
	if err := <-done; err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("cannot make a network namespace: %v", err)
	}
}

// connected makes a control connection through a masquerading router, nil if that fails.
func connected(t *testing.T, d *daemon) *nat.Connection {
	t.Helper()
	far := netip.MustParseAddr("203.0.113.9")
	c, err := d.table.Connect(nat.Path{Hosts: [2]nat.Host{
		{Real: netip.MustParseAddr("10.0.0.1"), Told: netip.MustParseAddr("192.0.2.1")}, {Real: far, Told: far}}})
	if err != nil {
		t.Error(err)
		return nil
	}
	return c
}

// powerless takes CAP_NET_ADMIN from the calling thread, or gives it back.
func powerless(t *testing.T, on bool) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	if err == nil {
		data[0].Effective |= 1 << unix.CAP_NET_ADMIN
		if on {
			data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		}
		err = unix.Capset(&header, &data[0])
	}
	if err != nil {
		t.Error(err)
	}
}

// The kernel refuses everything for a while (EPERM): the call is refused with its
// words, calls that are up stay, one that has to be renewed is renewed as soon as the
// kernel lets us, and the next call works.
func TestKernelRefuses(t *testing.T) {
	inKernel(t, func(d *daemon) {
		now := time.Now()
		c := connected(t, d)
		if c == nil {
			return
		}
		up := c.Request(now, nat.Client, nat.Outgoing, 5, nil)
		if up.Refused {
			t.Errorf("refused: %s", up.Reason)
			return
		}
		entries := func() int {
			list, err := d.plane.ct.List()
			if err != nil {
				t.Error(err)
			}
			return len(list)
		}
		guards := func() int {
			_ = d.plane.guard()
			list, err := d.plane.rules.Calls()
			if err != nil {
				t.Error(err)
			}
			return len(list)
		}
		c.Up(now, up)
		powerless(t, true)
		refused := c.Request(now, nat.Client, nat.Outgoing, 6, nil)
		if !refused.Refused || !strings.Contains(refused.Reason, "CAP_NET_ADMIN") || d.table.Counters.RefusedKernel != 1 || d.plane.errors != 1 {
			t.Errorf("refused %v with %q, %d refused by the kernel, %d errors", refused.Refused, refused.Reason, d.table.Counters.RefusedKernel, d.plane.errors)
		}
		d.table.Expire(now.Add(entryRenew)) // cannot be renewed
		powerless(t, false)
		if entries() != 1 || guards() != 1 || !up.Live() {
			t.Errorf("%d entries, %d guards, and the call that was up is %v", entries(), guards(), up.State)
		}
		// Gone altogether, as when the table was full in the middle of a renewal.
		if err := d.plane.ct.Delete(entryOf(up.End(nat.Client))); err != nil && !errors.Is(err, conntrack.ErrNotFound) {
			t.Error(err)
		}
		d.table.Expire(now.Add(entryRenew + time.Minute))
		if entries() != 1 {
			t.Error("the entry was not renewed when that was possible again")
		}
		again := c.Request(now.Add(entryRenew+time.Minute), nat.Client, nat.Outgoing, 6, nil)
		if again.Refused || entries() != 2 || guards() != 2 {
			t.Errorf("the next call: %q, %d entries, %d guards", again.Reason, entries(), guards())
		}
	})
}

// A call's tuple goes under guard when the segment that told of it has gone on, at the latest before anything happens to its
// entry; while that is refused, so are other calls. One that is over by then is not guarded after all.
func TestGuardComesAfter(t *testing.T) {
	inKernel(t, func(d *daemon) {
		now := time.Now()
		c := connected(t, d)
		if c == nil {
			return
		}
		guarded := func(want int, when string) {
			t.Helper()
			if list, err := d.plane.rules.Calls(); err != nil || len(list) != want {
				t.Errorf("%s: %d in the guard instead of %d, %v", when, len(list), want, err)
			}
		}
		call := func(id uint16) *nat.Mapping {
			t.Helper()
			call := c.Request(now, nat.Client, nat.Outgoing, id, nil)
			if call.Refused {
				t.Errorf("call %d: %s", id, call.Reason)
			}
			return call.End(nat.Client)
		}
		call(5)
		guarded(0, "before the segment has gone on")
		_ = d.plane.guard()
		guarded(1, "afterwards")
		for what, do := range map[string]func(*nat.Mapping){
			"renewed":    func(m *nat.Mapping) { _ = d.plane.Renew(m) },
			"lost":       func(m *nat.Mapping) { _ = d.plane.Lost(m, conntrack.Counters{}) },
			"closed":     d.plane.Close,
			"table gone": func(*nat.Mapping) { _ = d.plane.rules.Remove(); _ = d.plane.guard() },
		} {
			before, err := d.plane.rules.Calls()
			if err != nil {
				t.Error(err)
			}
			m := call(uint16(100 + len(what)))
			if what == "lost" { // by somebody else
				_ = d.plane.ct.Delete(entryOf(m))
			}
			want := len(before) + 1
			if what == "table gone" {
				want = 1 // the test's restore puts back no other
			}
			do(m)
			guarded(want, what)
			_ = d.plane.rules.Add(guardOf(m))
		}

		before, _ := d.plane.rules.Calls()
		call(6)
		works := d.plane.rules
		broken, err := rules.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		_ = broken.Close()
		d.plane.rules = broken
		if other := c.Request(now, nat.Client, nat.Outgoing, 7, nil); !other.Refused {
			t.Error("a call was let in while one before it could not be guarded")
		}
		d.plane.rules = works
		guarded(len(before), "while it is not possible")
		d.plane.catchUp()
		guarded(len(before), "soon after it was not")
		d.plane.behind = time.Now()
		d.plane.catchUp()
		guarded(len(before)+1, "when it is time to try again")
		again := call(8)
		guarded(len(before)+1, "when it is possible again")
		d.plane.Close(again)
		over := call(9)
		d.plane.Free(over)
		_ = d.plane.guard()
		guarded(len(before)+2, "when a call is over at once")
	})
}
