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

// maxNeeded is the largest needed of all layouts: that of the replies.
const maxNeeded = offOutgoingReplyErrorCode + 1

// layouts of the messages by type; the offsets are in views.go and
// views_calls.go.
var layouts = [...]layout{
	StartControlConnectionRequestType: {name: "Start-Control-Connection-Request", length: sizeStartRequest, needed: headerSize},
	StartControlConnectionReplyType:   {name: "Start-Control-Connection-Reply", length: sizeStartReply, result: offStartReplyResultCode, needed: offStartReplyErrorCode + 1},
	StopControlConnectionRequestType:  {name: "Stop-Control-Connection-Request", length: sizeStopRequest, needed: offStopRequestReason + 1},
	StopControlConnectionReplyType:    {name: "Stop-Control-Connection-Reply", length: sizeStopReply, needed: headerSize},
	EchoRequestType:                   {name: "Echo-Request", length: sizeEchoRequest, needed: headerSize},
	EchoReplyType:                     {name: "Echo-Reply", length: sizeEchoReply, needed: headerSize},
	OutgoingCallRequestType:           {name: "Outgoing-Call-Request", length: sizeOutgoingRequest, own: offOutgoingRequestCallID, needed: offOutgoingRequestCallID + callIDSize},
	OutgoingCallReplyType:             {name: "Outgoing-Call-Reply", length: sizeOutgoingReply, own: offOutgoingReplyCallID, peer: offOutgoingReplyPeerCallID, result: offOutgoingReplyResultCode, needed: offOutgoingReplyErrorCode + 1},
	IncomingCallRequestType:           {name: "Incoming-Call-Request", length: sizeIncomingRequest, own: offIncomingRequestCallID, needed: offIncomingRequestCallID + callIDSize},
	IncomingCallReplyType:             {name: "Incoming-Call-Reply", length: sizeIncomingReply, own: offIncomingReplyCallID, peer: offIncomingReplyPeerCallID, result: offIncomingReplyResultCode, needed: offIncomingReplyErrorCode + 1},
	IncomingCallConnectedType:         {name: "Incoming-Call-Connected", length: sizeIncomingConnected, peer: offIncomingConnectedPeerCallID, needed: offIncomingConnectedPeerCallID + callIDSize},
	CallClearRequestType:              {name: "Call-Clear-Request", length: sizeClearRequest, own: offClearRequestCallID, needed: offClearRequestCallID + callIDSize},
	CallDisconnectNotifyType:          {name: "Call-Disconnect-Notify", length: sizeDisconnect, own: offDisconnectCallID, result: offDisconnectResultCode, needed: offDisconnectErrorCode + 1},
	WANErrorNotifyType:                {name: "WAN-Error-Notify", length: sizeWANError, peer: offWANErrorPeerCallID, needed: offWANErrorPeerCallID + callIDSize},
	SetLinkInfoType:                   {name: "Set-Link-Info", length: sizeSetLinkInfo, peer: offSetLinkInfoPeerCallID, needed: offSetLinkInfoPeerCallID + callIDSize},
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

func put16(b []byte, v uint16) { binary.BigEndian.PutUint16(b, v) }
func put32(b []byte, v uint32) { binary.BigEndian.PutUint32(b, v) }
