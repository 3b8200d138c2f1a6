package fastpath

import (
	"errors"
	"fmt"
	"net/netip"
)

// A Tuple tells enhanced GRE packets apart: IPv4 addresses, and the Call ID in the key.
type Tuple struct {
	Src, Dst netip.Addr
	CallID   uint16
}

func (t Tuple) String() string {
	return fmt.Sprintf("GRE %v -> %v, Call ID %d", t.Src, t.Dst, t.CallID)
}

// A Call is how packets of a tuple leave.
type Call struct {
	Generation uint32
	Arrives    int        // the link by which they arrive; 0: they are not taken there
	Port       int        // the port of the bridge Arrives where they are taken before that; 0: at none
	Leaves     Tuple      // what they are made into
	Link       int        // the link by which they leave
	Bare       bool       // whether they leave without an Ethernet header
	Gateway    netip.Addr // the next hop, of IPv4 or IPv6; their destination on-link. Not looked at where Bare
	MTU        int        // bytes with the IP header; longer ones are passed on
	Mark       uint32     // that they leave with
}

// Traffic counts packets, and bytes with the IP header.
type Traffic struct{ Packets, Bytes uint64 }

// A Sight is a packet that left the router by the ordinary path.
type Sight struct {
	Leaves     Tuple
	Generation uint32
	Arrived    int // the link by which it had arrived
	Link       int // the link by which it left
	Mark       uint32
	Next       [6]byte // the Ethernet address that it went to, where the link is Ethernet
}

// ErrTaken refuses a device where a program can't be attached because of another queueing discipline (before Linux 6.6).
var ErrTaken = errors.New("another queueing discipline is in the place of clsact, which the fast path needs before Linux 6.6")
