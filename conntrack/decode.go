package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
)

// This file turns the data of ctnetlink answers into values. It opens no sockets, and takes any
// bytes: what it does not know it skips, what is malformed it refuses.

var (
	errShort    = errors.New("message too short")
	errNoTuples = errors.New("entry without both tuples")
	errAddress  = errors.New("address of wrong length")
	errNotTCP   = errors.New("not a TCP connection")
)

// decodeMessage decodes the data of an IPCTNL_MSG_CT_NEW or _DELETE: nfgenmsg and the entry.
func decodeMessage(b []byte) (Flow, error) {
	if len(b) < nfgenLen {
		return Flow{}, fmt.Errorf("decode conntrack entry: %w", errShort)
	}
	return decodeFlow(b[nfgenLen:])
}

// ParseConnection decodes the conntrack attribute of a queued packet (NFQA_CT: the payload of the
// attribute), which some kernels send on request and which saves the Lookup.
func ParseConnection(nfqaCT []byte) (Connection, error) {
	f, err := decodeFlow(nfqaCT)
	if err != nil {
		return Connection{}, err
	}
	c, ok := f.Connection()
	if !ok {
		return Connection{}, fmt.Errorf("decode conntrack entry: %w: %v", errNotTCP, f)
	}
	return c, nil
}

// decodeFlow decodes the attributes of an entry.
func decodeFlow(b []byte) (Flow, error) {
	f, err := decodeAttributes(b)
	if err != nil {
		return Flow{}, fmt.Errorf("decode conntrack entry: %w", err)
	}
	return f, nil
}

func decodeAttributes(b []byte) (Flow, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return Flow{}, err
	}
	ad.ByteOrder = binary.BigEndian

	var f Flow
	var orig, reply tuple
	for ad.Next() {
		switch ad.Type() {
		case ctaTupleOrig:
			ad.Nested(orig.decode)
		case ctaTupleReply:
			ad.Nested(reply.decode)
		case ctaZone:
			f.Zone = Zone{ID: ad.Uint16(), Direction: Both}
		case ctaStatus:
			f.Status = Status(ad.Uint32())
		case ctaTimeout:
			f.Timeout = time.Duration(ad.Uint32()) * time.Second
		case ctaMark:
			f.Mark = ad.Uint32()
		case ctaID:
			f.ID = ad.Uint32()
		case ctaCountersOrig:
			f.Accounted = true
			ad.Nested(f.FromOriginal.decode)
		case ctaCountersReply:
			f.Accounted = true
			ad.Nested(f.FromReply.decode)
		case ctaProtoinfo:
			ad.Nested(f.decodeProtoinfo)
		case ctaHelp:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == ctaHelpName {
						f.Helper = ad.String()
					}
				}
				return ad.Err()
			})
		}
	}
	if err := ad.Err(); err != nil {
		return Flow{}, err
	}
	if !orig.complete() || !reply.complete() || orig.protocol != reply.protocol {
		return Flow{}, errNoTuples
	}
	f.Protocol, f.Original, f.Reply = orig.protocol, orig.tuple(), reply.tuple()
	// At most one of the three places has a zone.
	switch {
	case f.Zone.ID != 0:
	case orig.zone != 0:
		f.Zone = Zone{ID: orig.zone, Direction: OriginalOnly}
	case reply.zone != 0:
		f.Zone = Zone{ID: reply.zone, Direction: ReplyOnly}
	}
	return f, nil
}

// tuple is a CTA_TUPLE_* in the course of decoding.
type tuple struct {
	src, dst         netip.Addr
	protocol         uint8
	srcPort, dstPort uint16
	zone             uint16
}

func (t *tuple) complete() bool {
	return t.src.IsValid() && t.dst.IsValid() && t.src.BitLen() == t.dst.BitLen() && t.protocol != 0
}

func (t *tuple) tuple() Tuple {
	return Tuple{Src: netip.AddrPortFrom(t.src, t.srcPort), Dst: netip.AddrPortFrom(t.dst, t.dstPort)}
}

func (t *tuple) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaTupleIP:
			ad.Nested(t.decodeIP)
		case ctaTupleProto:
			ad.Nested(t.decodeProto)
		case ctaTupleZone:
			t.zone = ad.Uint16()
		}
	}
	return ad.Err()
}

func (t *tuple) decodeIP(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		var to *netip.Addr
		size := 4
		switch ad.Type() {
		case ctaIPv4Src:
			to = &t.src
		case ctaIPv4Dst:
			to = &t.dst
		case ctaIPv6Src:
			to, size = &t.src, 16
		case ctaIPv6Dst:
			to, size = &t.dst, 16
		default:
			continue
		}
		ad.Do(func(b []byte) error {
			a, ok := netip.AddrFromSlice(b)
			if !ok || len(b) != size {
				return errAddress
			}
			*to = a
			return nil
		})
	}
	return ad.Err()
}

func (t *tuple) decodeProto(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaProtoNum:
			t.protocol = ad.Uint8()
		case ctaProtoSrcPort:
			t.srcPort = ad.Uint16()
		case ctaProtoDstPort:
			t.dstPort = ad.Uint16()
		}
	}
	return ad.Err()
}

func (c *Counters) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaCountersPackets:
			c.Packets = ad.Uint64()
		case ctaCountersBytes:
			c.Bytes = ad.Uint64()
		case ctaCounters32Packets:
			c.Packets = uint64(ad.Uint32())
		case ctaCounters32Bytes:
			c.Bytes = uint64(ad.Uint32())
		}
	}
	return ad.Err()
}

func (f *Flow) decodeProtoinfo(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() != ctaProtoinfoTCP {
			continue
		}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				if ad.Type() == ctaProtoinfoTCPState {
					f.TCPState = TCPState(ad.Uint8())
				}
			}
			return ad.Err()
		})
	}
	return ad.Err()
}
