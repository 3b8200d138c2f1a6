package rules

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/nftables/userdata"
)

// A set is a named set with its declaration in nft's words and the key's form in the kernel.
type set struct {
	name, comment string
	declaration   string
	keyType       uint32 // nft's number of the type, for nft only
	keyLength     uint32 // bytes; in a concatenation every field is padded to 4
	description   []byte // userdata by which nft prints the declaration
	elements      []element
	dynamic       bool // the elements come and go: not part of the ruleset

	flags, size uint32        // NFT_SET_*; how many elements at most, 0: any number
	timeout     time.Duration // the life of an element; 0: for ever
}

type element struct {
	text string
	key  []byte
}

// The numbers that nft gives its data types (include/datatype.h there, kept stable since they are stored in kernels); a
// concatenation has six bits for each.
const (
	typeInteger = 4
	typeAddress = 7
	typeService = 13

	typeBits = 6
)

// controlPorts is the set of the control ports.
func controlPorts(ports []uint16) set {
	s := set{
		name:        portsSet,
		comment:     "TCP ports of control connections",
		declaration: "type inet_service",
		keyType:     typeService,
		keyLength:   2,
		description: byteOrder(bigEndian),
	}
	for _, p := range ports {
		s.elements = append(s.elements, element{fmt.Sprint(p), binary.BigEndian.AppendUint16(nil, p)})
	}
	return s
}

// bareACKs is the set of (IP total length, first byte with the TCP data offset) of segments without payload: 20 bytes of
// IP header and 4 times the data offset, which is 5 to 15 in the upper half of its byte (RFC 9293, section 3.1).
func bareACKs() set {
	s := set{
		name:        bareACKsSet,
		comment:     "total length and data offset of segments without payload",
		declaration: "typeof ip length . @th,96,8",
		keyType:     typeInteger<<typeBits | typeInteger,
		keyLength:   8,
		description: append(byteOrder(0), typeof(nftField{nftIP, ipLengthField}, nftRaw{tcpOffset * 8, 8})...),
	}
	for words := uint16(5); words <= 15; words++ {
		length, offset := 20+4*words, byte(words<<4)
		key := binary.BigEndian.AppendUint16(nil, length)
		key = append(key, 0, 0, offset, 0, 0, 0)
		s.elements = append(s.elements, element{fmt.Sprintf("%d . %#x", length, offset), key})
	}
	return s
}

// callTuples is the guard set.
func callTuples() set {
	return set{
		name:        CallsSet,
		comment:     "source, destination and Call ID of known calls, as they arrive",
		declaration: "typeof ip saddr . ip daddr . @th,48,16",
		keyType:     typeAddress<<(2*typeBits) | typeAddress<<typeBits | typeInteger,
		keyLength:   callKeyLength,
		description: append(byteOrder(0), typeof(nftField{nftIP, ipSourceField}, nftField{nftIP, ipDestinationField}, nftRaw{greCallID * 8, 16})...),
		dynamic:     true,
	}
}

// userdata is the set's NFTA_SET_USERDATA.
func (s set) userdata() []byte {
	return userdata.AppendString(append([]byte(nil), s.description...), userdata.NFTNL_UDATA_SET_COMMENT, s.comment)
}

// What follows is nft's own note to itself, which the kernel stores unread: without it nft could not print a key that
// holds part of a header. The layout is nested type-length-value, each type and length one byte, integers in the
// machine's byte order. (The library's set type cannot express `typeof`, and writes integers little-endian.)
const (
	bigEndian = 2 // BYTEORDER_BIG_ENDIAN; 0 for a concatenation

	typeofExpression = 0 // NFTNL_UDATA_SET_TYPEOF_EXPR: which kind
	typeofData       = 1 // NFTNL_UDATA_SET_TYPEOF_DATA: its particulars

	nftPayload       = 7  // EXPR_PAYLOAD
	nftConcatenation = 13 // EXPR_CONCAT

	nftIP        = 12 // PROTO_DESC_IP
	nftTransport = 3  // PROTO_BASE_TRANSPORT_HDR

	ipLengthField, ipSourceField, ipDestinationField = 5, 11, 12 // IPHDR_LENGTH, IPHDR_SADDR, IPHDR_DADDR
)

func udataInteger(b []byte, kind userdata.Type, v uint32) []byte {
	return userdata.Append(b, kind, binary.NativeEndian.AppendUint32(nil, v))
}

func byteOrder(order uint32) []byte {
	return udataInteger(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, order)
}

// An nftKey is one field of a concatenation, as nft describes it.
type nftKey interface{ particulars() []byte }

// nftField is a named header field: the header and the field's index in nft's description of it.
type nftField struct{ header, field uint32 }

func (f nftField) particulars() []byte {
	return udataInteger(udataInteger(nil, 0, f.header), 1, f.field)
}

// nftRaw is @th,offset,length, in bits.
type nftRaw struct{ offset, length uint32 }

func (r nftRaw) particulars() []byte {
	b := udataInteger(udataInteger(nil, 0, 0), 1, 0) // no header, no field
	return udataInteger(udataInteger(udataInteger(b, 2, nftTransport), 3, r.offset), 4, r.length)
}

// typeof describes a concatenated key.
func typeof(keys ...nftKey) []byte {
	var fields []byte
	for i, k := range keys {
		field := udataInteger(nil, typeofExpression, nftPayload)
		field = userdata.Append(field, typeofData, k.particulars())
		fields = userdata.Append(fields, userdata.Type(i), field)
	}
	whole := udataInteger(nil, typeofExpression, nftConcatenation)
	whole = userdata.Append(whole, typeofData, fields)
	return userdata.Append(nil, userdata.NFTNL_UDATA_SET_KEY_TYPEOF, whole)
}
