package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Type is a Control Message Type (RFC 2637 section 2).
type Type uint16

// The fifteen control messages.
const (
	TypeStartRequest        Type = 1  // Start-Control-Connection-Request, 2.1
	TypeStartReply          Type = 2  // Start-Control-Connection-Reply, 2.2
	TypeStopRequest         Type = 3  // Stop-Control-Connection-Request, 2.3
	TypeStopReply           Type = 4  // Stop-Control-Connection-Reply, 2.4
	TypeEchoRequest         Type = 5  // Echo-Request, 2.5
	TypeEchoReply           Type = 6  // Echo-Reply, 2.6
	TypeOutgoingCallRequest Type = 7  // Outgoing-Call-Request, 2.7
	TypeOutgoingCallReply   Type = 8  // Outgoing-Call-Reply, 2.8
	TypeIncomingCallRequest Type = 9  // Incoming-Call-Request, 2.9
	TypeIncomingCallReply   Type = 10 // Incoming-Call-Reply, 2.10
	TypeIncomingConnected   Type = 11 // Incoming-Call-Connected, 2.11
	TypeClearRequest        Type = 12 // Call-Clear-Request, 2.12
	TypeDisconnectNotify    Type = 13 // Call-Disconnect-Notify, 2.13
	TypeWANError            Type = 14 // WAN-Error-Notify, 2.14
	TypeSetLinkInfo         Type = 15 // Set-Link-Info, 2.15
)

var typeNames = [...]string{
	TypeStartRequest: "SCCRQ", TypeStartReply: "SCCRP", TypeStopRequest: "StopCCRQ", TypeStopReply: "StopCCRP",
	TypeEchoRequest: "EchoRQ", TypeEchoReply: "EchoRP", TypeOutgoingCallRequest: "OCRQ", TypeOutgoingCallReply: "OCRP",
	TypeIncomingCallRequest: "ICRQ", TypeIncomingCallReply: "ICRP", TypeIncomingConnected: "ICCN",
	TypeClearRequest: "CCRQ", TypeDisconnectNotify: "CDN", TypeWANError: "WEN", TypeSetLinkInfo: "SLI",
}

// String gives the short name customary in PPTP logs.
func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint16(t))
}

// The header common to all control messages (RFC 2637 section 1.4).
const (
	HeaderSize     = 12
	MagicCookie    = 0x1a2b3c4d
	MessageControl = 1      // PPTP Message Type: 1 control, 2 management
	Version        = 0x0100 // protocol version 1.0
	MaxSize        = 220    // the longest message, Incoming-Call-Request
)

type header struct {
	Length      uint16
	MessageType uint16
	Cookie      uint32
	Type        Type
	Reserved0   uint16
}

// Results and codes that the peers use.
const (
	ResultConnected = 1 // OCRP, ICRP: the call exists
	ResultError     = 2 // General Error
	ResultNoCarrier = 3 // OCRP: No Carrier; ICRP: Do Not Accept
	ResultBusy      = 4 // OCRP: Busy

	StartOK = 1 // SCCRP: successful channel establishment
	StopOK  = 1 // StopCCRP: OK
	EchoOK  = 1 // EchoRP: OK

	DisconnectLostCarrier = 1
	DisconnectError       = 2
	DisconnectAdmin       = 3 // Admin Shutdown
	DisconnectRequest     = 4 // answer to Call-Clear-Request

	ErrorNone       = 0 // general error codes, section 2.16
	ErrorNoResource = 4
	ErrorBadCallID  = 5
)

// Message is one of the pointers to structures below.
type Message interface{ Type() Type }

// Text is a fixed field of 64 octets holding a string, zero filled.
type Text [64]byte

// MakeText fills a Text; what does not fit is cut.
func MakeText(s string) (t Text) { copy(t[:], s); return t }

func (t Text) String() string { return strings.TrimRight(string(t[:]), "\x00") }

// StartRequest is a Start-Control-Connection-Request.
type StartRequest struct {
	ProtocolVersion  uint16
	Reserved1        uint16
	Framing, Bearer  uint32
	MaximumChannels  uint16
	FirmwareRevision uint16
	HostName, Vendor Text
}

// StartReply is a Start-Control-Connection-Reply.
type StartReply struct {
	ProtocolVersion   uint16
	Result, ErrorCode uint8
	Framing, Bearer   uint32
	MaximumChannels   uint16
	FirmwareRevision  uint16
	HostName, Vendor  Text
}

// StopRequest is a Stop-Control-Connection-Request.
type StopRequest struct {
	Reason, Reserved1 uint8
	Reserved2         uint16
}

// StopReply is a Stop-Control-Connection-Reply.
type StopReply struct {
	Result, ErrorCode uint8
	Reserved1         uint16
}

// EchoRequest asks whether the other side still lives.
type EchoRequest struct{ Identifier uint32 }

// EchoReply repeats the request's identifier.
type EchoReply struct {
	Identifier        uint32
	Result, ErrorCode uint8
	Reserved1         uint16
}

// OutgoingCallRequest is sent by a PNS; CallID is its own.
type OutgoingCallRequest struct {
	CallID, SerialNumber    uint16
	MinimumBPS, MaximumBPS  uint32
	Bearer, Framing         uint32
	ReceiveWindow, Delay    uint16
	PhoneLength, Reserved1  uint16
	PhoneNumber, Subaddress Text
}

// OutgoingCallReply is sent by a PAC; CallID is its own, PeerCallID that of
// the request.
type OutgoingCallReply struct {
	CallID, PeerCallID   uint16
	Result, ErrorCode    uint8
	Cause                uint16
	ConnectSpeed         uint32
	ReceiveWindow, Delay uint16
	PhysicalChannel      uint32
}

// IncomingCallRequest is sent by a PAC; CallID is its own.
type IncomingCallRequest struct {
	CallID, SerialNumber        uint16
	Bearer, PhysicalChannel     uint32
	DialedLength, DialingLength uint16
	Dialed, Dialing, Subaddress Text
}

// IncomingCallReply is sent by a PNS; CallID is its own, PeerCallID that of
// the request.
type IncomingCallReply struct {
	CallID, PeerCallID   uint16
	Result, ErrorCode    uint8
	ReceiveWindow, Delay uint16
	Reserved1            uint16
}

// IncomingConnected is sent by a PAC; PeerCallID is the PNS's.
type IncomingConnected struct {
	PeerCallID, Reserved1 uint16
	ConnectSpeed          uint32
	ReceiveWindow, Delay  uint16
	Framing               uint32
}

// ClearRequest is sent by a PNS; CallID is its own.
type ClearRequest struct{ CallID, Reserved1 uint16 }

// DisconnectNotify is sent by a PAC. The RFC puts the PAC's own Call ID here;
// some servers put the client's.
type DisconnectNotify struct {
	CallID            uint16
	Result, ErrorCode uint8
	Cause, Reserved1  uint16
	Statistics        [128]byte
}

// WANError is sent by a PAC; PeerCallID is the PNS's.
type WANError struct {
	PeerCallID, Reserved1                                         uint16
	CRC, Framing, HardwareOverrun, BufferOverrun, Timeouts, Align uint32
}

// SetLinkInfo is sent by a PNS; PeerCallID is the PAC's.
type SetLinkInfo struct {
	PeerCallID, Reserved1 uint16
	SendACCM, ReceiveACCM uint32
}

func (*StartRequest) Type() Type        { return TypeStartRequest }
func (*StartReply) Type() Type          { return TypeStartReply }
func (*StopRequest) Type() Type         { return TypeStopRequest }
func (*StopReply) Type() Type           { return TypeStopReply }
func (*EchoRequest) Type() Type         { return TypeEchoRequest }
func (*EchoReply) Type() Type           { return TypeEchoReply }
func (*OutgoingCallRequest) Type() Type { return TypeOutgoingCallRequest }
func (*OutgoingCallReply) Type() Type   { return TypeOutgoingCallReply }
func (*IncomingCallRequest) Type() Type { return TypeIncomingCallRequest }
func (*IncomingCallReply) Type() Type   { return TypeIncomingCallReply }
func (*IncomingConnected) Type() Type   { return TypeIncomingConnected }
func (*ClearRequest) Type() Type        { return TypeClearRequest }
func (*DisconnectNotify) Type() Type    { return TypeDisconnectNotify }
func (*WANError) Type() Type            { return TypeWANError }
func (*SetLinkInfo) Type() Type         { return TypeSetLinkInfo }

// New returns an empty message of a type, or nil if the type is unknown.
func New(t Type) Message {
	switch t {
	case TypeStartRequest:
		return new(StartRequest)
	case TypeStartReply:
		return new(StartReply)
	case TypeStopRequest:
		return new(StopRequest)
	case TypeStopReply:
		return new(StopReply)
	case TypeEchoRequest:
		return new(EchoRequest)
	case TypeEchoReply:
		return new(EchoReply)
	case TypeOutgoingCallRequest:
		return new(OutgoingCallRequest)
	case TypeOutgoingCallReply:
		return new(OutgoingCallReply)
	case TypeIncomingCallRequest:
		return new(IncomingCallRequest)
	case TypeIncomingCallReply:
		return new(IncomingCallReply)
	case TypeIncomingConnected:
		return new(IncomingConnected)
	case TypeClearRequest:
		return new(ClearRequest)
	case TypeDisconnectNotify:
		return new(DisconnectNotify)
	case TypeWANError:
		return new(WANError)
	case TypeSetLinkInfo:
		return new(SetLinkInfo)
	}
	return nil
}

// Size gives the length of a message of a known type, header included.
func Size(t Type) int {
	m := New(t)
	if m == nil {
		return 0
	}
	return HeaderSize + binary.Size(m)
}

// Encode gives a message's bytes.
func Encode(m Message) []byte {
	var b bytes.Buffer
	h := header{uint16(Size(m.Type())), MessageControl, MagicCookie, m.Type(), 0}
	// Neither write can fail: a bytes.Buffer takes everything, and all
	// structures have a fixed size, which a test proves.
	_ = binary.Write(&b, binary.BigEndian, h)
	_ = binary.Write(&b, binary.BigEndian, m)
	return b.Bytes()
}

// Errors of Decode and Reader.
var (
	ErrShort  = errors.New("message is incomplete")
	ErrCookie = errors.New("wrong magic cookie")
	ErrLength = errors.New("length does not fit the message type")
	ErrType   = errors.New("unknown control message type")
)

// Decode reads the message at the start of b and says how many bytes it took.
// A peer is strict: the daemon's job is to hand on exactly what was sent, so
// whatever is odd here is a fault worth seeing.
func Decode(b []byte) (Message, int, error) {
	if len(b) < HeaderSize {
		return nil, 0, ErrShort
	}
	var h header
	_ = binary.Read(bytes.NewReader(b), binary.BigEndian, &h)
	if h.Cookie != MagicCookie {
		return nil, 0, fmt.Errorf("%w: %#x", ErrCookie, h.Cookie)
	}
	m := New(h.Type)
	if h.MessageType != MessageControl || m == nil {
		return nil, 0, fmt.Errorf("%w: %d/%d", ErrType, h.MessageType, h.Type)
	}
	if int(h.Length) != Size(h.Type) {
		return nil, 0, fmt.Errorf("%w: %v with %d bytes", ErrLength, h.Type, h.Length)
	}
	if len(b) < int(h.Length) {
		return nil, 0, ErrShort
	}
	if err := binary.Read(bytes.NewReader(b[HeaderSize:]), binary.BigEndian, m); err != nil {
		return nil, 0, fmt.Errorf("read %v: %w", h.Type, err)
	}
	return m, int(h.Length), nil
}

// CallIDs names the Call IDs in a message for printing and comparing: own is
// the sender's, peer the receiver's; nil where the message has none.
func CallIDs(m Message) (own, peer *uint16) {
	switch m := m.(type) {
	case *OutgoingCallRequest:
		return &m.CallID, nil
	case *OutgoingCallReply:
		return &m.CallID, &m.PeerCallID
	case *IncomingCallRequest:
		return &m.CallID, nil
	case *IncomingCallReply:
		return &m.CallID, &m.PeerCallID
	case *IncomingConnected:
		return nil, &m.PeerCallID
	case *ClearRequest:
		return &m.CallID, nil
	case *DisconnectNotify:
		return &m.CallID, nil
	case *WANError:
		return nil, &m.PeerCallID
	case *SetLinkInfo:
		return nil, &m.PeerCallID
	}
	return nil, nil
}

// Describe prints a message with its Call IDs on one line.
func Describe(m Message) string {
	s := m.Type().String()
	own, peer := CallIDs(m)
	if own != nil {
		s += fmt.Sprintf(" call %d", *own)
	}
	if peer != nil {
		s += fmt.Sprintf(" peer %d", *peer)
	}
	switch m := m.(type) {
	case *OutgoingCallReply:
		s += fmt.Sprintf(" result %d", m.Result)
	case *IncomingCallReply:
		s += fmt.Sprintf(" result %d", m.Result)
	}
	return s
}
