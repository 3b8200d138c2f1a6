package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// This file turns values into the data of ctnetlink requests: struct nfgenmsg and attributes. It
// opens no sockets.

var errTuple = errors.New("tuple without valid IPv4 addresses")

// encode collects attributes behind a struct nfgenmsg for IPv4.
func encode(put func(*encoder)) []byte {
	const usual = 256 // what an entry takes
	m := encoder{make([]byte, nfgenLen, usual)}
	m.b[nfgenFamily] = familyIPv4
	m.b[nfgenFamily+1] = nfgenVersion0
	put(&m)
	return m.b
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
	return encode(func(m *encoder) {
		putTuple(m, ctaTupleOrig, protocolGRE, e.original(), e.Zone)
		putTuple(m, ctaTupleReply, protocolGRE, reply, e.Zone)
		putZone(m, e.Zone)
		if e.Leaves.Src != e.Arrives.Src {
			putNAT(m, ctaNATSrc, e.Leaves.Src)
		}
		if natDst {
			putNAT(m, ctaNATDst, e.Leaves.Dst)
		}
		m.uint32(ctaTimeout, e.seconds())
		m.uint32(ctaStatus, uint32(StatusOurs))
		if e.Mark != 0 {
			m.uint32(ctaMark, e.Mark)
		}
	}), nil
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
	return encode(func(m *encoder) {
		putTuple(m, attr, protocol, t, z)
		putZone(m, z)
	}), nil
}

// encodeDelete builds IPCTNL_MSG_CT_DELETE for one entry, by its original tuple. It is the only
// place where that message is made, because without CTA_TUPLE_ORIG it would empty the table: there is
// no way through here without one. If id is not nil the entry has to have that CTA_ID as well.
func encodeDelete(protocol uint8, original Tuple, z Zone, id *uint32) ([]byte, error) {
	if protocol == 0 || !original.valid() {
		return nil, errTuple
	}
	return encode(func(m *encoder) {
		putTuple(m, ctaTupleOrig, protocol, original, z)
		putZone(m, z)
		if id != nil {
			m.uint32(ctaID, *id)
		}
	}), nil
}

// encodeDump builds IPCTNL_MSG_CT_GET for a dump of all IPv4 entries.
func encodeDump() ([]byte, error) {
	return encode(func(*encoder) {}), nil
}

// encodeDumpStatus builds one for the entries with all bits of s.
func encodeDumpStatus(s Status) ([]byte, error) {
	return encode(func(m *encoder) {
		m.uint32(ctaStatus, uint32(s))
		m.uint32(ctaStatusMask, uint32(s))
	}), nil
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
	return encode(func(m *encoder) {
		putTuple(m, ctaTupleOrig, protocol, o, Zone{})
		putTuple(m, ctaTupleReply, protocol, r, Zone{})
		m.nested(ctaFilter, func() {
			m.bytes(ctaFilterOrigFlags, flags)
			m.bytes(ctaFilterReplyFlags, flags)
		})
	}), nil
}

// encodeProbe builds IPCTNL_MSG_CT_GET for a tuple of the protocol without ports or keys: EINVAL from a
// kernel that wants some for the protocol, ENOENT from one that does not.
func encodeProbe(protocol uint8) ([]byte, error) {
	unspecified := netip.IPv4Unspecified()
	return encode(func(m *encoder) {
		m.nested(ctaTupleOrig, func() {
			putAddrs(m, unspecified, unspecified)
			m.nested(ctaTupleProto, func() {
				m.uint8(ctaProtoNum, protocol)
			})
		})
	}), nil
}

func (t Tuple) valid() bool { return t.Src.Addr().Is4() && t.Dst.Addr().Is4() }

// putTuple appends a CTA_TUPLE_*, with the zone if it is one for this direction only.
func putTuple(m *encoder, attr uint16, protocol uint8, t Tuple, z Zone) {
	m.nested(attr, func() {
		putAddrs(m, t.Src.Addr(), t.Dst.Addr())
		m.nested(ctaTupleProto, func() {
			m.uint8(ctaProtoNum, protocol)
			m.uint16(ctaProtoSrcPort, t.Src.Port())
			m.uint16(ctaProtoDstPort, t.Dst.Port())
		})
		if z.ID != 0 && (z.Direction == OriginalOnly && attr == ctaTupleOrig || z.Direction == ReplyOnly && attr == ctaTupleReply) {
			m.uint16(ctaTupleZone, z.ID)
		}
	})
}

func putAddrs(m *encoder, src, dst netip.Addr) {
	m.nested(ctaTupleIP, func() {
		m.bytes(ctaIPv4Src, src.AsSlice())
		m.bytes(ctaIPv4Dst, dst.AsSlice())
	})
}

// putZone appends CTA_ZONE if the zone is for both directions.
func putZone(m *encoder, z Zone) {
	if z.ID != 0 && z.Direction == Both {
		m.uint16(ctaZone, z.ID)
	}
}

func putNAT(m *encoder, attr uint16, a netip.Addr) {
	m.nested(attr, func() {
		m.bytes(ctaNATv4MinIP, a.AsSlice())
		m.bytes(ctaNATv4MaxIP, a.AsSlice())
	})
}
