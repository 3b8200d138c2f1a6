//go:build !nofastpath

package fastpath

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// tcx reports whether this kernel has links that end with the process. Before 6.6, the tests of tcx are of clsact.
func tcx(t *testing.T) bool {
	t.Helper()
	p, err := Open(Options{Entries: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return p.old == nil
}

// CAP_BPF and CAP_NET_ADMIN are enough, as the documentation says. In particular the verifier has to accept the programs without
// CAP_PERFMON, which would let them do more.
func TestCapabilities(t *testing.T) {
	l := newLab(t)
	var p *Path
	l.router.do(func() error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var all [2]unix.CapUserData
		if err := unix.Capget(&header, &all[0]); err != nil {
			return err
		}
		few := all
		few[0].Effective, few[1].Effective = 1<<unix.CAP_NET_ADMIN, 1<<(unix.CAP_BPF-32)
		if err := unix.Capset(&header, &few[0]); err != nil {
			return err
		}
		defer unix.Capset(&header, &all[0])
		var err error
		if p, err = Open(Options{Entries: 16}); err != nil {
			return err
		}
		return p.Carry(l.in, false)
	})
	t.Cleanup(func() { l.router.do(p.Close) })
	l.router.do(func() error {
		if err := p.Put(arrives, l.call()); err != nil {
			return err
		}
		return p.Begin(1)
	})
	sent := packet(arrives, 64, 10, nil)
	l.inner.send(sent)
	same(t, l.outer.receive(long), sent, leaves)
}
