package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A socket is a netlink socket, with a Receive of its own. netlink.Conn's goes on until the end of what
// looks like a dump, and ctnetlink marks the answer to a question for one entry as part
// of a dump (NLM_F_MULTI) which never ends.
type socket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	buf  []byte // for one datagram
	out  []byte // for one request

	sequence uint32
	closed   atomic.Bool
}

// receiveBuffer holds any datagram: the kernel makes those of a dump at most 32 KiB long.
const receiveBuffer = 64 << 10

// An Option changes how a socket is opened.
type Option func(*netlink.Config)

// InNamespace opens the socket in the network namespace that the file descriptor stands for,
// instead of in that of the calling thread. It needs CAP_SYS_ADMIN. The descriptor is not
// needed any more afterwards.
func InNamespace(fd int) Option {
	return func(c *netlink.Config) { c.NetNS = fd }
}

func dial(opts []Option) (*socket, error) {
	var config netlink.Config
	for _, o := range opts {
		o(&config)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &config)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return nil, ctNetlink.because(err)
	case err != nil:
		return nil, explain(err)
	}
	// Only for better words: a kernel without it is fine too.
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true)
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &socket{conn: conn, raw: raw, buf: make([]byte, receiveBuffer)}, nil
}

// receive waits for the next datagram, until the read deadline. The messages are valid until
// the next call.
func (s *socket) receive() ([]netlink.Message, error) {
	var n, flags int
	var err error
	// The runtime waits, not the system call: so a deadline and Close end it.
	wait := s.raw.Read(func(fd uintptr) bool {
		for {
			n, _, flags, _, err = unix.Recvmsg(int(fd), s.buf, nil, unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case wait != nil && s.closed.Load():
		return nil, os.ErrClosed
	case wait != nil:
		return nil, wait
	case err != nil:
		return nil, err
	case flags&unix.MSG_TRUNC != 0:
		return nil, fmt.Errorf("message longer than %d bytes", len(s.buf))
	}
	return splitMessages(s.buf[:n])
}

// send sends messages in one system call, with sequence numbers in a row, and returns the first of these. The kernel
// carries them out and queues the answers before the call returns. It is a raw system call because the Go
// runtime, which expects others to wait, would give the processor to another thread meanwhile, and wake that.
func (s *socket) send(messages ...netlink.Message) (first uint32, err error) {
	first = s.encode(messages)
	_, err = s.call(unix.SYS_SENDTO, s.out, 0, false)
	return first, err
}

// sendDump asks for a list. The call looks through a table that may be large, while others have something to do.
func (s *socket) sendDump(data []byte) (sequence uint32, err error) {
	sequence = s.encode([]netlink.Message{request(msgGet, netlink.Dump, data)})
	_, err = s.call(unix.SYS_SENDTO, s.out, 0, true)
	return sequence, err
}

// encode writes messages into s.out, and returns the sequence number of the first.
func (s *socket) encode(messages []netlink.Message) (first uint32) {
	first = s.sequence + 1
	s.sequence += uint32(len(messages))
	b := s.out[:0]
	for i, m := range messages {
		b = binary.NativeEndian.AppendUint32(b, uint32(nlmsghdrLen+len(m.Data)))
		b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Type))
		b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Flags))
		b = binary.NativeEndian.AppendUint32(b, first+uint32(i))
		b = binary.NativeEndian.AppendUint32(b, 0) // to the kernel
		b = append(b, m.Data...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	s.out = b
	return first
}

// poll returns the next datagram if it is there, else EAGAIN. The messages are valid until the next call.
func (s *socket) poll() ([]netlink.Message, error) {
	n, err := s.call(unix.SYS_RECVFROM, s.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC, false)
	switch {
	case err != nil:
		return nil, err
	case n > len(s.buf):
		return nil, fmt.Errorf("message longer than %d bytes", len(s.buf))
	}
	return splitMessages(s.buf[:n])
}

// call sends or receives b, past the runtime's scheduler unless it takes long.
func (s *socket) call(trap uintptr, b []byte, flags uintptr, long bool) (int, error) {
	var n uintptr
	var errno syscall.Errno
	err := s.raw.Control(func(fd uintptr) {
		for {
			if long {
				n, _, errno = unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
			} else {
				n, _, errno = unix.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
			}
			if errno != unix.EINTR {
				return
			}
		}
	})
	switch {
	case s.closed.Load():
		return 0, os.ErrClosed
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, errno
	}
	return int(n), nil
}

// Close closes the socket, and ends a receive that waits, with os.ErrClosed.
func (s *socket) Close() error {
	s.closed.Store(true)
	return s.conn.Close()
}

// wait sets the read deadline to that far from now.
func (s *socket) wait(d time.Duration) error { return s.conn.SetReadDeadline(time.Now().Add(d)) }

// splitMessages returns the netlink messages of a datagram. Their data is not copied. If one is malformed it
// returns those before it with the error; fewer bytes than a header at the end are ignored.
func splitMessages(b []byte) ([]netlink.Message, error) {
	var list []netlink.Message
	for len(b) >= nlmsghdrLen {
		length := binary.NativeEndian.Uint32(b)
		if length < nlmsghdrLen || uint64(length) > uint64(len(b)) {
			return list, errShort
		}
		n := int(length)
		list = append(list, netlink.Message{
			Header: netlink.Header{
				Length:   length,
				Type:     netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])),
				Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
				Sequence: binary.NativeEndian.Uint32(b[8:]),
				PID:      binary.NativeEndian.Uint32(b[12:]),
			},
			Data: b[nlmsghdrLen:n:n],
		})
		b = b[min((n+3)&^3, len(b)):] // the padding of the last message may be missing
	}
	return list, nil
}

// isLast reports whether a message is the last answer to its request if that is not a dump, or the end of
// a dump, and what error it carries.
func isLast(m netlink.Message) (bool, error) {
	switch m.Header.Type {
	case netlink.Error, netlink.Done:
		return true, messageError(m)
	}
	return false, nil
}

// messageError returns the error in an NLMSG_ERROR or NLMSG_DONE: an errno (struct nlmsgerr), 0 for an
// acknowledgement, and maybe words for it (NLMSGERR_ATTR_MSG).
func messageError(m netlink.Message) error {
	const (
		errnoLen        = 4
		nlmsgerrAttrMsg = 1
	)
	if len(m.Data) < errnoLen {
		if m.Header.Type == netlink.Done {
			return nil
		}
		return errShort
	}
	code := int32(binary.NativeEndian.Uint32(m.Data))
	if code == 0 {
		return nil
	}
	errno := unix.Errno(-code)
	if m.Header.Flags&netlink.AcknowledgeTLVs == 0 {
		return errno
	}
	// The request comes first, or, as NLM_F_CAPPED says, only its header.
	tlvs := m.Data[errnoLen:]
	if m.Header.Type == netlink.Error {
		skip := nlmsghdrLen
		if m.Header.Flags&netlink.Capped == 0 && len(tlvs) >= 4 {
			skip = int(min(binary.NativeEndian.Uint32(tlvs), uint32(len(tlvs))))
		}
		tlvs = tlvs[min((skip+3)&^3, len(tlvs)):]
	}
	var words string
	_ = attributes(tlvs, func(attr uint16, v value) error { // what is malformed only costs words
		if attr == nlmsgerrAttrMsg {
			words, _, _ = strings.Cut(string(v), "\x00")
		}
		return nil
	})
	if words == "" {
		return errno
	}
	return fmt.Errorf("%w (%s)", errno, words)
}
