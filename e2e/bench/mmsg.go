package bench

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// batchLimit is UIO_MAXIOV, the most messages that one sendmmsg takes.
const batchLimit = 1024

// batch is a list of frames in the form that sendmmsg wants. The only place of
// the package with pointers inside a kernel structure; Go's heap does not move.
type batch struct {
	frames  [][]byte
	vectors []unix.Iovec
	headers []mmsghdr
}

func newBatch(frames [][]byte) *batch {
	b := &batch{frames: frames, vectors: make([]unix.Iovec, len(frames)), headers: make([]mmsghdr, len(frames))}
	for i, f := range frames {
		b.vectors[i].Base = &f[0]
		b.vectors[i].SetLen(len(f))
		b.headers[i].header.Iov = &b.vectors[i]
		b.headers[i].header.SetIovlen(1)
	}
	return b
}

// send sends up to count frames from position at on, and says how many it did.
func (b *batch) send(fd, at, count int) (int, error) {
	count = min(count, len(b.headers)-at, batchLimit)
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[at])), uintptr(count), 0, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("send packets: %w", errno)
	}
	return int(n), nil
}
