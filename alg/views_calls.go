package alg

// Views of the messages about calls; see views.go.

// Offsets in a OutgoingCallRequest (RFC 2637, section 2.7).
const (
	offOutgoingRequestCallID            = 12  // uint16, the PNS's own
	offOutgoingRequestCallSerialNumber  = 14  // uint16
	offOutgoingRequestMinimumBPS        = 16  // uint32
	offOutgoingRequestMaximumBPS        = 20  // uint32
	offOutgoingRequestBearerType        = 24  // uint32, 1: analog, 2: digital, 3: any
	offOutgoingRequestFramingType       = 28  // uint32, 1: asynchronous, 2: synchronous, 3: either
	offOutgoingRequestReceiveWindow     = 32  // uint16, in packets
	offOutgoingRequestProcessingDelay   = 34  // uint16, in tenths of a second
	offOutgoingRequestPhoneNumberLength = 36  // uint16
	offOutgoingRequestReserved1         = 38  // uint16
	offOutgoingRequestPhoneNumber       = 40  // [64]byte, text
	offOutgoingRequestSubaddress        = 104 // [64]byte, text
	sizeOutgoingRequest                 = 168
)

// OutgoingCallRequest is the PNS's wish for a call.
type OutgoingCallRequest []byte

// AsOutgoingCallRequest returns the message at the beginning of b, if there is a whole one.
func AsOutgoingCallRequest(b []byte) (OutgoingCallRequest, bool) {
	return as[OutgoingCallRequest](b, OutgoingCallRequestType)
}

// Header returns the fields that all messages have.
func (m OutgoingCallRequest) Header() Header { return Header(m) }

// CallID returns the sender's own Call ID, the PNS's own.
func (m OutgoingCallRequest) CallID() uint16 { return be16(m[offOutgoingRequestCallID:]) }

// SetCallID changes the sender's own Call ID.
func (m OutgoingCallRequest) SetCallID(id uint16) { put16(m[offOutgoingRequestCallID:], id) }

// CallSerialNumber returns the call's serial number.
func (m OutgoingCallRequest) CallSerialNumber() uint16 {
	return be16(m[offOutgoingRequestCallSerialNumber:])
}

// MinimumBPS returns the minimum speed in bits per second.
func (m OutgoingCallRequest) MinimumBPS() uint32 { return be32(m[offOutgoingRequestMinimumBPS:]) }

// MaximumBPS returns the maximum speed in bits per second.
func (m OutgoingCallRequest) MaximumBPS() uint32 { return be32(m[offOutgoingRequestMaximumBPS:]) }

// BearerType returns the bearer type.
func (m OutgoingCallRequest) BearerType() uint32 { return be32(m[offOutgoingRequestBearerType:]) }

// FramingType returns the framing type.
func (m OutgoingCallRequest) FramingType() uint32 { return be32(m[offOutgoingRequestFramingType:]) }

// ReceiveWindow returns the receive window, in packets.
func (m OutgoingCallRequest) ReceiveWindow() uint16 { return be16(m[offOutgoingRequestReceiveWindow:]) }

// ProcessingDelay returns the processing delay, in tenths of a second.
func (m OutgoingCallRequest) ProcessingDelay() uint16 {
	return be16(m[offOutgoingRequestProcessingDelay:])
}

// PhoneNumberLength returns the phone number length.
func (m OutgoingCallRequest) PhoneNumberLength() uint16 {
	return be16(m[offOutgoingRequestPhoneNumberLength:])
}

// Reserved1 returns the first reserved field.
func (m OutgoingCallRequest) Reserved1() uint16 { return be16(m[offOutgoingRequestReserved1:]) }

// PhoneNumber returns the phone number.
func (m OutgoingCallRequest) PhoneNumber() string {
	return text(m[offOutgoingRequestPhoneNumber:][:textSize])
}

// Subaddress returns the subaddress.
func (m OutgoingCallRequest) Subaddress() string {
	return text(m[offOutgoingRequestSubaddress:][:textSize])
}

// Offsets in a OutgoingCallReply (RFC 2637, section 2.8).
const (
	offOutgoingReplyCallID            = 12 // uint16, the PAC's own
	offOutgoingReplyPeerCallID        = 14 // uint16, the PNS's, from the request
	offOutgoingReplyResultCode        = 16 // uint8
	offOutgoingReplyErrorCode         = 17 // uint8
	offOutgoingReplyCauseCode         = 18 // uint16
	offOutgoingReplyConnectSpeed      = 20 // uint32, in bits per second
	offOutgoingReplyReceiveWindow     = 24 // uint16, in packets
	offOutgoingReplyProcessingDelay   = 26 // uint16, in tenths of a second
	offOutgoingReplyPhysicalChannelID = 28 // uint32
	sizeOutgoingReply                 = 32
)

// OutgoingCallReply is the PAC's answer to an Outgoing-Call-Request.
type OutgoingCallReply []byte

// AsOutgoingCallReply returns the message at the beginning of b, if there is a whole one.
func AsOutgoingCallReply(b []byte) (OutgoingCallReply, bool) {
	return as[OutgoingCallReply](b, OutgoingCallReplyType)
}

// Header returns the fields that all messages have.
func (m OutgoingCallReply) Header() Header { return Header(m) }

// CallID returns the sender's own Call ID, the PAC's own.
func (m OutgoingCallReply) CallID() uint16 { return be16(m[offOutgoingReplyCallID:]) }

// SetCallID changes the sender's own Call ID.
func (m OutgoingCallReply) SetCallID(id uint16) { put16(m[offOutgoingReplyCallID:], id) }

// PeerCallID returns the receiver's Call ID, the PNS's, from the request.
func (m OutgoingCallReply) PeerCallID() uint16 { return be16(m[offOutgoingReplyPeerCallID:]) }

// SetPeerCallID changes the receiver's Call ID.
func (m OutgoingCallReply) SetPeerCallID(id uint16) { put16(m[offOutgoingReplyPeerCallID:], id) }

// ResultCode returns the result code.
func (m OutgoingCallReply) ResultCode() uint8 { return m[offOutgoingReplyResultCode] }

// ErrorCode returns the error code.
func (m OutgoingCallReply) ErrorCode() uint8 { return m[offOutgoingReplyErrorCode] }

// CauseCode returns the cause code.
func (m OutgoingCallReply) CauseCode() uint16 { return be16(m[offOutgoingReplyCauseCode:]) }

// ConnectSpeed returns the connect speed, in bits per second.
func (m OutgoingCallReply) ConnectSpeed() uint32 { return be32(m[offOutgoingReplyConnectSpeed:]) }

// ReceiveWindow returns the receive window, in packets.
func (m OutgoingCallReply) ReceiveWindow() uint16 { return be16(m[offOutgoingReplyReceiveWindow:]) }

// ProcessingDelay returns the processing delay, in tenths of a second.
func (m OutgoingCallReply) ProcessingDelay() uint16 { return be16(m[offOutgoingReplyProcessingDelay:]) }

// PhysicalChannelID returns the physical channel's number.
func (m OutgoingCallReply) PhysicalChannelID() uint32 {
	return be32(m[offOutgoingReplyPhysicalChannelID:])
}

// Offsets in a IncomingCallRequest (RFC 2637, section 2.9).
const (
	offIncomingRequestCallID              = 12  // uint16, the PAC's own
	offIncomingRequestCallSerialNumber    = 14  // uint16
	offIncomingRequestBearerType          = 16  // uint32, 1: analog, 2: digital
	offIncomingRequestPhysicalChannelID   = 20  // uint32
	offIncomingRequestDialedNumberLength  = 24  // uint16
	offIncomingRequestDialingNumberLength = 26  // uint16
	offIncomingRequestDialedNumber        = 28  // [64]byte, text
	offIncomingRequestDialingNumber       = 92  // [64]byte, text
	offIncomingRequestSubaddress          = 156 // [64]byte, text
	sizeIncomingRequest                   = 220
)

// IncomingCallRequest is the PAC's announcement of a call.
type IncomingCallRequest []byte

// AsIncomingCallRequest returns the message at the beginning of b, if there is a whole one.
func AsIncomingCallRequest(b []byte) (IncomingCallRequest, bool) {
	return as[IncomingCallRequest](b, IncomingCallRequestType)
}

// Header returns the fields that all messages have.
func (m IncomingCallRequest) Header() Header { return Header(m) }

// CallID returns the sender's own Call ID, the PAC's own.
func (m IncomingCallRequest) CallID() uint16 { return be16(m[offIncomingRequestCallID:]) }

// SetCallID changes the sender's own Call ID.
func (m IncomingCallRequest) SetCallID(id uint16) { put16(m[offIncomingRequestCallID:], id) }

// CallSerialNumber returns the call's serial number.
func (m IncomingCallRequest) CallSerialNumber() uint16 {
	return be16(m[offIncomingRequestCallSerialNumber:])
}

// BearerType returns the bearer type.
func (m IncomingCallRequest) BearerType() uint32 { return be32(m[offIncomingRequestBearerType:]) }

// PhysicalChannelID returns the physical channel's number.
func (m IncomingCallRequest) PhysicalChannelID() uint32 {
	return be32(m[offIncomingRequestPhysicalChannelID:])
}

// DialedNumberLength returns the dialed number length.
func (m IncomingCallRequest) DialedNumberLength() uint16 {
	return be16(m[offIncomingRequestDialedNumberLength:])
}

// DialingNumberLength returns the dialing number length.
func (m IncomingCallRequest) DialingNumberLength() uint16 {
	return be16(m[offIncomingRequestDialingNumberLength:])
}

// DialedNumber returns the dialed number.
func (m IncomingCallRequest) DialedNumber() string {
	return text(m[offIncomingRequestDialedNumber:][:textSize])
}

// DialingNumber returns the dialing number.
func (m IncomingCallRequest) DialingNumber() string {
	return text(m[offIncomingRequestDialingNumber:][:textSize])
}

// Subaddress returns the subaddress.
func (m IncomingCallRequest) Subaddress() string {
	return text(m[offIncomingRequestSubaddress:][:textSize])
}

// Offsets in a IncomingCallReply (RFC 2637, section 2.10).
const (
	offIncomingReplyCallID        = 12 // uint16, the PNS's own
	offIncomingReplyPeerCallID    = 14 // uint16, the PAC's, from the request
	offIncomingReplyResultCode    = 16 // uint8
	offIncomingReplyErrorCode     = 17 // uint8
	offIncomingReplyReceiveWindow = 18 // uint16, in packets
	offIncomingReplyTransitDelay  = 20 // uint16, in tenths of a second
	offIncomingReplyReserved1     = 22 // uint16
	sizeIncomingReply             = 24
)

// IncomingCallReply is the PNS's answer to an Incoming-Call-Request.
type IncomingCallReply []byte

// AsIncomingCallReply returns the message at the beginning of b, if there is a whole one.
func AsIncomingCallReply(b []byte) (IncomingCallReply, bool) {
	return as[IncomingCallReply](b, IncomingCallReplyType)
}

// Header returns the fields that all messages have.
func (m IncomingCallReply) Header() Header { return Header(m) }

// CallID returns the sender's own Call ID, the PNS's own.
func (m IncomingCallReply) CallID() uint16 { return be16(m[offIncomingReplyCallID:]) }

// SetCallID changes the sender's own Call ID.
func (m IncomingCallReply) SetCallID(id uint16) { put16(m[offIncomingReplyCallID:], id) }

// PeerCallID returns the receiver's Call ID, the PAC's, from the request.
func (m IncomingCallReply) PeerCallID() uint16 { return be16(m[offIncomingReplyPeerCallID:]) }

// SetPeerCallID changes the receiver's Call ID.
func (m IncomingCallReply) SetPeerCallID(id uint16) { put16(m[offIncomingReplyPeerCallID:], id) }

// ResultCode returns the result code.
func (m IncomingCallReply) ResultCode() uint8 { return m[offIncomingReplyResultCode] }

// ErrorCode returns the error code.
func (m IncomingCallReply) ErrorCode() uint8 { return m[offIncomingReplyErrorCode] }

// ReceiveWindow returns the receive window, in packets.
func (m IncomingCallReply) ReceiveWindow() uint16 { return be16(m[offIncomingReplyReceiveWindow:]) }

// TransitDelay returns the transit delay, in tenths of a second.
func (m IncomingCallReply) TransitDelay() uint16 { return be16(m[offIncomingReplyTransitDelay:]) }

// Reserved1 returns the first reserved field.
func (m IncomingCallReply) Reserved1() uint16 { return be16(m[offIncomingReplyReserved1:]) }

// Offsets in a IncomingCallConnected (RFC 2637, section 2.11).
const (
	offIncomingConnectedPeerCallID    = 12 // uint16, the PNS's
	offIncomingConnectedReserved1     = 14 // uint16
	offIncomingConnectedConnectSpeed  = 16 // uint32, in bits per second
	offIncomingConnectedReceiveWindow = 20 // uint16, in packets
	offIncomingConnectedTransitDelay  = 22 // uint16, in tenths of a second
	offIncomingConnectedFramingType   = 24 // uint32, 1: asynchronous, 2: synchronous
	sizeIncomingConnected             = 28
)

// IncomingCallConnected says that the PAC answered the call.
type IncomingCallConnected []byte

// AsIncomingCallConnected returns the message at the beginning of b, if there is a whole one.
func AsIncomingCallConnected(b []byte) (IncomingCallConnected, bool) {
	return as[IncomingCallConnected](b, IncomingCallConnectedType)
}

// Header returns the fields that all messages have.
func (m IncomingCallConnected) Header() Header { return Header(m) }

// PeerCallID returns the receiver's Call ID, the PNS's.
func (m IncomingCallConnected) PeerCallID() uint16 { return be16(m[offIncomingConnectedPeerCallID:]) }

// SetPeerCallID changes the receiver's Call ID.
func (m IncomingCallConnected) SetPeerCallID(id uint16) {
	put16(m[offIncomingConnectedPeerCallID:], id)
}

// Reserved1 returns the first reserved field.
func (m IncomingCallConnected) Reserved1() uint16 { return be16(m[offIncomingConnectedReserved1:]) }

// ConnectSpeed returns the connect speed, in bits per second.
func (m IncomingCallConnected) ConnectSpeed() uint32 {
	return be32(m[offIncomingConnectedConnectSpeed:])
}

// ReceiveWindow returns the receive window, in packets.
func (m IncomingCallConnected) ReceiveWindow() uint16 {
	return be16(m[offIncomingConnectedReceiveWindow:])
}

// TransitDelay returns the transit delay, in tenths of a second.
func (m IncomingCallConnected) TransitDelay() uint16 {
	return be16(m[offIncomingConnectedTransitDelay:])
}

// FramingType returns the framing type.
func (m IncomingCallConnected) FramingType() uint32 { return be32(m[offIncomingConnectedFramingType:]) }

// Offsets in a CallClearRequest (RFC 2637, section 2.12).
const (
	offClearRequestCallID    = 12 // uint16, the PNS's own
	offClearRequestReserved1 = 14 // uint16
	sizeClearRequest         = 16
)

// CallClearRequest is the PNS's wish to end a call.
type CallClearRequest []byte

// AsCallClearRequest returns the message at the beginning of b, if there is a whole one.
func AsCallClearRequest(b []byte) (CallClearRequest, bool) {
	return as[CallClearRequest](b, CallClearRequestType)
}

// Header returns the fields that all messages have.
func (m CallClearRequest) Header() Header { return Header(m) }

// CallID returns the sender's own Call ID, the PNS's own.
func (m CallClearRequest) CallID() uint16 { return be16(m[offClearRequestCallID:]) }

// SetCallID changes the sender's own Call ID.
func (m CallClearRequest) SetCallID(id uint16) { put16(m[offClearRequestCallID:], id) }

// Reserved1 returns the first reserved field.
func (m CallClearRequest) Reserved1() uint16 { return be16(m[offClearRequestReserved1:]) }

// Offsets in a CallDisconnectNotify (RFC 2637, section 2.13).
const (
	offDisconnectCallID         = 12 // uint16, the PAC's own; some put the PNS's here
	offDisconnectResultCode     = 14 // uint8
	offDisconnectErrorCode      = 15 // uint8
	offDisconnectCauseCode      = 16 // uint16
	offDisconnectReserved1      = 18 // uint16
	offDisconnectCallStatistics = 20 // [128]byte, text
	sizeDisconnect              = 148
)

// CallDisconnectNotify says that the PAC ended a call.
type CallDisconnectNotify []byte

// AsCallDisconnectNotify returns the message at the beginning of b, if there is a whole one.
func AsCallDisconnectNotify(b []byte) (CallDisconnectNotify, bool) {
	return as[CallDisconnectNotify](b, CallDisconnectNotifyType)
}

// Header returns the fields that all messages have.
func (m CallDisconnectNotify) Header() Header { return Header(m) }

// CallID returns the sender's own Call ID, the PAC's own; some put the PNS's here.
func (m CallDisconnectNotify) CallID() uint16 { return be16(m[offDisconnectCallID:]) }

// SetCallID changes the sender's own Call ID.
func (m CallDisconnectNotify) SetCallID(id uint16) { put16(m[offDisconnectCallID:], id) }

// ResultCode returns the result code.
func (m CallDisconnectNotify) ResultCode() uint8 { return m[offDisconnectResultCode] }

// ErrorCode returns the error code.
func (m CallDisconnectNotify) ErrorCode() uint8 { return m[offDisconnectErrorCode] }

// CauseCode returns the cause code.
func (m CallDisconnectNotify) CauseCode() uint16 { return be16(m[offDisconnectCauseCode:]) }

// Reserved1 returns the first reserved field.
func (m CallDisconnectNotify) Reserved1() uint16 { return be16(m[offDisconnectReserved1:]) }

// CallStatistics returns the call statistics.
func (m CallDisconnectNotify) CallStatistics() string {
	return text(m[offDisconnectCallStatistics:][:statisticsSize])
}

// Offsets in a WANErrorNotify (RFC 2637, section 2.14).
const (
	offWANErrorPeerCallID       = 12 // uint16, the PNS's
	offWANErrorReserved1        = 14 // uint16
	offWANErrorCRCErrors        = 16 // uint32
	offWANErrorFramingErrors    = 20 // uint32
	offWANErrorHardwareOverruns = 24 // uint32
	offWANErrorBufferOverruns   = 28 // uint32
	offWANErrorTimeoutErrors    = 32 // uint32
	offWANErrorAlignmentErrors  = 36 // uint32
	sizeWANError                = 40
)

// WANErrorNotify carries the PAC's counters of a call's errors.
type WANErrorNotify []byte

// AsWANErrorNotify returns the message at the beginning of b, if there is a whole one.
func AsWANErrorNotify(b []byte) (WANErrorNotify, bool) {
	return as[WANErrorNotify](b, WANErrorNotifyType)
}

// Header returns the fields that all messages have.
func (m WANErrorNotify) Header() Header { return Header(m) }

// PeerCallID returns the receiver's Call ID, the PNS's.
func (m WANErrorNotify) PeerCallID() uint16 { return be16(m[offWANErrorPeerCallID:]) }

// SetPeerCallID changes the receiver's Call ID.
func (m WANErrorNotify) SetPeerCallID(id uint16) { put16(m[offWANErrorPeerCallID:], id) }

// Reserved1 returns the first reserved field.
func (m WANErrorNotify) Reserved1() uint16 { return be16(m[offWANErrorReserved1:]) }

// CRCErrors returns the number of frames with a CRC error.
func (m WANErrorNotify) CRCErrors() uint32 { return be32(m[offWANErrorCRCErrors:]) }

// FramingErrors returns the number of framing errors.
func (m WANErrorNotify) FramingErrors() uint32 { return be32(m[offWANErrorFramingErrors:]) }

// HardwareOverruns returns the number of hardware overruns.
func (m WANErrorNotify) HardwareOverruns() uint32 { return be32(m[offWANErrorHardwareOverruns:]) }

// BufferOverruns returns the number of buffer overruns.
func (m WANErrorNotify) BufferOverruns() uint32 { return be32(m[offWANErrorBufferOverruns:]) }

// TimeoutErrors returns the number of timeouts.
func (m WANErrorNotify) TimeoutErrors() uint32 { return be32(m[offWANErrorTimeoutErrors:]) }

// AlignmentErrors returns the number of alignment errors.
func (m WANErrorNotify) AlignmentErrors() uint32 { return be32(m[offWANErrorAlignmentErrors:]) }

// Offsets in a SetLinkInfo (RFC 2637, section 2.15).
const (
	offSetLinkInfoPeerCallID  = 12 // uint16, the PAC's
	offSetLinkInfoReserved1   = 14 // uint16
	offSetLinkInfoSendACCM    = 16 // uint32
	offSetLinkInfoReceiveACCM = 20 // uint32
	sizeSetLinkInfo           = 24
)

// SetLinkInfo tells the PAC what PPP negotiated.
type SetLinkInfo []byte

// AsSetLinkInfo returns the message at the beginning of b, if there is a whole one.
func AsSetLinkInfo(b []byte) (SetLinkInfo, bool) {
	return as[SetLinkInfo](b, SetLinkInfoType)
}

// Header returns the fields that all messages have.
func (m SetLinkInfo) Header() Header { return Header(m) }

// PeerCallID returns the receiver's Call ID, the PAC's.
func (m SetLinkInfo) PeerCallID() uint16 { return be16(m[offSetLinkInfoPeerCallID:]) }

// SetPeerCallID changes the receiver's Call ID.
func (m SetLinkInfo) SetPeerCallID(id uint16) { put16(m[offSetLinkInfoPeerCallID:], id) }

// Reserved1 returns the first reserved field.
func (m SetLinkInfo) Reserved1() uint16 { return be16(m[offSetLinkInfoReserved1:]) }

// SendACCM returns the character map for sending.
func (m SetLinkInfo) SendACCM() uint32 { return be32(m[offSetLinkInfoSendACCM:]) }

// ReceiveACCM returns the character map for receiving.
func (m SetLinkInfo) ReceiveACCM() uint32 { return be32(m[offSetLinkInfoReceiveACCM:]) }
