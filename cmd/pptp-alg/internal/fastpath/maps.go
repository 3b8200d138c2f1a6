//go:build !nofastpath

package fastpath

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structs of bpf/fastpath.c. Addresses and Call IDs are bytes in network order, the rest is the machine's.

type tupleKey struct {
	Src, Dst [4]byte
	CallID   [2]byte
	_        [2]byte
}

type callValue struct {
	Generation, Arrives, Link, MTU, Mark, Flags uint32
	Src, Dst                                    [4]byte
	CallID                                      [2]byte
	_                                           [2]byte
	Family                                      uint32
	Gateway                                     [16]byte
	Packets, Bytes                              uint64
}

const leavesBare = 1 // in callValue.Flags

type sightRecord struct {
	Leaves                          tupleKey
	Generation, Arrived, Link, Mark uint32
	Next                            [6]byte
	_                               [2]byte
}

const (
	tupleSize = uint32(unsafe.Sizeof(tupleKey{}))
	callSize  = uint32(unsafe.Sizeof(callValue{}))
	sightSize = uint32(unsafe.Sizeof(sightRecord{}))
)

// The sizes that the C compiler has, on every machine.
var (
	_ = [1]struct{}{}[tupleSize-12]
	_ = [1]struct{}{}[callSize-72]
	_ = [1]struct{}{}[sightSize-36]
)

func network(n uint16) [2]byte { return [2]byte{byte(n >> 8), byte(n)} }

func (t Tuple) encode() tupleKey {
	return tupleKey{Src: t.Src.As4(), Dst: t.Dst.As4(), CallID: network(t.CallID)}
}

func (k tupleKey) decode() Tuple {
	return Tuple{netip.AddrFrom4(k.Src), netip.AddrFrom4(k.Dst), uint16(k.CallID[0])<<8 | uint16(k.CallID[1])}
}

func (c Call) encode() callValue {
	v := callValue{
		Generation: c.Generation, Arrives: uint32(c.Arrives), Link: uint32(c.Link), MTU: uint32(c.MTU), Mark: c.Mark,
		Src: c.Leaves.Src.As4(), Dst: c.Leaves.Dst.As4(), CallID: network(c.Leaves.CallID),
	}
	switch {
	case c.Bare:
		v.Flags = leavesBare
	case c.Gateway.Is4():
		v.Family = unix.AF_INET
		a := c.Gateway.As4()
		copy(v.Gateway[:], a[:])
	default:
		v.Family = unix.AF_INET6
		v.Gateway = c.Gateway.As16()
	}
	return v
}

func (r sightRecord) decode() Sight {
	return Sight{r.Leaves.decode(), r.Generation, int(r.Arrived), int(r.Link), r.Mark, r.Next}
}
