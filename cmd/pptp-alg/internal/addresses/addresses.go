// Package addresses knows the IPv4 addresses of the router, and tells when they change.
//
// It speaks rtnetlink to the kernel of the network namespace in which Listen was called. While no address is added or
// removed it costs nothing: there is no timer.
package addresses

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Watch is a pair of rtnetlink sockets: one that is told of changes, and one that asks for the list.
type Watch struct {
	events *netlink.Conn
	raw    syscall.RawConn
	asks   *netlink.Conn
	closed atomic.Bool
}

// Listen begins to watch.
func Listen() (*Watch, error) {
	events, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	w := &Watch{events: events}
	if err = events.JoinGroup(unix.RTNLGRP_IPV4_IFADDR); err == nil {
		w.raw, err = events.SyscallConn()
	}
	if err == nil {
		w.asks, err = netlink.Dial(unix.NETLINK_ROUTE, nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch addresses: %w", err), events.Close())
	}
	return w, nil
}

// Receive waits until an address was added, removed or changed, and takes in all that happened up to now. What it was is
// not told, since news can be lost: ask for the list. After Close it returns os.ErrClosed.
func (w *Watch) Receive() error {
	var failed error
	var buffer [1]byte // what is in the messages does not matter
	wait := w.raw.Read(func(fd uintptr) bool {
		for some := false; ; {
			_, _, _, _, err := unix.Recvmsg(int(fd), buffer[:], nil, unix.MSG_DONTWAIT)
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				return some
			case err == nil, err == unix.ENOBUFS:
				some = true
			default:
				failed = err
				return true
			}
		}
	})
	if wait != nil && w.closed.Load() {
		return os.ErrClosed
	}
	if err := errors.Join(wait, failed); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	return nil
}

// Close ends the watch, and a Receive that waits.
func (w *Watch) Close() error {
	w.closed.Store(true)
	return errors.Join(w.events.Close(), w.asks.Close())
}

// tries is how often a list is asked for again that changed while it was read.
const tries = 5

// Local lists the addresses of all interfaces, whether these are up or down.
func (w *Watch) Local() (map[netip.Addr]bool, error) {
	for range tries {
		all, whole, err := w.list()
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		if whole {
			return all, nil
		}
	}
	return nil, errors.New("list addresses: they change faster than they can be read")
}

// list reads the list once. It is not whole when it changed meanwhile.
func (w *Watch) list() (all map[netip.Addr]bool, whole bool, err error) {
	request := make([]byte, unix.SizeofIfAddrmsg)
	request[0] = unix.AF_INET
	replies, err := w.asks.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETADDR, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if err != nil {
		return nil, false, err
	}
	all, whole = map[netip.Addr]bool{}, true
	for _, m := range replies {
		whole = whole && m.Header.Flags&netlink.DumpInterrupted == 0
		if a, ok := local(m); ok {
			all[a] = true
		}
	}
	return all, whole, nil
}

// local takes the address out of an RTM_NEWADDR: IFA_LOCAL, as IFA_ADDRESS is the other end's on a point-to-point link.
func local(m netlink.Message) (netip.Addr, bool) {
	if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg || m.Data[0] != unix.AF_INET {
		return netip.Addr{}, false
	}
	d, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return netip.Addr{}, false
	}
	for d.Next() {
		if b := d.Bytes(); d.Type() == unix.IFA_LOCAL && len(b) == 4 {
			return netip.AddrFrom4([4]byte(b)), true
		}
	}
	return netip.Addr{}, false
}
