package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// A GRE is what identifies a stream of enhanced GRE on the wire. The Call ID is the one in the
// packet: the receiver's.
type GRE struct {
	Src, Dst netip.Addr
	CallID   uint16
}

// String returns "source > destination call ID".
func (g GRE) String() string { return fmt.Sprintf("%v > %v call %d", g.Src, g.Dst, g.CallID) }

// An Entry is one direction of a call: enhanced GRE that arrives so leaves so. It is one-way: the
// other direction is an entry of its own, because the kernel finds an entry by the
// receiver's Call ID, and the two directions have different ones.
type Entry struct {
	Arrives, Leaves GRE
	Zone            Zone   // as for the packets of this direction; see Zone.Opposite
	Mark            uint32 // CTA_MARK, for rules that route by it
	// Timeout is the life of the entry, whether packets come or not; rounded up to seconds. It cannot
	// be changed afterwards, only Replace gives an entry more time. Between one second and MaxTimeout.
	// It is no part of what identifies an entry, and 0 in those that are read back.
	Timeout time.Duration
}

// MaxTimeout is the longest timeout that every kernel keeps: INT_MAX ticks of 1/1000 second.
const MaxTimeout = (1<<31 - 1) / 1000 * time.Second

// String returns "gre arriving tuple to leaving tuple".
func (e Entry) String() string {
	s := fmt.Sprintf("gre %v to %v", e.Arrives, e.Leaves)
	if e.Zone.ID != 0 {
		s += " in " + e.Zone.String()
	}
	return s
}

// Equal reports whether e and o translate the same packets the same way: everything but Timeout.
func (e Entry) Equal(o Entry) bool {
	return e.Arrives == o.Arrives && e.Leaves == o.Leaves && e.Zone.normal() == o.Zone.normal() && e.Mark == o.Mark
}

// A Stored is an entry of ours as found in the kernel's table.
type Stored struct {
	Entry
	Counters                // of the entry's life; a replacement begins at 0
	Accounted bool          // whether the kernel counts for this entry: see [SetAccounting]
	Remaining time.Duration // until the entry ends, in whole seconds
	Status    Status
	ID        uint32 // CTA_ID
}

// Errors of an Entry that can not be made. A told Call ID of 0 (the Arrives one) is refused because
// keys of 0 are what everything without keys has: such an entry would match other traffic.
var (
	errNotIPv4 = errors.New("not four IPv4 addresses")
	errZeroID  = errors.New("arriving Call ID is 0")
	errTimeout = fmt.Errorf("timeout not between 1s and %v", MaxTimeout)
)

// validTuple checks what identifies an entry, valid all that creates one.
func (e Entry) validTuple() error {
	for _, a := range [...]netip.Addr{e.Arrives.Src, e.Arrives.Dst, e.Leaves.Src, e.Leaves.Dst} {
		if !a.Is4() {
			return errNotIPv4
		}
	}
	if e.Arrives.CallID == 0 {
		return errZeroID
	}
	if e.Zone.Direction > ReplyOnly {
		return fmt.Errorf("unknown zone direction %d", e.Zone.Direction)
	}
	return nil
}

func (e Entry) valid() error {
	if err := e.validTuple(); err != nil {
		return err
	}
	if e.Timeout < time.Second || e.Timeout > MaxTimeout {
		return errTimeout
	}
	return nil
}

// seconds returns the timeout rounded up.
func (e Entry) seconds() uint32 { return uint32((e.Timeout + time.Second - 1) / time.Second) }

// original returns the entry's original tuple: packets as they arrive. The source key is always 0:
// packets have none.
func (e Entry) original() Tuple {
	return Tuple{
		Src: netip.AddrPortFrom(e.Arrives.Src, 0),
		Dst: netip.AddrPortFrom(e.Arrives.Dst, e.Arrives.CallID),
	}
}

// reply returns the reply tuple that the entry has in the table: the inverse of the packets as they
// leave. Its destination key, that of the packets' source, stays 0.
func (e Entry) reply() Tuple {
	return Tuple{
		Src: netip.AddrPortFrom(e.Leaves.Dst, e.Leaves.CallID),
		Dst: netip.AddrPortFrom(e.Leaves.Src, 0),
	}
}

// nat returns the NAT bits of the status that the kernel has to set for the entry to translate.
func (e Entry) nat() Status {
	var s Status
	if e.Leaves.Src != e.Arrives.Src {
		s |= StatusSourceNAT
	}
	if e.Leaves.Dst != e.Arrives.Dst || e.Leaves.CallID != e.Arrives.CallID {
		s |= StatusDestinationNAT
	}
	return s
}

// Ours reports whether f is an entry such as Create makes; see the package comment.
func (f Flow) Ours() bool {
	return f.Protocol == protocolGRE && f.Status&StatusOurs == StatusOurs &&
		f.Original.Src.Port() == 0 && f.Original.Dst.Port() != 0 && f.Reply.Dst.Port() == 0 &&
		f.Original.Src.Addr().Is4() && f.Reply.Src.Addr().Is4()
}

// Stored returns f as an entry of ours; false if it is not one.
func (f Flow) Stored() (Stored, bool) {
	if !f.Ours() {
		return Stored{}, false
	}
	return Stored{
		Entry: Entry{
			Arrives: GRE{Src: f.Original.Src.Addr(), Dst: f.Original.Dst.Addr(), CallID: f.Original.Dst.Port()},
			Leaves:  GRE{Src: f.Reply.Dst.Addr(), Dst: f.Reply.Src.Addr(), CallID: f.Reply.Src.Port()},
			Zone:    f.Zone,
			Mark:    f.Mark,
		},
		Counters:  f.FromOriginal,
		Accounted: f.Accounted,
		Remaining: f.Timeout,
		Status:    f.Status,
		ID:        f.ID,
	}, true
}
