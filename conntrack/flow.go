package conntrack

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A Tuple is one direction of a connection as the kernel matches packets. For TCP the ports are
// ports. For GRE they are keys: the destination's is the Call ID in the packets, the source's
// is 0 except where the kernel's own PPTP helper is at work.
type Tuple struct {
	Src, Dst netip.AddrPort
}

// Inverse returns the tuple with its ends exchanged.
func (t Tuple) Inverse() Tuple { return Tuple{Src: t.Dst, Dst: t.Src} }

// String returns "source > destination".
func (t Tuple) String() string { return fmt.Sprintf("%v > %v", t.Src, t.Dst) }

// A Direction says to which tuple of a connection a zone applies.
type Direction uint8

// The directions of a zone.
const (
	Both         Direction = iota // CTA_ZONE
	OriginalOnly                  // CTA_TUPLE_ZONE within CTA_TUPLE_ORIG
	ReplyOnly                     // CTA_TUPLE_ZONE within CTA_TUPLE_REPLY
)

// A Zone is a conntrack zone: entries in different zones may have equal tuples. The zero value is
// the default zone, where everything is that no rule puts elsewhere.
//
// A rule may zone one direction only ("ct original zone set"), so that, say, inside networks
// with overlapping addresses share a public one: only their original tuples need telling apart.
type Zone struct {
	ID        uint16 // 0: the default zone, whatever Direction says
	Direction Direction
}

// Opposite returns the zone for an entry whose original direction is the reply direction of z's:
// for a connection zoned in its original direction, GRE that travels with the connection's
// original packets takes the same zone, GRE the other way takes the opposite.
func (z Zone) Opposite() Zone {
	switch z.Direction {
	case OriginalOnly:
		z.Direction = ReplyOnly
	case ReplyOnly:
		z.Direction = OriginalOnly
	}
	return z
}

// normal makes all ways of writing the default zone equal.
func (z Zone) normal() Zone {
	if z.ID == 0 {
		return Zone{}
	}
	return z
}

// String returns for example "zone 5 (original)".
func (z Zone) String() string {
	switch z.Direction {
	case OriginalOnly:
		return fmt.Sprintf("zone %d (original)", z.ID)
	case ReplyOnly:
		return fmt.Sprintf("zone %d (reply)", z.ID)
	}
	return fmt.Sprintf("zone %d", z.ID)
}

// Status is CTA_STATUS, a set of bits.
type Status uint32

// The bits of a Status (enum ip_conntrack_status).
const (
	StatusExpected        Status = 1 << 0  // IPS_EXPECTED: has a master
	StatusSeenReply       Status = 1 << 1  // IPS_SEEN_REPLY: packets count as established
	StatusAssured         Status = 1 << 2  // IPS_ASSURED: not dropped early when the table is full
	StatusConfirmed       Status = 1 << 3  // IPS_CONFIRMED: in the table
	StatusSourceNAT       Status = 1 << 4  // IPS_SRC_NAT
	StatusDestinationNAT  Status = 1 << 5  // IPS_DST_NAT
	StatusSourceDone      Status = 1 << 7  // IPS_SRC_NAT_DONE
	StatusDestinationDone Status = 1 << 8  // IPS_DST_NAT_DONE
	StatusDying           Status = 1 << 9  // IPS_DYING: set in DESTROY events
	StatusFixedTimeout    Status = 1 << 10 // IPS_FIXED_TIMEOUT: packets do not change the timeout
	StatusHelper          Status = 1 << 13 // IPS_HELPER: the helper was assigned by a rule
	StatusOffload         Status = 1 << 14 // IPS_OFFLOAD: packets bypass the hooks
	StatusHardwareOffload Status = 1 << 15 // IPS_HW_OFFLOAD
)

// StatusOurs is what entries of ours are made with, and keep.
const StatusOurs = StatusSeenReply | StatusAssured | StatusConfirmed | StatusFixedTimeout

const statusBits = 16

var statusNames = [statusBits]string{
	"expected", "seen-reply", "assured", "confirmed", "src-nat", "dst-nat", "seq-adjust",
	"src-nat-done", "dst-nat-done", "dying", "fixed-timeout", "template", "nat-clash", "helper", "offload", "hw-offload",
}

// String lists the bits that are set.
func (s Status) String() string {
	var names []string
	for i, name := range statusNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
			s &^= 1 << i
		}
	}
	if s != 0 || len(names) == 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(s)))
	}
	return strings.Join(names, ",")
}

// Counters count the packets of one direction of a flow.
type Counters struct {
	Packets uint64
	Bytes   uint64 // IP headers included
}

// A Flow is any entry of the kernel's table.
type Flow struct {
	Protocol        uint8 // IP protocol
	Original, Reply Tuple // as it is in the table: Reply is translated
	Zone            Zone
	Mark            uint32 // CTA_MARK
	Status          Status
	Timeout         time.Duration // what is left, in whole seconds
	ID              uint32        // CTA_ID: equal means same entry only as long as nobody deletes it
	TCPState        TCPState      // TCP only
	Helper          string        // name of the helper, "" for none

	Accounted               bool     // whether the entry has counters: see [SetAccounting]
	FromOriginal, FromReply Counters // packets that matched the original and the reply tuple
}

// String names the flow in one line.
func (f Flow) String() string {
	s := fmt.Sprintf("%s %v, reply %v", protocolName(f.Protocol), f.Original, f.Reply)
	if f.Zone.ID != 0 {
		s += ", " + f.Zone.String()
	}
	return s + " [" + f.Status.String() + "]"
}

func protocolName(p uint8) string {
	switch p {
	case protocolTCP:
		return "tcp"
	case protocolGRE:
		return "gre"
	}
	return fmt.Sprintf("protocol %d", p)
}

// TCPState is the kernel's view of a TCP connection (enum tcp_conntrack).
type TCPState uint8

// States of a TCP connection.
const (
	TCPNone TCPState = iota
	TCPSynSent
	TCPSynReceived
	TCPEstablished
	TCPFinWait
	TCPCloseWait
	TCPLastAck
	TCPTimeWait
	TCPClose
)

// A Connection is a TCP connection, with its address translation:
//
//	Original.Src  the address of the end that opened it          (A)
//	Original.Dst  what that end dialled                          (B')
//	Reply.Src     the address of the other end                   (B)
//	Reply.Dst     what that end sees the opener as               (A')
//
// Who opened it is the kernel's opinion. A connection that the kernel picked up in the middle (after
// a flush, or where it started to look late) has the sender of the first packet seen in the place of
// the opener: callers who care decide by the port which end is the server.
type Connection struct {
	Original, Reply Tuple
	Zone            Zone
	Mark            uint32
	Status          Status
	Timeout         time.Duration
	ID              uint32
	State           TCPState
	Helper          string // name of the helper, "" for none; "pptp" is the kernel's own
}

// Forward returns the addresses that the connection's original packets have on the forward hook,
// after destination and before source translation: the true ones of both ends. Packets the
// other way have its inverse.
func (c Connection) Forward() Tuple { return Tuple{Src: c.Original.Src, Dst: c.Reply.Src} }

// Connection returns f as a connection; false if it is not TCP.
func (f Flow) Connection() (Connection, bool) {
	if f.Protocol != protocolTCP {
		return Connection{}, false
	}
	return Connection{
		Original: f.Original,
		Reply:    f.Reply,
		Zone:     f.Zone,
		Mark:     f.Mark,
		Status:   f.Status,
		Timeout:  f.Timeout,
		ID:       f.ID,
		State:    f.TCPState,
		Helper:   f.Helper,
	}, true
}
