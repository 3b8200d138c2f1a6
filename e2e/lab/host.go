package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is one network namespace.
type Host struct {
	lab    *Lab
	name   string
	ns     netns.NsHandle
	handle *netlink.Handle // rtnetlink inside the namespace

	mu      sync.Mutex
	closed  bool
	daemons []*Daemon
}

// Name is the name given to Lab.Host.
func (h *Host) Name() string { return h.name }

// Lab is the lab that the host belongs to.
func (h *Host) Lab() *Lab { return h.lab }

// newNamespace makes an empty namespace on a thread of its own, so that no
// other thread of the process ever leaves the namespace it was in.
func newNamespace() (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: a locked thread ends with its goroutine, and one
		// that changed its namespace must not serve anybody else.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{netns.None(), fmt.Errorf("make network namespace: %w", err)}
			return
		}
		ns, err := netns.GetFromPath("/proc/thread-self/ns/net")
		done <- result{ns, err}
	}()
	r := <-done
	return r.ns, r.err
}

func newHost(l *Lab, name string) (*Host, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	h := &Host{lab: l, name: name, ns: ns, handle: handle}
	// PPTP is IPv4. Without IPv6 there are no neighbour and multicast
	// announcements in the captures.
	for _, dev := range []string{"all", "default"} {
		err := h.Sysctl("net.ipv6.conf."+dev+".disable_ipv6", "1")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			h.close()
			return nil, err
		}
	}
	if err := h.up("lo"); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *Host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		h.handle.Close()
		_ = h.ns.Close()
	}
}

// Do runs fn with the calling goroutine's thread inside the host. Sockets that
// fn opens stay there. fn must not block for long on anything that another Do
// has to do, and must not start goroutines that open sockets: those run on
// other threads.
func (h *Host) Do(fn func() error) error {
	runtime.LockOSThread()
	home, err := netns.GetFromPath("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("find own network namespace: %w", err)
	}
	defer func() { _ = home.Close() }()
	if err := h.enter(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	// Deferred, so that a panic in fn does not leave a thread in the host.
	defer func() {
		if err := netns.Set(home); err == nil {
			runtime.UnlockOSThread()
		} // else the thread stays locked and dies with its goroutine
	}()
	return fn()
}

// enter moves the calling thread, which must be locked, into the host.
func (h *Host) enter() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("enter %s: %w", h.name, os.ErrClosed)
	}
	if err := netns.Set(h.ns); err != nil {
		return fmt.Errorf("enter %s: %w", h.name, err)
	}
	return nil
}

func sysctlPath(key string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
}

// Sysctl sets one of the host's own settings ("net.ipv4.ip_forward"). The
// kernel shows /proc/sys/net as the opening thread's namespace has it.
func (h *Host) Sysctl(key, value string) error {
	return h.Do(func() error {
		if err := os.WriteFile(sysctlPath(key), []byte(value), 0); err != nil {
			return fmt.Errorf("set %s on %s: %w", key, h.name, err)
		}
		return nil
	})
}

// SysctlGet reads one of the host's own settings.
func (h *Host) SysctlGet(key string) (value string, err error) {
	err = h.Do(func() error {
		b, err := os.ReadFile(sysctlPath(key))
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

// Netlink gives the rtnetlink handle inside the host, for what the lab has no
// function for.
func (h *Host) Netlink() *netlink.Handle { return h.handle }

// Namespace gives the file descriptor of the namespace; it stays the lab's.
func (h *Host) Namespace() int { return int(h.ns) }
