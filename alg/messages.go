package alg

import (
	"errors"
	"fmt"
	"time"

	"pptp-alg/nat"
)

// message acts upon a message whose needed bytes have all come.
func (c *Connection) message(now time.Time, d *direction) {
	c.alg.Counters.Messages++
	b, f, from := d.head[:], &d.fields, d.side
	switch d.kind {
	case StartControlConnectionReplyType:
		code, err := b[offStartReplyResultCode], b[offStartReplyErrorCode]
		if code == resultOK {
			c.State = Established
		} else {
			c.State = Refused
			c.because(fmt.Sprintf("%v refused the control connection: %s", from, startResult(code, err)))
		}
	case StopControlConnectionRequestType:
		c.State = Stopping
		c.because(fmt.Sprintf("%v stopped the control connection: %s", from, stopReason(b[offStopRequestReason])))
		c.calls.EndAll(now, c.Reason)

	case OutgoingCallReplyType, IncomingCallReplyType:
		c.answer(now, d, b[d.layout.result], b[d.layout.result+1])
	case IncomingCallConnectedType:
		if f.call != nil {
			c.calls.Up(now, f.call)
		}

	case CallClearRequestType:
		if f.call != nil {
			c.calls.Clear(now, f.call, fmt.Sprintf("cleared by the %v", from))
		}
	case CallDisconnectNotifyType:
		if f.call != nil {
			reason := fmt.Sprintf("disconnected by the %v: %s", from, disconnectResult(b[offDisconnectResultCode], b[offDisconnectErrorCode]))
			if f.call.State == nat.Clearing {
				reason = fmt.Sprintf("cleared by the %v", from.Other())
			}
			c.calls.End(now, f.call, reason)
		}
	}
}

var errNoMapping = errors.New("its Call ID was not mapped")

// answer completes a call, or ends it.
func (c *Connection) answer(now time.Time, d *direction, result, code byte) {
	f := &d.fields
	call, m := f.call, f.mapping
	f.mapping = nil
	switch {
	case call == nil || result == resultOK && !call.Live():
		if m != nil {
			c.calls.Discard(now, m)
		}
	case result != resultOK:
		if m != nil {
			c.calls.Discard(now, m)
		}
		words := outgoingResult(result, code)
		if d.kind == IncomingCallReplyType {
			words = incomingResult(result, code)
		}
		c.calls.End(now, call, fmt.Sprintf("%v refused the call: %s", d.side, words))
	case call.Refused:
		if m != nil {
			c.calls.Discard(now, m)
		}
		c.calls.End(now, call, call.Reason)
	case m == nil:
		err := f.err
		if err == nil {
			err = errNoMapping
		}
		c.calls.Refuse(now, call, err)
	default:
		c.calls.Answer(now, call, m)
	}
}
