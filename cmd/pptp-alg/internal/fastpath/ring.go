//go:build !nofastpath

package fastpath

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring is the buffer in which programs tell of sights (BPF_MAP_TYPE_RINGBUF, Documentation/bpf/ringbuf.rst). What does
// not fit in is told again by the next packet.
type ring struct {
	fd       int
	file     *os.File // fd, for waiting
	raw      syscall.RawConn
	consumer []byte // a page: up to where it was read
	producer []byte // a page, up to where it was written, and the data twice, so that no record is cut
	closed   atomic.Bool
}

const ringSize = 64 << 10 // a power of two, and pages of 64 KB at most

func openRing() (*ring, error) {
	fd, err := makeMap("sights", unix.BPF_MAP_TYPE_RINGBUF, 0, 0, ringSize, 0)
	if err != nil {
		return nil, err
	}
	r := &ring{fd: fd}
	page := os.Getpagesize()
	if r.consumer, err = unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		r.producer, err = unix.Mmap(fd, int64(page), page+2*ringSize, unix.PROT_READ, unix.MAP_SHARED)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	r.file = os.NewFile(uintptr(fd), "ring buffer")
	if err == nil {
		r.raw, err = r.file.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the eBPF ring buffer: %w", err), r.close())
	}
	return r, nil
}

// Positions count bytes and never go back. They are unsigned longs.
func position(page []byte) *uintptr { return (*uintptr)(unsafe.Pointer(&page[0])) }

// A record's header: its length with two flags, and a word that is the kernel's.
const (
	recordHeader = 8
	busyRecord   = 1 << 31 // being written
	spoilt       = 1 << 30
)

// receive waits for records and takes all that there are.
func (r *ring) receive() (sights []Sight, err error) {
	wait := r.raw.Read(func(uintptr) bool {
		sights = r.take()
		return len(sights) > 0 || r.closed.Load()
	})
	if r.closed.Load() {
		return nil, os.ErrClosed
	}
	return sights, wait
}

func (r *ring) take() (sights []Sight) {
	data := r.producer[os.Getpagesize():]
	read, written := position(r.consumer), position(r.producer)
	// Where the memory is not shared after all, see shared, a record may be an old one, of any length. Then nothing more comes of it.
	for at := atomic.LoadUintptr(read); int(atomic.LoadUintptr(written)-at) > 0; {
		record := data[at%ringSize:]
		length := atomic.LoadUint32((*uint32)(unsafe.Pointer(&record[0])))
		if length&busyRecord != 0 {
			break // the kernel wakes us again
		}
		size := length &^ spoilt
		if length&spoilt == 0 && size == sightSize {
			sights = append(sights, (*sightRecord)(unsafe.Pointer(&record[recordHeader])).decode())
		}
		at += uintptr(recordHeader+size+7) &^ 7
		atomic.StoreUintptr(read, at)
	}
	return sights
}

func (r *ring) close() error {
	r.closed.Store(true)
	err := r.file.Close()
	// A reader may be looking into the pages: they stay mapped as long as the process lives.
	return err
}
