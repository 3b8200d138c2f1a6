package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/if_pppox.h and linux/ppp-ioctl.h.
const (
	protocolPPTP = 2          // PX_PROTO_PPTP
	getChannel   = 0x80047437 // PPPIOCGCHAN, _IOR('t', 55, int)
	attach       = 0x40047438 // PPPIOCATTCHAN, _IOW('t', 56, int)
)

// address is a struct sockaddr_pppox with a struct pptp_addr. It is packed:
// family u16, protocol u32, Call ID u16 (host byte order), two of padding, the IPv4
// address, and what makes it as long as the union.
type address [30]byte

func makeAddress(ip netip.Addr, callID uint16) (a address) {
	binary.NativeEndian.PutUint16(a[0:], unix.AF_PPPOX)
	binary.NativeEndian.PutUint32(a[2:], protocolPPTP)
	binary.NativeEndian.PutUint16(a[6:], callID)
	copy(a[10:], ip.AsSlice())
	return a
}

// socket is a call of the kernel's PPTP driver. Read and Write carry PPP frames
// without address and control, the protocol in two octets.
type socket struct {
	fd      int
	channel int // /dev/ppp, attached to the driver's channel
	callID  uint16
}

func call(trap uintptr, fd int, a unsafe.Pointer, b uintptr) error {
	if _, _, errno := unix.Syscall(trap, uintptr(fd), uintptr(a), b); errno != 0 {
		return errno
	}
	return nil
}

// bind makes a socket with a Call ID of our own, or with one that the kernel
// chooses.
func bind(local netip.Addr, callID uint16) (*socket, error) {
	fd, err := unix.Socket(unix.AF_PPPOX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocolPPTP)
	if err != nil {
		return nil, fmt.Errorf("open a socket of the kernel's PPTP driver (is there a module pptp?): %w", err)
	}
	a := makeAddress(local, callID)
	if err := call(unix.SYS_BIND, fd, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind Call ID %d: %w", callID, err)
	}
	length := uint32(len(a))
	if err := call(unix.SYS_GETSOCKNAME, fd, unsafe.Pointer(&a), uintptr(unsafe.Pointer(&length))); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("ask for the Call ID: %w", err)
	}
	return &socket{fd: fd, callID: binary.NativeEndian.Uint16(a[6:])}, nil
}

// connect begins the call's GRE.
func (s *socket) connect(server netip.Addr, peerID uint16) error {
	a := makeAddress(server, peerID)
	if err := call(unix.SYS_CONNECT, s.fd, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
		return fmt.Errorf("connect to Call ID %d of %v: %w", peerID, server, err)
	}
	index, err := unix.IoctlGetInt(s.fd, getChannel)
	if err != nil {
		return fmt.Errorf("ask for the driver's channel: %w", err)
	}
	if s.channel, err = unix.Open("/dev/ppp", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /dev/ppp: %w", err)
	}
	if err := unix.IoctlSetPointerInt(s.channel, attach, index); err != nil {
		return fmt.Errorf("attach to the driver's channel: %w", err)
	}
	return nil
}

func (s *socket) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(s.channel, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		default:
			return n, nil
		}
	}
}

func (s *socket) Write(b []byte) (int, error) {
	n, err := unix.Write(s.channel, b)
	return n, os.NewSyscallError("write", err)
}
