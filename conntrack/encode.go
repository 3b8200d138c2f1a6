package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/netlink"
)

// This file turns values into the data of ctnetlink requests: struct nfgenmsg and attributes. It
// opens no sockets.

var errTuple = errors.New("tuple without valid IPv4 addresses")

// encode collects attributes behind a struct nfgenmsg for IPv4.
func encode(put func(*netlink.AttributeEncoder)) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	put(ae)
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	b := make([]byte, nfgenLen, nfgenLen+len(attrs))
	b[nfgenFamily] = familyIPv4
	b[nfgenFamily+1] = nfgenVersion0
	return append(b, attrs...), nil
}

// encodeEntry builds IPCTNL_MSG_CT_NEW for an entry of ours.
//
// The original tuple is the packet as it arrives. From the reply tuple the kernel takes what the
// packet becomes, in two ways:
//
//   - Keys: what the reply tuple says, inverted, is what leaves. So the reply's source key is the
//     Call ID to write, and its destination key stays 0, as the original's source key is. (Another
//     value there breaks the translation of ICMP errors, and spreads: the kernel gives
//     the keys of one source to its next entries.)
//   - Addresses: the reply tuple has the untranslated ones, and CTA_NAT_SRC and CTA_NAT_DST say what to
//     translate them to. The kernel then alters the reply tuple in the table, and sets IPS_SRC_NAT and
//     IPS_DST_NAT where that changed something.
//
// GRE's key is rewritten by the destination half of the translation only. When the key has to
// change but the destination has not (towards a server that the client dials directly), nothing would
// set IPS_DST_NAT: then the reply tuple gets a placeholder for a source, and CTA_NAT_DST puts the true
// address there, which makes the difference that counts.
//
// IPS_FIXED_TIMEOUT is necessary because a packet gives an entry the timeout of its protocol, and
// the one of a GRE stream without the kernel's helper is 0: the first packet would end it.
func encodeEntry(e Entry) ([]byte, error) {
	if err := e.valid(); err != nil {
		return nil, err
	}
	reply := Tuple{
		Src: netip.AddrPortFrom(e.Arrives.Dst, e.Leaves.CallID),
		Dst: netip.AddrPortFrom(e.Arrives.Src, 0),
	}
	natDst := e.Leaves.Dst != e.Arrives.Dst
	if !natDst && e.Leaves.CallID != e.Arrives.CallID {
		natDst = true
		reply.Src = netip.AddrPortFrom(placeholder(e.Leaves.Dst), e.Leaves.CallID)
	}
	return encode(func(ae *netlink.AttributeEncoder) {
		putTuple(ae, ctaTupleOrig, protocolGRE, e.original(), e.Zone)
		putTuple(ae, ctaTupleReply, protocolGRE, reply, e.Zone)
		putZone(ae, e.Zone)
		if e.Leaves.Src != e.Arrives.Src {
			putNAT(ae, ctaNATSrc, e.Leaves.Src)
		}
		if natDst {
			putNAT(ae, ctaNATDst, e.Leaves.Dst)
		}
		ae.Uint32(ctaTimeout, e.seconds())
		ae.Uint32(ctaStatus, uint32(StatusOurs))
		if e.Mark != 0 {
			ae.Uint32(ctaMark, e.Mark)
		}
	})
}

// placeholder returns an address that is not a. Both are of the block for documentation (RFC 5737); it
// never appears in a packet, nor in the table.
func placeholder(a netip.Addr) netip.Addr {
	p := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	if p == a {
		return p.Next()
	}
	return p
}

// encodeGet builds IPCTNL_MSG_CT_GET for one entry, by one of its tuples: attr says which one the
// message calls it, and with that, which direction of a zone applies. The kernel finds
// an entry by either of its tuples under either name.
func encodeGet(attr uint16, protocol uint8, t Tuple, z Zone) ([]byte, error) {
	if !t.valid() {
		return nil, errTuple
	}
	return encode(func(ae *netlink.AttributeEncoder) {
		putTuple(ae, attr, protocol, t, z)
		putZone(ae, z)
	})
}

// encodeDelete builds IPCTNL_MSG_CT_DELETE for one entry, by its original tuple. It is the only
// place where that message is made, because without CTA_TUPLE_ORIG it would empty the table: there is
// no way through here without one. If id is not nil the entry has to have that CTA_ID as well.
func encodeDelete(protocol uint8, original Tuple, z Zone, id *uint32) ([]byte, error) {
	if protocol == 0 || !original.valid() {
		return nil, errTuple
	}
	return encode(func(ae *netlink.AttributeEncoder) {
		putTuple(ae, ctaTupleOrig, protocol, original, z)
		putZone(ae, z)
		if id != nil {
			ae.Uint32(ctaID, *id)
		}
	})
}

// encodeDump builds IPCTNL_MSG_CT_GET for a dump of all IPv4 entries.
func encodeDump() ([]byte, error) {
	return encode(func(*netlink.AttributeEncoder) {})
}

// encodeDumpStatus builds one for the entries with all bits of s.
func encodeDumpStatus(s Status) ([]byte, error) {
	return encode(func(ae *netlink.AttributeEncoder) {
		ae.Uint32(ctaStatus, uint32(s))
		ae.Uint32(ctaStatusMask, uint32(s))
	})
}

// encodeDumpEnds builds one for the entries whose original tuple has the source orig and whose
// reply tuple has the source reply, in every zone.
func encodeDumpEnds(protocol uint8, orig, reply netip.AddrPort) ([]byte, error) {
	o, r := Tuple{Src: orig, Dst: reply}, Tuple{Src: reply, Dst: orig} // destinations are not compared
	if !o.valid() {
		return nil, errTuple
	}
	// CTA_FILTER_*_FLAGS is the one thing in host byte order.
	flags := binary.NativeEndian.AppendUint32(nil, filterIPSrc|filterProtoNum|filterProtoSrcPort)
	return encode(func(ae *netlink.AttributeEncoder) {
		putTuple(ae, ctaTupleOrig, protocol, o, Zone{})
		putTuple(ae, ctaTupleReply, protocol, r, Zone{})
		ae.Nested(ctaFilter, func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(ctaFilterOrigFlags, flags)
			ae.Bytes(ctaFilterReplyFlags, flags)
			return nil
		})
	})
}

// encodeProbe builds IPCTNL_MSG_CT_GET for a tuple of the protocol without ports or keys: EINVAL from a
// kernel that wants some for the protocol, ENOENT from one that does not.
func encodeProbe(protocol uint8) ([]byte, error) {
	unspecified := netip.IPv4Unspecified()
	return encode(func(ae *netlink.AttributeEncoder) {
		ae.Nested(ctaTupleOrig, func(ae *netlink.AttributeEncoder) error {
			putAddrs(ae, unspecified, unspecified)
			ae.Nested(ctaTupleProto, func(ae *netlink.AttributeEncoder) error {
				ae.Uint8(ctaProtoNum, protocol)
				return nil
			})
			return nil
		})
	})
}

func (t Tuple) valid() bool { return t.Src.Addr().Is4() && t.Dst.Addr().Is4() }

// putTuple appends a CTA_TUPLE_*, with the zone if it is one for this direction only.
func putTuple(ae *netlink.AttributeEncoder, attr uint16, protocol uint8, t Tuple, z Zone) {
	ae.Nested(attr, func(ae *netlink.AttributeEncoder) error {
		putAddrs(ae, t.Src.Addr(), t.Dst.Addr())
		ae.Nested(ctaTupleProto, func(ae *netlink.AttributeEncoder) error {
			ae.Uint8(ctaProtoNum, protocol)
			ae.Uint16(ctaProtoSrcPort, t.Src.Port())
			ae.Uint16(ctaProtoDstPort, t.Dst.Port())
			return nil
		})
		if z.ID != 0 && (z.Direction == OriginalOnly && attr == ctaTupleOrig || z.Direction == ReplyOnly && attr == ctaTupleReply) {
			ae.Uint16(ctaTupleZone, z.ID)
		}
		return nil
	})
}

func putAddrs(ae *netlink.AttributeEncoder, src, dst netip.Addr) {
	ae.Nested(ctaTupleIP, func(ae *netlink.AttributeEncoder) error {
		ae.Bytes(ctaIPv4Src, src.AsSlice())
		ae.Bytes(ctaIPv4Dst, dst.AsSlice())
		return nil
	})
}

// putZone appends CTA_ZONE if the zone is for both directions.
func putZone(ae *netlink.AttributeEncoder, z Zone) {
	if z.ID != 0 && z.Direction == Both {
		ae.Uint16(ctaZone, z.ID)
	}
}

func putNAT(ae *netlink.AttributeEncoder, attr uint16, a netip.Addr) {
	ae.Nested(attr, func(ae *netlink.AttributeEncoder) error {
		ae.Bytes(ctaNATv4MinIP, a.AsSlice())
		ae.Bytes(ctaNATv4MaxIP, a.AsSlice())
		return nil
	})
}
