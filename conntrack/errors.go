package conntrack

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Errors for errors.Is. All others come from the kernel, and match their errno (unix.EINVAL, ...).
var (
	// ErrNotFound: the table has no such entry or connection.
	ErrNotFound = errors.New("no such conntrack entry")
	// ErrTableFull: the namespace has nf_conntrack_max entries (ENOMEM, also when it is full of flows
	// that never saw an answer), or too many fell into one bucket (ENOSPC).
	ErrTableFull = errors.New("conntrack table full")
	// ErrOverflow: events came faster than they were received, and some are lost. What they would
	// have said has to be looked up.
	ErrOverflow = errors.New("conntrack events lost")
	// ErrAmbiguous: several connections have the same true addresses, in different zones, and a
	// packet alone does not say which.
	ErrAmbiguous = errors.New("several connections match")
)

// An UnsupportedError says what the kernel, or the program's privileges, lack.
type UnsupportedError struct {
	Feature string // a kernel option, or a capability
	Fix     string // what to do
	Err     error  // what the kernel answered; nil if it answered nothing
}

func (e *UnsupportedError) Error() string {
	s := "not supported by this kernel: " + e.Feature
	if e.Feature == capNetAdmin.Feature {
		s = "not permitted: needs " + e.Feature
	}
	if e.Err != nil {
		s += fmt.Sprintf(" (%v)", e.Err)
	}
	return s + "; " + e.Fix
}

// Unwrap returns what the kernel answered.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// What can be missing.
var (
	capNetAdmin = UnsupportedError{Feature: "CAP_NET_ADMIN", Fix: "run as root, or give the program this capability"}
	ctNetlink   = UnsupportedError{Feature: "CONFIG_NF_CT_NETLINK",
		Fix: "load or install the module nf_conntrack_netlink (on OpenWrt: kmod-nf-conntrack-netlink)"}
	greKeys = UnsupportedError{Feature: "CONFIG_NF_CT_PROTO_GRE",
		Fix: "use a kernel built with the PPTP conntrack helper, if only as a module (it need not be loaded): " +
			"without, conntrack does not see Call IDs and only one call between two addresses can work"}
	natSupport = UnsupportedError{Feature: "CONFIG_NF_NAT",
		Fix: "load or install the module nf_nat (on OpenWrt: kmod-nf-nat)"}
	zoneSupport   = UnsupportedError{Feature: "CONFIG_NF_CONNTRACK_ZONES", Fix: "use a kernel with conntrack zones"}
	helperSupport = UnsupportedError{Feature: "the conntrack helper of the connection",
		Fix: "register the helper, or load its module, before connections are given to it"}
	userHelpers = UnsupportedError{Feature: "CONFIG_NF_CT_NETLINK_HELPER",
		Fix: "load or install the module nfnetlink_cthelper (on OpenWrt: kmod-nfnetlink-cthelper)"}
	markSupport = UnsupportedError{Feature: "CONFIG_NF_CONNTRACK_MARK", Fix: "use a kernel with conntrack marks"}
	events      = UnsupportedError{Feature: "conntrack events",
		Fix: "use a kernel with CONFIG_NF_CONNTRACK_EVENTS, and set net.netfilter.nf_conntrack_events to 1 or 2"}
)

// because returns a copy of e with the kernel's answer.
func (e UnsupportedError) because(err error) error {
	e.Err = err
	return &e
}

// explain puts the kernel's answer to any request into words where the reason is known.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return ErrNotFound
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return capNetAdmin.because(err)
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: %w", ErrTableFull, err)
	}
	return err
}

// A Side is one of the two tuples of an entry.
type Side uint8

// The sides of an entry.
const (
	Original Side = iota // as packets arrive
	Reply                // the inverse of how they leave
)

// String returns "original" or "reply".
func (s Side) String() string {
	if s == Original {
		return "original"
	}
	return "reply"
}

// An ExistsError says that an entry can not be made because another has one of its tuples.
//
// If it is the original, another stream arrives looking the same: choose another told Call ID, or,
// if that one is spent, remove what is in the way. If it is the reply, another stream would
// leave looking the same, and nobody could tell the two apart at the other end.
type ExistsError struct {
	Entry Entry // what was to be made
	Side  Side  // which tuple of Entry is taken
	Flow  Flow  // who has it, for DeleteFlow
}

// Ours reports whether an entry of ours is in the way (not an ordinary flow).
func (e *ExistsError) Ours() bool { return e.Flow.Ours() }

func (e *ExistsError) Error() string {
	who := "a flow"
	if e.Ours() {
		who = "another mapping"
	}
	return fmt.Sprintf("%v: %v tuple taken by %s: %v", e.Entry, e.Side, who, e.Flow)
}

// Is makes an ExistsError match unix.EEXIST.
func (e *ExistsError) Is(target error) bool { return target == unix.EEXIST }

// An AlteredError says that the kernel made something else than what was asked for, and that it
// has been removed again. The known case: a flow with the same source, translated to the
// same address, has a key in the reply's destination. Only the kernel's own PPTP helper makes such
// flows, and the kernel's NAT gives their key to every later entry from that source.
type AlteredError struct {
	Entry Entry // what was to be made
	Got   Flow  // what was made
}

func (e *AlteredError) Error() string {
	return fmt.Sprintf("%v: the kernel made %v instead (is its own PPTP helper at work?)", e.Entry, e.Got)
}
