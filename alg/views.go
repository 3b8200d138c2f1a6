package alg

import "bytes"

// The control messages as views: a view is the message's bytes, and its
// methods read and write fields in place, in host byte order. Nothing is
// copied. A view that came from one of the As functions is long enough for all
// of its methods.

// Header is what all control messages begin with (RFC 2637, section 1.4).
type Header []byte

// AsHeader returns the header at the beginning of b, if it is one of a control
// message. The message itself may not be there whole.
func AsHeader(b []byte) (Header, bool) {
	if len(b) < headerSize || be16(b[offKind:]) != kindControl || be32(b[offMagicCookie:]) != magicCookie ||
		be16(b[offLength:]) < headerSize {
		return nil, false
	}
	return Header(b), true
}

// Length returns the length of the whole message.
func (h Header) Length() uint16 { return be16(h[offLength:]) }

// Kind returns the PPTP message type: 1 for control messages.
func (h Header) Kind() uint16 { return be16(h[offKind:]) }

// MagicCookie returns the constant that keeps both sides in step.
func (h Header) MagicCookie() uint32 { return be32(h[offMagicCookie:]) }

// Type returns the control message type.
func (h Header) Type() MessageType { return MessageType(be16(h[offMessageType:])) }

// Reserved0 returns the header's reserved field.
func (h Header) Reserved0() uint16 { return be16(h[offReserved0:]) }

// as returns the message of type t at the beginning of b. A message may be
// longer than the RFC has it, for a later version's sake; the view has it all.
func as[V ~[]byte](b []byte, t MessageType) (V, bool) {
	h, ok := AsHeader(b)
	if !ok || h.Type() != t || int(h.Length()) < t.Length() || int(h.Length()) > len(b) {
		return nil, false
	}
	return V(b[:h.Length()]), true
}

// Sizes of text fields. Shorter text ends with a zero byte.
const (
	textSize       = 64
	statisticsSize = 128
)

func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Offsets in a StartControlConnectionRequest (RFC 2637, section 2.1).
const (
	offStartRequestProtocolVersion     = 12 // uint16, major version in the high byte
	offStartRequestReserved1           = 14 // uint16
	offStartRequestFramingCapabilities = 16 // uint32, 1: asynchronous, 2: synchronous
	offStartRequestBearerCapabilities  = 20 // uint32, 1: analog, 2: digital
	offStartRequestMaximumChannels     = 24 // uint16
	offStartRequestFirmwareRevision    = 26 // uint16
	offStartRequestHostName            = 28 // [64]byte, text
	offStartRequestVendorString        = 92 // [64]byte, text
	sizeStartRequest                   = 156
)

// StartControlConnectionRequest asks for a control connection.
type StartControlConnectionRequest []byte

// AsStartControlConnectionRequest returns the message at the beginning of b, if there is a whole one.
func AsStartControlConnectionRequest(b []byte) (StartControlConnectionRequest, bool) {
	return as[StartControlConnectionRequest](b, StartControlConnectionRequestType)
}

// Header returns the fields that all messages have.
func (m StartControlConnectionRequest) Header() Header { return Header(m) }

// ProtocolVersion returns the protocol version, major version in the high byte.
func (m StartControlConnectionRequest) ProtocolVersion() uint16 {
	return be16(m[offStartRequestProtocolVersion:])
}

// Reserved1 returns the first reserved field.
func (m StartControlConnectionRequest) Reserved1() uint16 { return be16(m[offStartRequestReserved1:]) }

// FramingCapabilities returns the framing capabilities.
func (m StartControlConnectionRequest) FramingCapabilities() uint32 {
	return be32(m[offStartRequestFramingCapabilities:])
}

// BearerCapabilities returns the bearer capabilities.
func (m StartControlConnectionRequest) BearerCapabilities() uint32 {
	return be32(m[offStartRequestBearerCapabilities:])
}

// MaximumChannels returns the maximum channels.
func (m StartControlConnectionRequest) MaximumChannels() uint16 {
	return be16(m[offStartRequestMaximumChannels:])
}

// FirmwareRevision returns the firmware revision.
func (m StartControlConnectionRequest) FirmwareRevision() uint16 {
	return be16(m[offStartRequestFirmwareRevision:])
}

// HostName returns the host name.
func (m StartControlConnectionRequest) HostName() string {
	return text(m[offStartRequestHostName:][:textSize])
}

// VendorString returns the vendor string.
func (m StartControlConnectionRequest) VendorString() string {
	return text(m[offStartRequestVendorString:][:textSize])
}

// Offsets in a StartControlConnectionReply (RFC 2637, section 2.2).
const (
	offStartReplyProtocolVersion     = 12 // uint16, major version in the high byte
	offStartReplyResultCode          = 14 // uint8
	offStartReplyErrorCode           = 15 // uint8
	offStartReplyFramingCapabilities = 16 // uint32, 1: asynchronous, 2: synchronous
	offStartReplyBearerCapabilities  = 20 // uint32, 1: analog, 2: digital
	offStartReplyMaximumChannels     = 24 // uint16
	offStartReplyFirmwareRevision    = 26 // uint16
	offStartReplyHostName            = 28 // [64]byte, text
	offStartReplyVendorString        = 92 // [64]byte, text
	sizeStartReply                   = 156
)

// StartControlConnectionReply answers a Start-Control-Connection-Request.
type StartControlConnectionReply []byte

// AsStartControlConnectionReply returns the message at the beginning of b, if there is a whole one.
func AsStartControlConnectionReply(b []byte) (StartControlConnectionReply, bool) {
	return as[StartControlConnectionReply](b, StartControlConnectionReplyType)
}

// Header returns the fields that all messages have.
func (m StartControlConnectionReply) Header() Header { return Header(m) }

// ProtocolVersion returns the protocol version, major version in the high byte.
func (m StartControlConnectionReply) ProtocolVersion() uint16 {
	return be16(m[offStartReplyProtocolVersion:])
}

// ResultCode returns the result code.
func (m StartControlConnectionReply) ResultCode() uint8 { return m[offStartReplyResultCode] }

// ErrorCode returns the error code.
func (m StartControlConnectionReply) ErrorCode() uint8 { return m[offStartReplyErrorCode] }

// FramingCapabilities returns the framing capabilities.
func (m StartControlConnectionReply) FramingCapabilities() uint32 {
	return be32(m[offStartReplyFramingCapabilities:])
}

// BearerCapabilities returns the bearer capabilities.
func (m StartControlConnectionReply) BearerCapabilities() uint32 {
	return be32(m[offStartReplyBearerCapabilities:])
}

// MaximumChannels returns the maximum channels.
func (m StartControlConnectionReply) MaximumChannels() uint16 {
	return be16(m[offStartReplyMaximumChannels:])
}

// FirmwareRevision returns the firmware revision.
func (m StartControlConnectionReply) FirmwareRevision() uint16 {
	return be16(m[offStartReplyFirmwareRevision:])
}

// HostName returns the host name.
func (m StartControlConnectionReply) HostName() string {
	return text(m[offStartReplyHostName:][:textSize])
}

// VendorString returns the vendor string.
func (m StartControlConnectionReply) VendorString() string {
	return text(m[offStartReplyVendorString:][:textSize])
}

// Offsets in a StopControlConnectionRequest (RFC 2637, section 2.3).
const (
	offStopRequestReason    = 12 // uint8
	offStopRequestReserved1 = 13 // uint8
	offStopRequestReserved2 = 14 // uint16
	sizeStopRequest         = 16
)

// StopControlConnectionRequest announces the end of the control connection.
type StopControlConnectionRequest []byte

// AsStopControlConnectionRequest returns the message at the beginning of b, if there is a whole one.
func AsStopControlConnectionRequest(b []byte) (StopControlConnectionRequest, bool) {
	return as[StopControlConnectionRequest](b, StopControlConnectionRequestType)
}

// Header returns the fields that all messages have.
func (m StopControlConnectionRequest) Header() Header { return Header(m) }

// Reason returns the reason.
func (m StopControlConnectionRequest) Reason() uint8 { return m[offStopRequestReason] }

// Reserved1 returns the first reserved field.
func (m StopControlConnectionRequest) Reserved1() uint8 { return m[offStopRequestReserved1] }

// Reserved2 returns the second reserved field.
func (m StopControlConnectionRequest) Reserved2() uint16 { return be16(m[offStopRequestReserved2:]) }

// Offsets in a StopControlConnectionReply (RFC 2637, section 2.4).
const (
	offStopReplyResultCode = 12 // uint8
	offStopReplyErrorCode  = 13 // uint8
	offStopReplyReserved1  = 14 // uint16
	sizeStopReply          = 16
)

// StopControlConnectionReply answers a Stop-Control-Connection-Request.
type StopControlConnectionReply []byte

// AsStopControlConnectionReply returns the message at the beginning of b, if there is a whole one.
func AsStopControlConnectionReply(b []byte) (StopControlConnectionReply, bool) {
	return as[StopControlConnectionReply](b, StopControlConnectionReplyType)
}

// Header returns the fields that all messages have.
func (m StopControlConnectionReply) Header() Header { return Header(m) }

// ResultCode returns the result code.
func (m StopControlConnectionReply) ResultCode() uint8 { return m[offStopReplyResultCode] }

// ErrorCode returns the error code.
func (m StopControlConnectionReply) ErrorCode() uint8 { return m[offStopReplyErrorCode] }

// Reserved1 returns the first reserved field.
func (m StopControlConnectionReply) Reserved1() uint16 { return be16(m[offStopReplyReserved1:]) }

// Offsets in a EchoRequest (RFC 2637, section 2.5).
const (
	offEchoRequestIdentifier = 12 // uint32
	sizeEchoRequest          = 16
)

// EchoRequest asks whether the control connection is alive.
type EchoRequest []byte

// AsEchoRequest returns the message at the beginning of b, if there is a whole one.
func AsEchoRequest(b []byte) (EchoRequest, bool) {
	return as[EchoRequest](b, EchoRequestType)
}

// Header returns the fields that all messages have.
func (m EchoRequest) Header() Header { return Header(m) }

// Identifier returns the identifier.
func (m EchoRequest) Identifier() uint32 { return be32(m[offEchoRequestIdentifier:]) }

// Offsets in a EchoReply (RFC 2637, section 2.6).
const (
	offEchoReplyIdentifier = 12 // uint32, that of the request
	offEchoReplyResultCode = 16 // uint8
	offEchoReplyErrorCode  = 17 // uint8
	offEchoReplyReserved1  = 18 // uint16
	sizeEchoReply          = 20
)

// EchoReply answers an Echo-Request.
type EchoReply []byte

// AsEchoReply returns the message at the beginning of b, if there is a whole one.
func AsEchoReply(b []byte) (EchoReply, bool) {
	return as[EchoReply](b, EchoReplyType)
}

// Header returns the fields that all messages have.
func (m EchoReply) Header() Header { return Header(m) }

// Identifier returns the identifier, that of the request.
func (m EchoReply) Identifier() uint32 { return be32(m[offEchoReplyIdentifier:]) }

// ResultCode returns the result code.
func (m EchoReply) ResultCode() uint8 { return m[offEchoReplyResultCode] }

// ErrorCode returns the error code.
func (m EchoReply) ErrorCode() uint8 { return m[offEchoReplyErrorCode] }

// Reserved1 returns the first reserved field.
func (m EchoReply) Reserved1() uint16 { return be16(m[offEchoReplyReserved1:]) }
