package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sizes of struct nlmsghdr and struct nfgenmsg (linux/netlink.h, linux/netfilter/nfnetlink.h), and of the errno that
// follows the header of an NLMSG_ERROR or NLMSG_DONE.
const messageHeaderLength, familyHeaderLength, errnoLength = 16, 4, 4

// receiveBuffer holds any datagram of nftables: lists come in pieces of 32 KiB at most.
const receiveBuffer = 64 << 10

func nftables(kind uint16) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)
}

// appendMessage appends a message: header, nfgenmsg (family, version 0, resource id), attributes. The resource id is the
// subsystem in the messages that frame a batch.
func appendMessage(b []byte, kind netlink.HeaderType, flags netlink.HeaderFlags, sequence uint32, family byte, resource uint16, attributes []byte) []byte {
	length := messageHeaderLength + familyHeaderLength + len(attributes)
	b = binary.NativeEndian.AppendUint32(b, uint32(length))
	b = binary.NativeEndian.AppendUint16(b, uint16(kind))
	b = binary.NativeEndian.AppendUint16(b, uint16(flags))
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = binary.NativeEndian.AppendUint32(b, 0) // to the kernel
	b = append(b, family, 0)
	b = binary.BigEndian.AppendUint16(b, resource)
	b = append(b, attributes...)
	for range align(length) - length {
		b = append(b, 0)
	}
	return b
}

func align(n int) int { return (n + 3) &^ 3 }

// exchange sends a request and returns the answers. It goes past the library's Conn to the socket, since the kernel does
// its work inside the system calls: when the sending is done the answers are there, the rest of a list comes with the
// reading, and there is never anything to wait for. That saves goroutines and is less than half of the time.
func (k *Kernel) exchange(request []byte) ([]netlink.Message, error) {
	if err := k.growSendBuffer(len(request)); err != nil {
		return nil, err
	}
	var (
		replies []netlink.Message
		failed  error
	)
	err := k.raw.Control(func(descriptor uintptr) {
		fd := int(descriptor)
		if k.stale { // late answers to an earlier request would be taken for ours
			if failed = k.drain(fd, nil); failed != nil {
				return
			}
		}
		defer func() { k.stale = failed != nil }()
		if failed = sendRaw(descriptor, request); failed == nil {
			failed = k.drain(fd, func(b []byte) {
				replies = append(replies, parseMessages(b)...)
			})
		}
	})
	return replies, errors.Join(err, failed)
}

// sendRaw is a raw system call because the Go runtime, which expects others to wait, would give the processor to another
// thread meanwhile, and wake that.
func sendRaw(fd uintptr, b []byte) error {
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
		if errno == 0 {
			return nil
		} else if errno != unix.EINTR {
			return errno
		}
	}
}

// drain reads what lies in the receive queue.
func (k *Kernel) drain(fd int, each func([]byte)) error {
	for {
		n, _, flags, _, err := unix.Recvmsg(fd, k.buffer, nil, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case flags&unix.MSG_TRUNC != 0:
			return fmt.Errorf("receive: an answer of more than %d bytes", len(k.buffer))
		case each != nil:
			each(k.buffer[:n])
		}
	}
}

// parseMessages copies the messages out of a datagram.
func parseMessages(datagram []byte) []netlink.Message {
	b := append([]byte(nil), datagram...)
	var messages []netlink.Message
	for len(b) >= messageHeaderLength {
		length := int(binary.NativeEndian.Uint32(b))
		if length < messageHeaderLength || length > len(b) {
			break
		}
		messages = append(messages, netlink.Message{
			Header: netlink.Header{
				Length:   uint32(length),
				Type:     netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])),
				Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
				Sequence: binary.NativeEndian.Uint32(b[8:]),
				PID:      binary.NativeEndian.Uint32(b[12:]),
			},
			Data: b[messageHeaderLength:length:length],
		})
		b = b[min(align(length), len(b)):]
	}
	return messages
}

// errorNumber is what an answer says went wrong: the message behind an error, or behind the end of a list, begins with a
// negative error number. 0 is none.
func errorNumber(m netlink.Message) unix.Errno {
	if m.Header.Type != netlink.Error && m.Header.Type != netlink.Done || len(m.Data) < errnoLength {
		return 0
	}
	if errno := int32(binary.NativeEndian.Uint32(m.Data)); errno < 0 {
		return unix.Errno(-errno)
	}
	return 0
}

// growSendBuffer makes room for a message of this size: netlink sends it in one piece or answers EMSGSIZE.
func (k *Kernel) growSendBuffer(size int) error {
	const ordinary = 64 << 10 // below net.core.wmem_default everywhere
	if size <= max(ordinary, k.sendBuffer) {
		return nil
	}
	if err := k.conn.SetWriteBuffer(size); err != nil {
		return fmt.Errorf("make room for %d bytes in the socket's send buffer: %w", size, err)
	}
	k.sendBuffer = size
	return nil
}
