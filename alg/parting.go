package alg

import (
	"errors"
	"time"

	"pptp-alg/nat"
)

// Codes with which a connection is ended from here (RFC 2637, sections 2.3 and
// 2.13).
const (
	stopGeneral             = 1
	disconnectAdministrator = 3
)

// maxPartingCalls bounds how many calls are named one by one, so that a parting
// fits into what TCP sends at once. The last message ends all of them anyway.
const maxPartingCalls = 16

// Parting is what one side is told when the connection is ended from here: bytes
// that the other side could have sent next.
type Parting struct {
	Seq, Ack uint32 // of the first byte, as if the other side sent it
	// Message is Call-Clear-Request or Call-Disconnect-Notify for each call, and
	// Stop-Control-Connection-Request. It is empty where a message would be
	// misread: the receiver is in the middle of another one, or it is not
	// known whether it is, or its stream is over. Then a reset has to say it.
	Message []byte
}

// ErrUnseen says that one side's place in its stream is not known: it has said
// nothing since we look.
var ErrUnseen = errors.New("nothing was heard yet of one of its ends")

// Parting returns what the side is to be told. It changes nothing.
func (c *Connection) Parting(to nat.Side) (Parting, error) {
	d, back := &c.dirs[to.Other()], &c.dirs[to]
	if !d.started || !back.started {
		return Parting{}, ErrUnseen
	}
	p := Parting{Seq: d.next, Ack: back.next}
	if d.fin || d.mode != parsing || d.n > 0 || d.excess > 0 {
		return p, nil
	}
	named := 0
	c.calls.Each(func(call *nat.Call) {
		m := call.End(to.Other())
		if m == nil || call.Refused || named == maxPartingCalls {
			return
		}
		named++
		p.Message = append(p.Message, clearing(call, m)...)
	})
	p.Message = append(p.Message, newMessage(StopControlConnectionRequestType)...)
	p.Message[len(p.Message)-sizeStopRequest+offStopRequestReason] = stopGeneral
	return p, nil
}

// clearing is the message with which the side that owns the mapping ends a call.
// A PNS asks, a PAC notifies; either names its own Call ID, which the receiver
// knows in its told form.
func clearing(call *nat.Call, m *nat.Mapping) []byte {
	pns := call.Initiator
	if call.Direction == nat.Incoming {
		pns = call.Initiator.Other()
	}
	if m.Side == pns {
		b := newMessage(CallClearRequestType)
		put16(b[offClearRequestCallID:], m.Told)
		return b
	}
	b := newMessage(CallDisconnectNotifyType)
	put16(b[offDisconnectCallID:], m.Told)
	b[offDisconnectResultCode] = disconnectAdministrator
	return b
}

// newMessage returns a message with its header and nothing else.
func newMessage(t MessageType) []byte {
	b := make([]byte, t.Length())
	put16(b[offLength:], uint16(len(b)))
	put16(b[offKind:], kindControl)
	put32(b[offMagicCookie:], magicCookie)
	put16(b[offMessageType:], uint16(t))
	return b
}

// Abort ends the connection and its calls. It stays known for a while, so that
// what its ends still send is not taken for another connection; what waited is
// dropped.
func (c *Connection) Abort(now time.Time, reason string) {
	c.close(now, reason)
	for i := range c.dirs {
		c.dirs[i].abandon(Drop)
	}
}
