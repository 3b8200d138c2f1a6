package peer

import (
	"fmt"
	"strconv"
	"time"

	"pptp-alg/e2e/wire"
)

// handle does what the other side's message asks for. It runs on the session's
// reader, before anybody in Wait sees the message. It says whether the
// connection is over.
func (s *Session) handle(m wire.Message) (stop bool) {
	switch m := m.(type) {
	case *wire.StartRequest:
		s.reply(&wire.StartReply{ProtocolVersion: wire.Version, Result: wire.StartOK, Framing: 3, Bearer: 3, MaximumChannels: 65535,
			FirmwareRevision: 1, HostName: wire.MakeText(s.node.cfg.Name), Vendor: wire.MakeText("pptp-lab")})
		s.node.mu.Lock()
		s.node.accepted = append(s.node.accepted, s)
		s.node.announce()
		s.node.mu.Unlock()
	case *wire.EchoRequest:
		s.reply(&wire.EchoReply{Identifier: m.Identifier, Result: wire.EchoOK})
	case *wire.StopRequest:
		s.setStopping()
		s.reply(&wire.StopReply{Result: wire.StopOK})
		s.endCalls("peer stopped the control connection")
		return true
	case *wire.OutgoingCallRequest:
		s.answer(m, m.CallID, false, m.PhoneNumber)
	case *wire.IncomingCallRequest:
		s.answer(m, m.CallID, true, m.Dialed)
	case *wire.OutgoingCallReply:
		s.requested(m.PeerCallID, m)
	case *wire.IncomingCallReply:
		s.requested(m.PeerCallID, m)
	case *wire.IncomingConnected:
		if c := s.mine(m.PeerCallID); c == nil {
			s.unknown(m)
		} else {
			c.completed(m.ReceiveWindow)
		}
	case *wire.SetLinkInfo:
		s.counted(m, m.PeerCallID, func(st *Stats) { st.SetLinkInfo++ })
	case *wire.WANError:
		s.counted(m, m.PeerCallID, func(st *Stats) { st.WAN++ })
	case *wire.ClearRequest:
		if c := s.theirs(m.CallID); c == nil {
			if !s.crossed(m.CallID) {
				s.unknown(m)
			}
		} else {
			c.end("cleared by the peer")
			s.reply(s.disconnect(c, wire.DisconnectRequest))
		}
	case *wire.DisconnectNotify:
		// The sender's own Call ID by RFC 2637 section 2.13, ours with others.
		c := s.theirs(m.CallID)
		if c == nil {
			c = s.mine(m.CallID)
		}
		if c == nil {
			s.unknown(m)
		} else {
			c.end(fmt.Sprintf("disconnected by the peer, result %d", m.Result))
		}
	}
	return false
}

func (s *Session) reply(m wire.Message) {
	if err := s.Send(m); err != nil {
		s.node.cfg.Log("%v", err)
	}
}

func (s *Session) unknown(m wire.Message) {
	s.node.fault("%v: %s is about no call of this connection", s, wire.Describe(m))
}

// mine finds a living call by this side's Call ID, theirs by the other side's.
func (s *Session) mine(id uint16) *Call {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return s.own[id]
}

func (s *Session) theirs(id uint16) *Call {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return s.peers[id]
}

// crossed says whether this side has just disconnected a call that the other
// side wants cleared: the two messages met on the way.
func (s *Session) crossed(id uint16) bool {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	for _, c := range s.node.calls {
		if c.session == s && c.peerID == id && c.ended == disconnectedHere {
			return true
		}
	}
	return false
}

func (s *Session) counted(m wire.Message, id uint16, count func(*Stats)) {
	c := s.mine(id)
	if c == nil {
		s.unknown(m)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	count(&c.stats)
}

// answer answers the other side's call request. The token stands in the
// telephone number; a foreign peer has another number there, or none.
func (s *Session) answer(m wire.Message, peerID uint16, pns bool, number wire.Text) {
	a := s.node.cfg.Answer(m)
	if a.Silent {
		return
	}
	token, _ := strconv.ParseUint(number.String(), 16, 64)
	var c *Call
	id := uint16(0)
	if a.Result == wire.ResultConnected {
		var err error
		if c, err = s.newCall(false, pns, token); err != nil {
			s.node.fault("%v: %s: %v", s, wire.Describe(m), err)
			a = Answer{Result: wire.ResultError, ErrorCode: wire.ErrorNoResource}
		} else {
			id = c.id
			c.connected(peerID)
			if m, ok := m.(*wire.OutgoingCallRequest); ok {
				c.completed(m.ReceiveWindow)
			}
		}
	}
	var reply wire.Message = &wire.OutgoingCallReply{CallID: id, PeerCallID: peerID, Result: a.Result, ErrorCode: a.ErrorCode,
		ConnectSpeed: 10_000_000, ReceiveWindow: s.node.cfg.ReceiveWindow, PhysicalChannel: uint32(id)}
	if pns {
		reply = &wire.IncomingCallReply{CallID: id, PeerCallID: peerID, Result: a.Result, ErrorCode: a.ErrorCode,
			ReceiveWindow: s.node.cfg.ReceiveWindow}
	}
	if s.node.cfg.Gather > 1 {
		if s.gathered = append(s.gathered, reply); len(s.gathered) == s.node.cfg.Gather {
			if err := s.Send(s.gathered...); err != nil {
				s.node.cfg.Log("%v", err)
			}
			s.gathered = nil
		}
		return
	}
	if a.Delay > 0 { // the reader must not sleep: echoes go on meanwhile
		s.node.wg.Add(1)
		go func() {
			defer s.node.wg.Done()
			select {
			case <-time.After(a.Delay):
				s.reply(reply)
			case <-s.node.ctx.Done():
			}
		}()
		return
	}
	s.reply(reply)
}

// requested notes the answer to a request of this side.
func (s *Session) requested(id uint16, m wire.Message) {
	c := s.mine(id)
	if c == nil {
		s.unknown(m)
		return
	}
	own, window, refused := uint16(0), uint16(0), RefusedError{}
	switch m := m.(type) {
	case *wire.OutgoingCallReply:
		own, window, refused = m.CallID, m.ReceiveWindow, RefusedError{m.Result, m.ErrorCode}
	case *wire.IncomingCallReply:
		own, window, refused = m.CallID, m.ReceiveWindow, RefusedError{m.Result, m.ErrorCode}
	}
	if refused.Result != wire.ResultConnected {
		s.node.mu.Lock()
		c.refused = &refused
		s.node.mu.Unlock()
		c.end(refused.Error())
		return
	}
	if !c.connected(own) {
		s.node.fault("%v: %s came a second time", s, wire.Describe(m))
	}
	c.completed(window)
}

func (s *Session) disconnect(c *Call, result uint8) *wire.DisconnectNotify {
	id := c.id
	if s.node.cfg.DisconnectPeerID {
		id = c.PeerID()
	}
	return &wire.DisconnectNotify{CallID: id, Result: result}
}
