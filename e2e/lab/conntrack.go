package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of ctnetlink (linux/netfilter/nfnetlink_conntrack.h), as far as
// the lab reads them.
const (
	ctaTupleOrig    = 1
	ctaTupleReply   = 2
	ctaStatus       = 3
	ctaHelp         = 5
	ctaTimeout      = 7
	ctaMark         = 8
	ctaCountersOrig = 9
	ctaID           = 12
	ctaZone         = 18

	ctaTupleIP    = 1 // CTA_TUPLE_IP { CTA_IP_V4_SRC 1, CTA_IP_V4_DST 2 }
	ctaTupleProto = 2 // CTA_TUPLE_PROTO { CTA_PROTO_NUM 1, _SRC_PORT 2, _DST_PORT 3 }

	ctaCountersPackets = 1
	ctaCountersBytes   = 2

	ctMessageGet    = 1 // IPCTNL_MSG_CT_GET
	ctMessageDelete = 2 // IPCTNL_MSG_CT_DELETE
)

// FixedTimeout is IPS_FIXED_TIMEOUT, the status bit by which the entries that
// the daemon made differ from those the kernel made itself.
const FixedTimeout = 1 << 10

// Tuple is one direction of a conntrack entry. For GRE the ports are keys.
type Tuple struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
}

func (t Tuple) String() string {
	return fmt.Sprintf("%v:%d > %v:%d", t.Src, t.SrcPort, t.Dst, t.DstPort)
}

// Flow is a conntrack entry.
type Flow struct {
	Protocol        uint8
	Original, Reply Tuple
	Status          uint32
	Timeout         time.Duration
	Mark, ID        uint32
	Zone            uint16
	Helper          string // name of its conntrack helper
	Packets, Bytes  uint64 // of the original direction, where counted
}

// Ours says whether the entry looks like one that the daemon made.
func (f Flow) Ours() bool { return f.Status&FixedTimeout != 0 && f.Protocol == unix.IPPROTO_GRE }

func (f Flow) String() string {
	s := fmt.Sprintf("proto %d  %v  reply %v  status %#x timeout %v", f.Protocol, f.Original, f.Reply, f.Status, f.Timeout)
	if f.Mark != 0 {
		s += fmt.Sprintf(" mark %#x", f.Mark)
	}
	if f.Zone != 0 {
		s += fmt.Sprintf(" zone %d", f.Zone)
	}
	if f.Helper != "" {
		s += " helper " + f.Helper
	}
	return s + fmt.Sprintf(" packets %d bytes %d", f.Packets, f.Bytes)
}

// FlowsText prints entries one a line.
func FlowsText(flows []Flow) string {
	var b strings.Builder
	for _, f := range flows {
		fmt.Fprintf(&b, "%v\n", f)
	}
	return b.String()
}

// Conntrack dumps the host's IPv4 entries.
func (h *Host) Conntrack() ([]Flow, error) {
	replies, err := h.ctnetlink(ctMessageGet, netlink.Request|netlink.Dump, nil)
	if err != nil {
		return nil, fmt.Errorf("dump conntrack of %s: %w", h.name, err)
	}
	var flows []Flow
	for _, m := range replies {
		f, err := parseFlow(m.Data)
		if err != nil {
			return nil, fmt.Errorf("dump conntrack of %s: %w", h.name, err)
		}
		flows = append(flows, f)
	}
	return flows, nil
}

// GRE gives the host's GRE entries only.
func (h *Host) GRE() ([]Flow, error) {
	flows, err := h.Conntrack()
	var gre []Flow
	for _, f := range flows {
		if f.Protocol == unix.IPPROTO_GRE {
			gre = append(gre, f)
		}
	}
	return gre, err
}

// FlushConntrack removes all entries of the host, as conntrack -F does: a
// delete without a tuple.
func (h *Host) FlushConntrack() error {
	if _, err := h.ctnetlink(ctMessageDelete, netlink.Request|netlink.Acknowledge, nil); err != nil {
		return fmt.Errorf("flush conntrack of %s: %w", h.name, err)
	}
	return nil
}

// DeleteFlow removes one entry by its original tuple.
func (h *Host) DeleteFlow(f Flow) error {
	tuple, err := encodeTuple(f)
	if err != nil {
		return err
	}
	if _, err := h.ctnetlink(ctMessageDelete, netlink.Request|netlink.Acknowledge, tuple); err != nil {
		return fmt.Errorf("delete %v on %s: %w", f.Original, h.name, err)
	}
	return nil
}

func (h *Host) ctnetlink(message uint16, flags netlink.HeaderFlags, attributes []byte) ([]netlink.Message, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(h.ns)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | message), Flags: flags},
		// struct nfgenmsg: family, version, resource id
		Data: append([]byte{unix.AF_INET, 0, 0, 0}, attributes...),
	})
}

func encodeTuple(f Flow) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Nested(ctaTupleOrig, func(e *netlink.AttributeEncoder) error {
		e.Nested(ctaTupleIP, func(e *netlink.AttributeEncoder) error {
			e.Bytes(1, f.Original.Src.AsSlice())
			e.Bytes(2, f.Original.Dst.AsSlice())
			return nil
		})
		e.Nested(ctaTupleProto, func(e *netlink.AttributeEncoder) error {
			e.Uint8(1, f.Protocol)
			e.Uint16(2, f.Original.SrcPort)
			e.Uint16(3, f.Original.DstPort)
			return nil
		})
		return nil
	})
	if f.Zone != 0 {
		e.Uint16(ctaZone, f.Zone)
	}
	return e.Encode()
}

func parseFlow(data []byte) (f Flow, err error) {
	if len(data) < 4 {
		return f, fmt.Errorf("message of %d bytes", len(data))
	}
	d, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return f, err
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		switch d.Type() {
		case ctaTupleOrig:
			d.Nested(func(d *netlink.AttributeDecoder) error { return parseTuple(d, &f.Original, &f.Protocol) })
		case ctaTupleReply:
			d.Nested(func(d *netlink.AttributeDecoder) error { return parseTuple(d, &f.Reply, nil) })
		case ctaHelp:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == 1 { // CTA_HELP_NAME
						f.Helper = d.String()
					}
				}
				return nil
			})
		case ctaStatus:
			f.Status = d.Uint32()
		case ctaTimeout:
			f.Timeout = time.Duration(d.Uint32()) * time.Second
		case ctaMark:
			f.Mark = d.Uint32()
		case ctaID:
			f.ID = d.Uint32()
		case ctaZone:
			f.Zone = d.Uint16()
		case ctaCountersOrig:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					switch d.Type() {
					case ctaCountersPackets:
						f.Packets = d.Uint64()
					case ctaCountersBytes:
						f.Bytes = d.Uint64()
					}
				}
				return nil
			})
		}
	}
	return f, d.Err()
}

func parseTuple(d *netlink.AttributeDecoder, t *Tuple, protocol *uint8) error {
	for d.Next() {
		switch d.Type() {
		case ctaTupleIP:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					a, ok := netip.AddrFromSlice(d.Bytes())
					switch {
					case ok && d.Type() == 1:
						t.Src = a
					case ok && d.Type() == 2:
						t.Dst = a
					}
				}
				return nil
			})
		case ctaTupleProto:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					switch d.Type() {
					case 1:
						if protocol != nil {
							*protocol = d.Uint8()
						}
					case 2:
						t.SrcPort = d.Uint16()
					case 3:
						t.DstPort = d.Uint16()
					}
				}
				return nil
			})
		}
	}
	return nil
}
