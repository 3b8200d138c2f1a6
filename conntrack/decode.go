package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// This file turns the data of ctnetlink answers into values. It opens no sockets, and takes any
// bytes: what it does not know it skips, what is malformed it refuses. It does not use netlink's
// AttributeDecoder, which copies every attribute at every level: a dump has some twenty per entry.

var (
	errShort    = errors.New("message too short")
	errLength   = errors.New("attribute of wrong length")
	errNoTuples = errors.New("entry without both tuples")
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
	var f Flow
	var orig, reply tuple
	err := attributes(b, func(attr uint16, v value) (err error) {
		switch attr {
		case ctaTupleOrig:
			err = orig.decode(v)
		case ctaTupleReply:
			err = reply.decode(v)
		case ctaZone:
			f.Zone.ID, err = v.uint16()
		case ctaStatus:
			var s uint32
			s, err = v.uint32()
			f.Status = Status(s)
		case ctaTimeout:
			var s uint32
			s, err = v.uint32()
			f.Timeout = time.Duration(s) * time.Second
		case ctaMark:
			f.Mark, err = v.uint32()
		case ctaID:
			f.ID, err = v.uint32()
		case ctaCountersOrig:
			f.Accounted = true
			err = f.FromOriginal.decode(v)
		case ctaCountersReply:
			f.Accounted = true
			err = f.FromReply.decode(v)
		case ctaProtoinfo:
			f.TCPState, err = decodeProtoinfo(v)
		case ctaHelp:
			f.Helper, err = decodeHelp(v)
		}
		return err
	})
	if err == nil && (!orig.complete() || !reply.complete() || orig.protocol != reply.protocol) {
		err = errNoTuples
	}
	if err != nil {
		return Flow{}, fmt.Errorf("decode conntrack entry: %w", err)
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

func (t *tuple) decode(b value) error {
	return attributes(b, func(attr uint16, v value) (err error) {
		switch attr {
		case ctaTupleIP:
			err = attributes(v, t.decodeIP)
		case ctaTupleProto:
			err = attributes(v, t.decodeProto)
		case ctaTupleZone:
			t.zone, err = v.uint16()
		}
		return err
	})
}

func (t *tuple) decodeIP(attr uint16, v value) (err error) {
	switch attr {
	case ctaIPv4Src:
		t.src, err = v.addr(4)
	case ctaIPv4Dst:
		t.dst, err = v.addr(4)
	case ctaIPv6Src:
		t.src, err = v.addr(16)
	case ctaIPv6Dst:
		t.dst, err = v.addr(16)
	}
	return err
}

func (t *tuple) decodeProto(attr uint16, v value) (err error) {
	switch attr {
	case ctaProtoNum:
		t.protocol, err = v.uint8()
	case ctaProtoSrcPort:
		t.srcPort, err = v.uint16()
	case ctaProtoDstPort:
		t.dstPort, err = v.uint16()
	}
	return err
}

func (c *Counters) decode(b value) error {
	return attributes(b, func(attr uint16, v value) (err error) {
		switch attr {
		case ctaCountersPackets:
			c.Packets, err = v.uint64()
		case ctaCountersBytes:
			c.Bytes, err = v.uint64()
		}
		return err
	})
}

func decodeProtoinfo(b value) (state TCPState, err error) {
	err = attributes(b, func(attr uint16, v value) error {
		if attr != ctaProtoinfoTCP {
			return nil
		}
		return attributes(v, func(attr uint16, v value) error {
			if attr != ctaProtoinfoTCPState {
				return nil
			}
			s, err := v.uint8()
			state = TCPState(s)
			return err
		})
	})
	return state, err
}

func decodeHelp(b value) (name string, err error) {
	err = attributes(b, func(attr uint16, v value) error {
		if attr == ctaHelpName {
			name, _, _ = strings.Cut(string(v), "\x00")
		}
		return nil
	})
	return name, err
}

// attributes calls each for every netlink attribute in b, without the flags of its type. It stops at the
// first error.
func attributes(b value, each func(attr uint16, v value) error) error {
	const (
		header   = 4      // struct nlattr: length u16, header included, and type u16, in host byte order
		typeMask = 0x3fff // NLA_TYPE_MASK: without NLA_F_NESTED and NLA_F_NET_BYTEORDER
		align    = 4      // NLA_ALIGNTO; the padding of the last one may be missing
	)
	for len(b) > 0 {
		if len(b) < header {
			return errLength
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < header || n > len(b) {
			return errLength
		}
		if err := each(binary.NativeEndian.Uint16(b[2:])&typeMask, b[header:n:n]); err != nil {
			return err
		}
		b = b[min((n+align-1)&^(align-1), len(b)):]
	}
	return nil
}

// A value is the payload of an attribute. Numbers are big-endian.
type value []byte

func (v value) uint8() (uint8, error) {
	if len(v) != 1 {
		return 0, errLength
	}
	return v[0], nil
}

func (v value) uint16() (uint16, error) {
	if len(v) != 2 {
		return 0, errLength
	}
	return binary.BigEndian.Uint16(v), nil
}

func (v value) uint32() (uint32, error) {
	if len(v) != 4 {
		return 0, errLength
	}
	return binary.BigEndian.Uint32(v), nil
}

func (v value) uint64() (uint64, error) {
	if len(v) != 8 {
		return 0, errLength
	}
	return binary.BigEndian.Uint64(v), nil
}

func (v value) addr(size int) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(v)
	if !ok || len(v) != size {
		return netip.Addr{}, errLength
	}
	return a, nil
}
