//go:build !nofastpath

package fastpath

import (
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// Try says whether this kernel and this process can have a fast path: it attaches programs to the loopback device, where
// they see no packet of anybody, and takes them away.
func Try() error {
	p, err := Open(Options{Entries: 16})
	if err != nil {
		return err
	}
	const loopback = 1
	err = p.Watch([]int{loopback})
	if e := p.Carry(loopback, false); err == nil {
		err = e
	}
	if e := p.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("no fast path: %w", err)
	}
	return nil
}

// NeedsBPF reports whether the kernel wants CAP_BPF also for what a Path does after Open: kernels before 5.19 do where
// kernel.unprivileged_bpf_disabled is set. It finds out by doing something without.
func (p *Path) NeedsBPF() bool {
	// Capabilities are a thread's. It has to live on: one that ends would be seen with all that it had.
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, few [2]unix.CapUserData
	if err := unix.Capget(&header, &all[0]); err != nil {
		return true
	}
	few = all
	few[0].Effective, few[1].Effective = all[0].Effective&(1<<unix.CAP_NET_ADMIN), 0
	if err := unix.Capset(&header, &few[0]); err != nil {
		return true
	}
	needs := p.Forget(Tuple{Src: netip.IPv4Unspecified(), Dst: netip.IPv4Unspecified()}) != nil // nobody awaits it
	if err := unix.Capset(&header, &all[0]); err != nil {
		return true
	}
	runtime.UnlockOSThread()
	return needs
}
