package replay

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// message describes a control message.
func (c *conn) message(side nat.Side, b []byte) Event {
	h, ok := alg.AsHeader(b)
	if !ok {
		return c.about(KindMessage, side, "a message that is no control message, %d bytes", len(b))
	}
	e := c.about(KindMessage, side, "")
	e.Message = h.Type().String()
	parts := []string{}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	own := func(id uint16) { e.CallID = c.own(&e, side, id) }
	peer := func(id uint16) { e.PeerCallID = c.peer(&e, side, id) }

	if m, ok := alg.AsStartControlConnectionRequest(b); ok {
		add("%s", name(m.HostName(), m.VendorString()))
	} else if m, ok := alg.AsStartControlConnectionReply(b); ok {
		add("%s; %s", alg.Outcome(b), name(m.HostName(), m.VendorString()))
	} else if _, ok := alg.AsStopControlConnectionRequest(b); ok {
		add("%s", alg.Outcome(b))
	} else if m, ok := alg.AsOutgoingCallRequest(b); ok {
		own(m.CallID())
	} else if m, ok := alg.AsOutgoingCallReply(b); ok {
		peer(m.PeerCallID())
		own(m.CallID())
		add("%s", alg.Outcome(b))
	} else if m, ok := alg.AsIncomingCallRequest(b); ok {
		own(m.CallID())
	} else if m, ok := incomingReply(b); ok {
		peer(m.PeerCallID())
		own(m.CallID())
		add("%s", alg.Outcome(b))
	} else if m, ok := alg.AsIncomingCallConnected(b); ok {
		peer(m.PeerCallID())
	} else if m, ok := alg.AsCallClearRequest(b); ok {
		own(m.CallID())
	} else if m, ok := alg.AsCallDisconnectNotify(b); ok {
		own(m.CallID())
		add("%s", alg.Outcome(b))
	} else if m, ok := alg.AsWANErrorNotify(b); ok {
		peer(m.PeerCallID())
	} else if m, ok := alg.AsSetLinkInfo(b); ok {
		peer(m.PeerCallID())
	} else if h.Type().Length() == 0 {
		add("of type %d, %d bytes", uint16(h.Type()), h.Length())
	}
	if e.PeerCallID != nil {
		parts = append([]string{"Peer's Call ID " + e.PeerCallID.String()}, parts...)
	}
	if e.CallID != nil {
		parts = append([]string{"Call ID " + e.CallID.String()}, parts...)
	}
	e.Text = e.Message
	if len(parts) > 0 {
		e.Text += ": " + strings.Join(parts, ", ")
	}
	return e
}

// incomingReply reads an Incoming-Call-Reply also where it says that it is longer
// than it is, see stream.header.
func incomingReply(b []byte) (alg.IncomingCallReply, bool) {
	h := alg.Header(b)
	if n := alg.IncomingCallReplyType.Length(); h.Type() == alg.IncomingCallReplyType && len(b) == n {
		binary.BigEndian.PutUint16(b, uint16(n)) // b is a copy
	}
	return alg.AsIncomingCallReply(b)
}

// name quotes the names that an end gives itself: they may hold anything.
func name(host, vendor string) string {
	switch {
	case host != "" && vendor != "":
		return strconv.QuoteToASCII(host) + ", vendor " + strconv.QuoteToASCII(vendor)
	case host != "":
		return strconv.QuoteToASCII(host)
	case vendor != "":
		return "vendor " + strconv.QuoteToASCII(vendor)
	}
	return "no name"
}

// own is the sender's own Call ID: it comes as it is, and leaves as it is told.
func (c *conn) own(e *Event, side nat.Side, id uint16) *ID {
	i := ID{id, id}
	if c.alg != nil {
		if call := c.alg.Calls().Own(side, id); call != nil {
			i.Leaves = call.End(side).Told
			e.Call = call.ID
		} else if call := c.alg.Calls().Own(side.Other(), id); call != nil && e.Message == alg.CallDisconnectNotifyType.String() {
			// Some servers send the receiver's.
			i.Arrives, e.Call = call.End(side.Other()).Told, call.ID
		}
	}
	return &i
}

// peer is the receiver's Call ID: it comes as the router told it, and leaves as
// it is in the capture.
func (c *conn) peer(e *Event, side nat.Side, id uint16) *ID {
	i := ID{id, id}
	if c.alg != nil {
		if call := c.alg.Calls().Own(side.Other(), id); call != nil {
			i.Arrives = call.End(side.Other()).Told
			e.Call = call.ID
		}
	}
	return &i
}
