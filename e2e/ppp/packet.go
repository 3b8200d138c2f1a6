package ppp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Protocol is the number in a frame's protocol field.
type Protocol uint16

// Protocols, and the RFC that assigned them.
const (
	ProtocolIPv4 Protocol = 0x0021 // RFC 1332
	ProtocolMPPE Protocol = 0x00fd // compressed datagram, RFC 1962
	ProtocolIPCP Protocol = 0x8021 // RFC 1332
	ProtocolCCP  Protocol = 0x80fd // RFC 1962
	ProtocolLCP  Protocol = 0xc021 // RFC 1661
	ProtocolPAP  Protocol = 0xc023 // RFC 1334
	ProtocolCHAP Protocol = 0xc223 // RFC 1994
)

var protocolNames = map[Protocol]string{ProtocolIPv4: "IPv4", ProtocolMPPE: "MPPE", ProtocolIPCP: "IPCP", ProtocolCCP: "CCP",
	ProtocolLCP: "LCP", ProtocolPAP: "PAP", ProtocolCHAP: "CHAP"}

func (p Protocol) String() string {
	if name := protocolNames[p]; name != "" {
		return name
	}
	return fmt.Sprintf("protocol %#04x", uint16(p))
}

// Address and control field (RFC 1662 section 3.1).
const (
	addressAll   = 0xff
	controlUI    = 0x03
	packetHeader = 4 // code, identifier, length
	optionHeader = 2 // type, length
)

// Errors of the parsers.
var (
	ErrFrame  = errors.New("malformed PPP frame")
	ErrPacket = errors.New("malformed PPP packet")
	ErrOption = errors.New("malformed PPP option")
)

// ParseFrame takes a frame apart. Address and control may be missing (ACFC),
// and the protocol may be one octet (PFC): a receiver takes either at any time
// (RFC 1661 sections 6.5 and 6.6).
func ParseFrame(b []byte) (Protocol, []byte, error) {
	if len(b) >= 2 && b[0] == addressAll && b[1] == controlUI {
		b = b[2:]
	}
	if len(b) >= 1 && b[0]&1 == 1 {
		return Protocol(b[0]), b[1:], nil
	}
	// The last octet of a protocol number is odd, the first even (section 2).
	if len(b) < 2 || b[1]&1 == 0 {
		return 0, nil, fmt.Errorf("%w: %d octets, starting %x", ErrFrame, len(b), b[:min(len(b), 4)])
	}
	return Protocol(binary.BigEndian.Uint16(b)), b[2:], nil
}

// code is the first octet of a control packet (RFC 1661 section 5).
type code uint8

const (
	configureRequest code = 1
	configureAck     code = 2
	configureNak     code = 3
	configureReject  code = 4
	terminateRequest code = 5
	terminateAck     code = 6
	codeReject       code = 7
	protocolReject   code = 8 // LCP only, as the next three
	echoRequest      code = 9
	echoReply        code = 10
	discardRequest   code = 11
	resetRequest     code = 14 // CCP only, as the next (RFC 1962 section 3)
	resetAck         code = 15
)

// packet is a control packet of any protocol.
type packet struct {
	code code
	id   uint8
	data []byte
}

// parsePacket reads a control packet; what follows its length is padding.
func parsePacket(b []byte) (packet, error) {
	if len(b) < packetHeader {
		return packet{}, fmt.Errorf("%w: %d octets", ErrPacket, len(b))
	}
	size := int(binary.BigEndian.Uint16(b[2:]))
	if size < packetHeader || size > len(b) {
		return packet{}, fmt.Errorf("%w: length %d in %d octets", ErrPacket, size, len(b))
	}
	return packet{code(b[0]), b[1], b[packetHeader:size]}, nil
}

func (p packet) bytes() []byte {
	b := []byte{byte(p.code), p.id, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(packetHeader+len(p.data)))
	return append(b, p.data...)
}

// option is a configuration option of any protocol (RFC 1661 section 6).
type option struct {
	kind uint8
	data []byte
}

func parseOptions(b []byte) ([]option, error) {
	var out []option
	for len(b) > 0 {
		if len(b) < optionHeader || b[1] < optionHeader || int(b[1]) > len(b) {
			return nil, fmt.Errorf("%w: %x", ErrOption, b[:min(len(b), 8)])
		}
		out = append(out, option{b[0], b[optionHeader:b[1]]})
		b = b[b[1]:]
	}
	return out, nil
}

func joinOptions(options []option) []byte {
	var b []byte
	for _, o := range options {
		b = append(b, o.kind, byte(optionHeader+len(o.data)))
		b = append(b, o.data...)
	}
	return b
}

// splitSized takes a field with a length before it off b, as PAP and CHAP have
// them.
func splitSized(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	return b[1 : 1+b[0]], b[1+b[0]:], true
}

func sized(field []byte) []byte {
	field = field[:min(len(field), 255)]
	return append([]byte{byte(len(field))}, field...)
}
