//go:build !nofastpath

package fastpath

import (
	"net/netip"
	"unsafe"
)

// The structs of bpf/fastpath.c. Addresses and Call IDs are bytes in network order, the rest is the machine's.

type tupleKey struct {
	Src, Dst [4]byte
	CallID   [2]byte
	_        [2]byte
}

type callValue struct {
	Generation, Arrives, Port, Link, Mark uint32
	Hop                                   [4]byte
	IsSrc, IsDst                          [4]byte // the tuple whose it is
	Src, Dst                              [4]byte
	IsID, CallID                          [2]byte
	MTU, Flags                            uint16
	Packets, Bytes                        uint64
}

// is returns the tuple whose the call is; zeros: nobody's.
func (c *callValue) is() tupleKey { return tupleKey{Src: c.IsSrc, Dst: c.IsDst, CallID: c.IsID} }

// bridgeValue is a value of the table of ports, the Ethernet address of their bridge.
type bridgeValue struct {
	Address [6]byte
	_       [2]byte
}

// leavesBare is a bit of callValue.Flags.
const leavesBare = 1

// otherValue is a value of the hash table.
type otherValue struct {
	callValue
	Hop6 [16]byte // where Hop is zero
}

type stateValue struct{ Generation, Mask uint32 }

type sightRecord struct {
	Leaves                          tupleKey
	_                               [4]byte
	Generation, Arrived, Link, Mark uint32
	Next                            [6]byte
	_                               [2]byte
}

const (
	tupleSize = uint32(unsafe.Sizeof(tupleKey{}))
	callSize  = uint32(unsafe.Sizeof(callValue{}))
	otherSize = uint32(unsafe.Sizeof(otherValue{}))
	stateSize = uint32(unsafe.Sizeof(stateValue{}))
	sightSize = uint32(unsafe.Sizeof(sightRecord{}))

	bridgeSize = uint32(unsafe.Sizeof(bridgeValue{}))
)

// The sizes that the C compiler has, on every machine.
var (
	_ = [1]struct{}{}[tupleSize-12]
	_ = [1]struct{}{}[callSize-64]
	_ = [1]struct{}{}[otherSize-80]
	_ = [1]struct{}{}[sightSize-40]
	_ = [1]struct{}{}[bridgeSize-8]
)

func network(n uint16) [2]byte { return [2]byte{byte(n >> 8), byte(n)} }

func (t Tuple) encode() tupleKey {
	return tupleKey{Src: t.Src.As4(), Dst: t.Dst.As4(), CallID: network(t.CallID)}
}

func (k tupleKey) decode() Tuple {
	return Tuple{netip.AddrFrom4(k.Src), netip.AddrFrom4(k.Dst), uint16(k.CallID[0])<<8 | uint16(k.CallID[1])}
}

func (c Call) encode(t Tuple) otherValue {
	k := t.encode()
	v := otherValue{callValue: callValue{
		Generation: c.Generation, Arrives: uint32(c.Arrives), Port: uint32(c.Port), Link: uint32(c.Link), Mark: c.Mark, MTU: uint16(min(c.MTU, 1<<16-1)),
		IsSrc: k.Src, IsDst: k.Dst, IsID: k.CallID, Src: c.Leaves.Src.As4(), Dst: c.Leaves.Dst.As4(), CallID: network(c.Leaves.CallID),
	}}
	switch {
	case c.Bare:
		v.Flags = leavesBare
	case c.Gateway.Is4():
		v.Hop = c.Gateway.As4()
	default:
		v.Hop6 = c.Gateway.As16()
	}
	return v
}

func (r sightRecord) decode() Sight {
	return Sight{r.Leaves.decode(), r.Generation, int(r.Arrived), int(r.Link), r.Mark, r.Next}
}
