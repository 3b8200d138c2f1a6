package peer

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"pptp-alg/e2e/wire"
)

// Network is a place to open sockets in. A nil Network is the process's own.
type Network interface {
	// Do runs fn on a thread inside the network.
	Do(fn func() error) error
}

func inside(n Network, fn func() error) error {
	if n == nil {
		return fn()
	}
	return n.Do(fn)
}

// dials bounds how many threads wait inside a network at once: a thread that
// has entered one is lost to the scheduler until its connection is made.
var dials = make(chan struct{}, 64)

func dial(ctx context.Context, n Network, from, to netip.AddrPort) (*net.TCPConn, error) {
	select {
	case dials <- struct{}{}:
		defer func() { <-dials }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), KeepAlive: -1, Control: reuseAddress}
	var c net.Conn
	err := inside(n, func() (err error) {
		c, err = d.DialContext(ctx, "tcp4", to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// reuseAddress lets a connection be made again from a port that was just used.
func reuseAddress(_, _ string, c syscall.RawConn) error {
	var err error
	if ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}); ctlErr != nil {
		return ctlErr
	}
	return err
}

func listen(n Network, at netip.AddrPort) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: reuseAddress}
	var l net.Listener
	err := inside(n, func() (err error) {
		l, err = lc.Listen(context.Background(), "tcp4", at.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// greSocket is a raw socket for protocol 47, bound to one address: the kernel
// hands it what is addressed there and nothing else.
type greSocket struct {
	file *os.File
	raw  syscall.RawConn
}

func openGRE(n Network, address netip.Addr) (*greSocket, error) {
	fd := -1
	err := inside(n, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_GRE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open GRE socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: address.As4()}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind GRE socket to %v: %w", address, err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	g := &greSocket{file: os.NewFile(uintptr(fd), "GRE socket")}
	if g.raw, err = g.file.SyscallConn(); err != nil {
		_ = g.file.Close()
		return nil, fmt.Errorf("open GRE socket: %w", err)
	}
	return g, nil
}

func (g *greSocket) send(to netip.Addr, b []byte) error {
	var err error
	if waitErr := g.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrInet4{Addr: to.As4()})
		return err != unix.EAGAIN && err != unix.EINTR
	}); waitErr != nil {
		return waitErr
	}
	return err
}

// receive gives the sender and what follows the IP header. The error is only
// for a closed socket.
func (g *greSocket) receive(buffer []byte) (netip.Addr, []byte, error) {
	for {
		var n int
		var err error
		if waitErr := g.raw.Read(func(fd uintptr) bool {
			n, _, err = unix.Recvfrom(int(fd), buffer, 0)
			return err != unix.EAGAIN && err != unix.EINTR
		}); waitErr != nil {
			return netip.Addr{}, nil, waitErr
		}
		if err != nil || n < 20 {
			continue // an ICMP error reported on the socket
		}
		header := int(buffer[0]&0xf) * 4
		if n < header || buffer[9] != wire.ProtocolGRE {
			continue
		}
		return netip.AddrFrom4([4]byte(buffer[12:16])), buffer[header:n], nil
	}
}

func (g *greSocket) close() error { return g.file.Close() }

// unsent says how many bytes of a connection's output the other side has not
// acknowledged yet (SIOCOUTQ).
func unsent(c *net.TCPConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	n := 0
	if ctlErr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); ctlErr != nil {
		return 0, ctlErr
	}
	return n, err
}

// PlainGRE is a packet of ordinary GRE (RFC 2784), for scenarios with GRE
// that is not PPTP's.
func PlainGRE(protocol uint16, payload []byte) []byte {
	b := []byte{0, 0} // no options, version 0 (RFC 2784)
	return append(binary.BigEndian.AppendUint16(b, protocol), payload...)
}
