//go:build !nofastpath

package fastpath

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// places are the calls that the programs find by an index: an array of pairs, in memory that the kernel shares with us. A tuple
// can be in one pair only; where both halves are taken, it is put into the hash table instead.
//
// A call is written while its generation is 0, which no program uses, and works from when that is written, last. The
// place of one that was taken away rests before another one gets it, with all that was in it: a program may have found it right
// before, and is not done with its packet. For the same reason nothing but its counters and where it is taken is changed while it works.
type places struct {
	fd    int
	pages []byte
	pairs [][2]callValue
	of    map[Tuple]*callValue // nil: in the hash table
	rest  []leaving            // the first comes first
	apart bool                 // the memory is not shared after all: there is no place for anybody
}

// leaving is a place that will be free.
type leaving struct {
	call  *callValue
	until time.Time
}

// placeRest is much longer than a program runs.
const placeRest = time.Second

const pairSize = 2 * callSize

// openPlaces makes as many places as tuples, rounded up to a power of two.
func openPlaces(entries int) (*places, error) {
	pairs := 1 << bits.Len(uint(max(entries, 2)/2-1))
	const mmapable = 1 << 10 // BPF_F_MMAPABLE: pages of its own, so that a call is a line of the cache
	fd, err := makeMap("places", unix.BPF_MAP_TYPE_ARRAY, 4, pairSize, uint32(pairs), mmapable)
	if err != nil {
		return nil, err
	}
	size := pairs * int(pairSize)
	pages, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("map the eBPF array of calls: %w", err)
	}
	p := &places{fd: fd, pages: pages, pairs: unsafe.Slice((*[2]callValue)(unsafe.Pointer(&pages[0])), pairs), of: map[Tuple]*callValue{}}
	p.apart = !shared(p.pairs,
		func(i uint32, v *[2]callValue) error { return element(unix.BPF_MAP_LOOKUP_ELEM, fd, &i, v) },
		func(i uint32, v *[2]callValue) error { return element(unix.BPF_MAP_UPDATE_ELEM, fd, &i, v) })
	return p, nil
}

// shared reports whether the kernel sees at once what is written to the memory, and what it writes is seen there. It is not so where
// the processor's cache of data goes by virtual addresses (MIPS 24Kc, of many routers): what both sides have is in two lines of
// it then, of which each hides the other side's. The system calls that read and write an element use the address that the programs
// use. The pairs are empty before and, if it is so, afterwards; at no time does a program use them.
func shared(pairs [][2]callValue, lookup, update func(uint32, *[2]callValue) error) bool {
	const pages, often = 4, 3 // a line may leave the cache just then, not so many
	for i := uint32(0); i < uint32(len(pairs)); i += max(1, uint32(len(pairs)/pages)) {
		for n := range uint32(often) {
			ours, theirs := &pairs[i][1].Mark, [2]callValue{}
			if lookup(i, &theirs) != nil { // and it is in the cache
				return false
			}
			atomic.StoreUint32(ours, n+1)
			if lookup(i, &theirs) != nil || theirs[1].Mark != n+1 {
				return false
			}
			theirs[1].Mark = ^n
			if update(i, &theirs) != nil || atomic.LoadUint32(ours) != ^n {
				return false
			}
		}
		atomic.StoreUint32(&pairs[i][1].Mark, 0)
	}
	return true
}

func (p *places) mask() uint32 { return uint32(len(p.pairs) - 1) }

// pair is where a tuple's call may be; see place_of in bpf/fastpath.c.
func (p *places) pair(k tupleKey) *[2]callValue {
	h := (ne.Uint32(k.Src[:]) ^ ne.Uint32([]byte{k.CallID[0], k.CallID[1], 0, 0})*0x9e3779b1) * 0x85ebca6b
	h = (h ^ h>>15 + ne.Uint32(k.Dst[:])) * 0xc2b2ae35
	return &p.pairs[(h^h>>16)&p.mask()]
}

// free returns a place for a tuple; nil: there is none.
func (p *places) free(k tupleKey, now time.Time) *callValue {
	if p.apart {
		return nil
	}
	for len(p.rest) > 0 && !now.Before(p.rest[0].until) {
		*p.rest[0].call = callValue{}
		p.rest = p.rest[1:]
	}
	pair := p.pair(k)
	for i := range pair {
		if c := &pair[i]; c.is() == (tupleKey{}) {
			return c
		}
	}
	return nil
}

// set writes a call into a place, and counts on from there.
func (c *callValue) set(v callValue) {
	c.stop()
	c.Arrives, c.Port, c.Link, c.Mark, c.MTU, c.Flags, c.Hop = v.Arrives, v.Port, v.Link, v.Mark, v.MTU, v.Flags, v.Hop
	c.IsSrc, c.IsDst, c.IsID, c.Src, c.Dst, c.CallID = v.IsSrc, v.IsDst, v.IsID, v.Src, v.Dst, v.CallID
	atomic.StoreUint32(&c.Generation, v.Generation)
}

// stop ends what is carried there.
func (c *callValue) stop() { atomic.StoreUint32(&c.Generation, 0) }

// move has it taken elsewhere. A program looks at one of the two only.
func (c *callValue) move(arrives, port int) {
	atomic.StoreUint32(&c.Arrives, uint32(arrives))
	atomic.StoreUint32(&c.Port, uint32(port))
}

// take ends what is carried there, and returns what was. A packet that a program has at this moment may be missing.
func (p *places) take(c *callValue, now time.Time) Traffic {
	c.stop()
	p.rest = append(p.rest, leaving{c, now.Add(placeRest)})
	return c.traffic()
}

// traffic reads counters that programs are at.
func (c *callValue) traffic() Traffic {
	read := func(n *uint64) uint64 { return steady(func() uint64 { return atomic.LoadUint64(n) }) }
	return Traffic{read(&c.Packets), read(&c.Bytes)}
}

// steady reads a counter that only grows. On machines of 32 bits one half of what is loaded may be older than the other one.
func steady(load func() uint64) uint64 {
	for last := load(); ; {
		now := load()
		if now>>32 == last>>32 && now >= last {
			return now
		}
		last = now
	}
}

func (p *places) close() error {
	err := unix.Munmap(p.pages)
	p.pages, p.pairs = nil, nil
	if e := unix.Close(p.fd); err == nil {
		err = e
	}
	return err
}
