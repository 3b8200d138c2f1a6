package alg

import "encoding/binary"

// Offsets in the header that all control messages share (RFC 2637, section
// 1.4). Integers are big-endian.
const (
	offLength      = 0  // uint16, of the whole message
	offKind        = 2  // uint16, "PPTP Message Type"
	offMagicCookie = 4  // uint32
	offMessageType = 8  // uint16, "Control Message Type"
	offReserved0   = 10 // uint16
	headerSize     = 12
)

// Values of the header's constant fields.
const (
	kindControl = 1
	magicCookie = 0x1A2B3C4D
)

// MessageType is the type of a control message (RFC 2637, section 2).
type MessageType uint16

// The 15 control messages.
const (
	StartControlConnectionRequestType MessageType = 1 + iota
	StartControlConnectionReplyType
	StopControlConnectionRequestType
	StopControlConnectionReplyType
	EchoRequestType
	EchoReplyType
	OutgoingCallRequestType
	OutgoingCallReplyType
	IncomingCallRequestType
	IncomingCallReplyType
	IncomingCallConnectedType
	CallClearRequestType
	CallDisconnectNotifyType
	WANErrorNotifyType
	SetLinkInfoType
)

// layout says where the fields are that translation needs.
type layout struct {
	name   string
	length int // of the whole message, as the RFC has it
	own    int // offset of the Call ID, the sender's; 0: none
	peer   int // offset of the Peer's Call ID, the receiver's; 0: none
	result int // offset of the Result Code (the Error Code follows it); 0: none
	// needed is how many of the first bytes must be known before the message
	// can be acted upon.
	needed int
}

// callIDSize is the size of a Call ID field in bytes.
const callIDSize = 2

// maxNeeded is the largest needed of all layouts.
const maxNeeded = 20

// layouts of the messages by type. RFC 2637, sections 2.1 to 2.15.
var layouts = [...]layout{
	StartControlConnectionRequestType: {"Start-Control-Connection-Request", 156, 0, 0, 0, 12},
	StartControlConnectionReplyType:   {"Start-Control-Connection-Reply", 156, 0, 0, 14, 16},
	StopControlConnectionRequestType:  {"Stop-Control-Connection-Request", 16, 0, 0, 12, 13},
	StopControlConnectionReplyType:    {"Stop-Control-Connection-Reply", 16, 0, 0, 12, 14},
	EchoRequestType:                   {"Echo-Request", 16, 0, 0, 0, 12},
	EchoReplyType:                     {"Echo-Reply", 20, 0, 0, 16, 12},
	OutgoingCallRequestType:           {"Outgoing-Call-Request", 168, 12, 0, 0, 14},
	OutgoingCallReplyType:             {"Outgoing-Call-Reply", 32, 12, 14, 16, 20},
	IncomingCallRequestType:           {"Incoming-Call-Request", 220, 12, 0, 0, 14},
	IncomingCallReplyType:             {"Incoming-Call-Reply", 24, 12, 14, 16, 18},
	IncomingCallConnectedType:         {"Incoming-Call-Connected", 28, 0, 12, 0, 14},
	CallClearRequestType:              {"Call-Clear-Request", 16, 12, 0, 0, 14},
	CallDisconnectNotifyType:          {"Call-Disconnect-Notify", 148, 12, 0, 14, 18},
	WANErrorNotifyType:                {"WAN-Error-Notify", 40, 0, 12, 0, 14},
	SetLinkInfoType:                   {"Set-Link-Info", 24, 0, 12, 0, 14},
}

// layoutOf returns the layout of a known message type, or nil.
func layoutOf(t MessageType) *layout {
	if t == 0 || int(t) >= len(layouts) {
		return nil
	}
	return &layouts[t]
}

func (t MessageType) String() string {
	if l := layoutOf(t); l != nil {
		return l.name
	}
	return "unknown message"
}

// Length returns the length in bytes that the RFC gives a message of this
// type, or 0 for an unknown type.
func (t MessageType) Length() int {
	if l := layoutOf(t); l != nil {
		return l.length
	}
	return 0
}

// A builder in wide use sends Incoming-Call-Replies of 24 bytes whose length
// field says 148. See framer.header.
const (
	overstatedType   = IncomingCallReplyType
	overstatedLength = 148
)

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
