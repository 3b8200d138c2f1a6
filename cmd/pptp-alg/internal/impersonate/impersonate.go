// Package impersonate makes TCP sockets that speak for one end of a connection that
// goes through this router.
//
// The kernel's TCP_REPAIR, made for moving connections between machines, puts a socket
// into the middle of a connection without a segment sent; IP_TRANSPARENT lets it have an
// address that is not the router's. Both need CAP_NET_ADMIN and nothing else. What such
// a socket sends has the addresses with which segments of its end arrive here, so
// conntrack takes it for one of them, translates it, and counts it as established.
package impersonate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocal says that the end is a program of this machine, which has such a socket.
var ErrLocal = errors.New("this machine has that end itself")

// Place is where in which connection a socket is to be.
type Place struct {
	Local, Remote netip.AddrPort // IPv4, as the end has them
	Mark          uint32         // of its packets; 0: none
	Next          uint32         // sequence number of the first byte that it sends
	Received      uint32         // and of the first one that it has not received
}

// Socket is one end of a connection.
type Socket struct{ fd int }

// Values of TCP_REPAIR and TCP_REPAIR_QUEUE (linux/tcp.h), which package unix lacks.
const (
	repairOn         = 1
	repairOffNoProbe = -1 // TCP_REPAIR_OFF_NO_WP, since Linux 4.19
	repairOff        = 0

	receiveQueue = 1
	sendQueue    = 2
)

// assumedWindow is what the other end is taken to have room for, in bytes. It is more
// than is ever sent, and cannot be known: the end has its scale to itself.
const assumedWindow = 65535

// Open makes the socket and sends nothing. ErrLocal, wrapped: the machine has that end.
func Open(p Place) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("speak for %v: %w", p.Local, os.NewSyscallError("socket", err))
	}
	s := &Socket{fd}
	if err := s.place(p); err != nil {
		s.Leave()
		return nil, fmt.Errorf("speak for %v: %w", p.Local, err)
	}
	return s, nil
}

func (s *Socket) place(p Place) error {
	option := func(name string, level, option, value int) error {
		return os.NewSyscallError("setsockopt "+name, unix.SetsockoptInt(s.fd, level, option, value))
	}
	queue := func(which int, sequence uint32) error {
		if err := option("TCP_REPAIR_QUEUE", unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, which); err != nil {
			return err
		}
		return option("TCP_QUEUE_SEQ", unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(int32(sequence)))
	}
	// In repair mode the port may be in use, by the router's own server.
	steps := []func() error{
		func() error { return option("IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1) },
		func() error { return option("TCP_REPAIR", unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOn) },
		func() error {
			if p.Mark == 0 {
				return nil
			}
			return option("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(int32(p.Mark)))
		},
		func() error { return os.NewSyscallError("bind", unix.Bind(s.fd, sockaddr(p.Local))) },
		func() error { return queue(sendQueue, p.Next) },
		func() error { return queue(receiveQueue, p.Received) },
		func() error {
			err := unix.Connect(s.fd, sockaddr(p.Remote))
			if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EADDRINUSE) {
				return ErrLocal // two sockets cannot have the same ends
			}
			return os.NewSyscallError("connect", err)
		},
		func() error {
			// struct tcp_repair_window (linux/tcp.h): snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
			var b []byte
			for _, v := range []uint32{p.Received, assumedWindow, assumedWindow, assumedWindow, p.Received} {
				b = binary.NativeEndian.AppendUint32(b, v)
			}
			return os.NewSyscallError("setsockopt TCP_REPAIR_WINDOW",
				unix.SetsockoptString(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, string(b)))
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

// live takes the socket out of repair mode: from then on it sends.
func (s *Socket) live() error {
	err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOffNoProbe)
	if errors.Is(err, unix.EINVAL) {
		err = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOff)
	}
	if err == nil {
		// Whatever happens to us: the end of the socket is a reset.
		err = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	return os.NewSyscallError("setsockopt", err)
}

// Send says something. It does not wait.
func (s *Socket) Send(b []byte) error {
	if err := s.live(); err != nil {
		return err
	}
	_, err := unix.Write(s.fd, b)
	return os.NewSyscallError("write", err)
}

// Reset ends the connection: the other end is sent a reset.
func (s *Socket) Reset() {
	_ = s.live()
	_ = unix.Close(s.fd)
}

// Leave takes the socket away, and nobody notices.
func (s *Socket) Leave() { _ = unix.Close(s.fd) }
