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
	needs := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with what it has left
		var header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			needs <- true
			return
		}
		data[0].Effective &= 1 << unix.CAP_NET_ADMIN
		data[1].Effective = 0
		if err := unix.Capset(&header, &data[0]); err != nil {
			needs <- true
			return
		}
		needs <- p.Forget(Tuple{Src: netip.IPv4Unspecified(), Dst: netip.IPv4Unspecified()}) != nil // nobody awaits it
	}()
	return <-needs
}
