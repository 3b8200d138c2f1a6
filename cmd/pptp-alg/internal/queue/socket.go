package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Names of linux/netfilter/nfnetlink_queue.h.
const (
	subsystem    = 3 << 8 // NFNL_SUBSYS_QUEUE
	msgPacket    = subsystem
	msgVerdict   = subsystem | 1
	msgConfig    = subsystem | 2
	cfgCommand   = 1 // NFQA_CFG_CMD: command, padding, family (big-endian)
	cfgParams    = 2 // NFQA_CFG_PARAMS: range, mode
	cfgMaxLength = 3
	cfgMask      = 4
	cfgFlags     = 5
	commandBind  = 1
	copyPacket   = 2      // NFQNL_COPY_PACKET
	flagWithCT   = 1 << 1 // NFQA_CFG_F_CONNTRACK

	attrPacket   = 1 // NFQA_PACKET_HDR: ID, hardware protocol, hook
	attrVerdict  = 2 // NFQA_VERDICT_HDR: verdict, ID
	attrMark     = 3
	attrIn       = 5
	attrOut      = 6
	attrPayload  = 10
	attrCT       = 11
	attrCapLen   = 13
	hookOffset   = 6      // in NFQA_PACKET_HDR
	attrTypeMask = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER

	verdictDrop, verdictAccept = 0, 1 // NF_DROP, NF_ACCEPT
)

// Lengths of struct nlmsghdr, nfgenmsg and nlattr.
const nlmsgLength, nfgenLength, nlattrLength = 16, 4, 4

// bufferSize holds the longest packet with its attributes. What is not used of it is never resident.
const bufferSize = 96 << 10

// answerTimeout bounds the wait for an answer, which has come when the request's system call returns.
const answerTimeout = 5 * time.Second

// socket is the netlink socket of a queue.
type socket struct {
	conn *netlink.Conn // for what is done once
	raw  syscall.RawConn
	in   []byte // for one datagram

	mu  sync.Mutex
	out []byte // for one verdict
}

// open opens the socket; netns is the file descriptor of a network namespace, or 0.
func open(netns int) (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &socket{conn: conn, raw: raw, in: make([]byte, bufferSize)}, nil
}

// begin begins a message about a queue.
func begin(b []byte, kind uint16, flags netlink.HeaderFlags, sequence uint32, queue uint16) []byte {
	b = append(b, 0, 0, 0, 0) // the length: see end
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, uint16(netlink.Request|flags))
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = append(b, 0, 0, 0, 0, unix.AF_UNSPEC, 0) // to the kernel; version 0
	return binary.BigEndian.AppendUint16(b, queue)
}

// end writes the length of the message that began at from.
func end(b []byte, from int) { binary.NativeEndian.PutUint32(b[from:], uint32(len(b)-from)) }

// attribute appends the header of an attribute, and pads what comes before it.
func attribute(b []byte, kind uint16, length int) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	b = binary.NativeEndian.AppendUint16(b, uint16(nlattrLength+length))
	return binary.NativeEndian.AppendUint16(b, kind)
}

// bind takes a queue and sets it up. Packets that come before that is done are returned.
func (s *socket) bind(queue uint16, maxLength, flags uint32) (early [][]byte, err error) {
	const steps = 3
	var b []byte
	message := func(sequence uint32, put func()) {
		from := len(b)
		b = begin(b, msgConfig, netlink.Acknowledge, sequence, queue)
		put()
		end(b, from)
	}
	message(1, func() { b = append(attribute(b, cfgCommand, 4), commandBind, 0, 0, unix.AF_INET) })
	message(2, func() {
		if flags != 0 {
			b = binary.BigEndian.AppendUint32(attribute(b, cfgFlags, 4), flags)
			b = binary.BigEndian.AppendUint32(attribute(b, cfgMask, 4), flags)
		}
		b = binary.BigEndian.AppendUint32(attribute(b, cfgMaxLength, 4), maxLength)
	})
	// From here on packets come.
	message(3, func() {
		b = append(binary.BigEndian.AppendUint32(attribute(b, cfgParams, 5), copyRange), copyPacket, 0, 0, 0)
	})
	if err := s.send(b); err != nil {
		return nil, err
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	for answered := 0; answered < steps; {
		datagram, err := s.receive()
		if errors.Is(err, unix.ENOBUFS) {
			continue // packets did not fit, which TCP sends again
		}
		if err != nil {
			return nil, fmt.Errorf("receive answer: %w", err)
		}
		for kind, data := range messages(datagram) {
			switch kind {
			case unix.NLMSG_ERROR:
				if errno := errorNumber(data); errno != 0 {
					return nil, errno
				}
				answered++
			case msgPacket:
				early = append(early, bytes.Clone(data))
			}
		}
	}
	return early, s.conn.SetReadDeadline(time.Time{})
}

// verdict sends a verdict, with the packet if it was changed. The kernel answers only if it cannot
// follow it.
func (s *socket) verdict(queue uint16, id, verdict uint32, changed []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := begin(s.out[:0], msgVerdict, 0, 0, queue)
	b = attribute(b, attrVerdict, 8)
	b = binary.BigEndian.AppendUint32(b, verdict)
	b = binary.BigEndian.AppendUint32(b, id)
	if changed != nil {
		b = append(attribute(b, attrPayload, len(changed)), changed...)
	}
	end(b, 0)
	s.out = b
	return s.send(b)
}

// send hands requests to the kernel, which carries them out before the call returns: after a verdict it
// takes the packet through the rest of its way. This is a raw system call because the Go runtime, which
// expects others to wait, would give the processor to another thread meanwhile, and wake that.
func (s *socket) send(b []byte) error {
	var errno syscall.Errno
	err := s.raw.Control(func(fd uintptr) {
		for {
			_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
			if errno != unix.EINTR {
				return
			}
		}
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// receive waits for the next datagram. It is valid until the next call.
func (s *socket) receive() ([]byte, error) {
	var n int
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		for {
			n, _, failed = unix.Recvfrom(int(fd), s.in, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, failed
	case n > len(s.in):
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	return s.in[:n], nil
}

// interrupt has a receive that waits, and all that come later, fail.
func (s *socket) interrupt() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }

// messages are the type and the data of each netlink message in a datagram.
func messages(b []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= nlmsgLength {
			length := uint64(binary.NativeEndian.Uint32(b))
			if length < nlmsgLength || length > uint64(len(b)) ||
				!yield(binary.NativeEndian.Uint16(b[4:]), b[nlmsgLength:length]) {
				return
			}
			b = b[min((int(length)+3)&^3, len(b)):]
		}
	}
}

// errorNumber is what an NLMSG_ERROR carries; 0 is an acknowledgement.
func errorNumber(data []byte) syscall.Errno {
	if len(data) < 4 {
		return unix.EPROTO
	}
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(data)))
}

var errNoPacket = errors.New("a message that is no packet")

// parse reads an NFQNL_MSG_PACKET. The packet has bytes of its own, so that it can be held: data is
// overwritten by the next message. cut says that the kernel sent only its beginning.
func parse(data []byte) (p *Packet, cut bool, err error) {
	if len(data) < nfgenLength {
		return nil, false, errNoPacket
	}
	p = new(Packet)
	var identified bool
	var whole uint32
	for b := data[nfgenLength:]; len(b) >= nlattrLength; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < nlattrLength || length > len(b) {
			return nil, false, errNoPacket
		}
		kind, v := binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[nlattrLength:length]
		b = b[min((length+3)&^3, len(b)):]
		switch {
		case kind == attrPayload:
			p.Data = bytes.Clone(v)
		case kind == attrCT:
			p.Conntrack = bytes.Clone(v)
		case len(v) < 4:
		case kind == attrPacket:
			p.ID, identified = binary.BigEndian.Uint32(v), true
			p.Prerouting = len(v) > hookOffset && v[hookOffset] == unix.NF_INET_PRE_ROUTING
		case kind == attrMark:
			p.Mark = binary.BigEndian.Uint32(v)
		case kind == attrIn:
			p.In = binary.BigEndian.Uint32(v)
		case kind == attrOut:
			p.Out = binary.BigEndian.Uint32(v)
		case kind == attrCapLen: // its length before it was cut
			whole = binary.BigEndian.Uint32(v)
		}
	}
	if !identified || p.Data == nil {
		return nil, false, errNoPacket
	}
	return p, uint64(whole) > uint64(len(p.Data)), nil
}
