package peer

import (
	"context"
	"fmt"

	"pptp-alg/e2e/wire"
)

// RefusedError is a call that the other side did not want.
type RefusedError struct{ Result, ErrorCode uint8 }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("call refused: result %d, error %d", e.Result, e.ErrorCode)
}

// PlaceOutgoing sends an Outgoing-Call-Request and does not wait: this side is
// the PNS. The call is up when the reply has come, see Call.WaitUp.
func (s *Session) PlaceOutgoing() (*Call, error) {
	c, m, err := s.prepareOutgoing()
	if err != nil {
		return nil, err
	}
	return c, s.Send(m)
}

// prepareOutgoing registers a call and gives the request that places it.
func (s *Session) prepareOutgoing() (*Call, *wire.OutgoingCallRequest, error) {
	c, err := s.newCall(true, true, newToken())
	if err != nil {
		return nil, nil, fmt.Errorf("%v: place call: %w", s, err)
	}
	number := fmt.Sprintf("%016x", c.token)
	return c, &wire.OutgoingCallRequest{CallID: c.id, SerialNumber: 1, MinimumBPS: 300, MaximumBPS: 100_000_000, Bearer: 3, Framing: 3,
		ReceiveWindow: s.node.cfg.ReceiveWindow, PhoneLength: uint16(len(number)), PhoneNumber: wire.MakeText(number)}, nil
}

// PlaceOutgoingTogether places several calls with all requests in one write.
func (s *Session) PlaceOutgoingTogether(count int) ([]*Call, error) {
	var calls []*Call
	var messages []wire.Message
	for range count {
		c, m, err := s.prepareOutgoing()
		if err != nil {
			return nil, err
		}
		calls, messages = append(calls, c), append(messages, m)
	}
	return calls, s.Send(messages...)
}

// OutgoingCall places a call as the PNS and waits until it is up.
func (s *Session) OutgoingCall(ctx context.Context) (*Call, error) {
	c, err := s.PlaceOutgoing()
	if err != nil {
		return nil, err
	}
	return c, c.WaitUp(ctx)
}

// StartAndCall sends Start-Control-Connection-Request and the first
// Outgoing-Call-Request in one write, without waiting for the reply to the
// first, and waits for the call.
func (s *Session) StartAndCall(ctx context.Context) (*Call, error) {
	c, m, err := s.prepareOutgoing()
	if err != nil {
		return nil, err
	}
	if err := s.Send(s.node.startRequest(), m); err != nil {
		return nil, err
	}
	return c, c.WaitUp(ctx)
}

// WaitUp waits until a placed call is up or refused.
func (c *Call) WaitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.node.cfg.Timeout)
	defer cancel()
	select {
	case <-c.answered:
	case <-c.done: // refused, or the connection ended
	case <-ctx.Done():
		c.end("no answer")
		return fmt.Errorf("%v: no answer to the call request (last received: %s): %w", c, c.session.lastReceived(), ctx.Err())
	}
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	switch {
	case c.refused != nil:
		return c.refused
	case !c.up:
		return fmt.Errorf("%s: place call %d: %s", c.node.cfg.Name, c.id, c.ended)
	}
	return nil
}

// IncomingCall announces a call as the PAC: Incoming-Call-Request, the reply,
// Incoming-Call-Connected.
func (s *Session) IncomingCall(ctx context.Context) (*Call, error) {
	c, err := s.newCall(true, false, newToken())
	if err != nil {
		return nil, fmt.Errorf("%v: announce call: %w", s, err)
	}
	number := fmt.Sprintf("%016x", c.token)
	err = s.Send(&wire.IncomingCallRequest{CallID: c.id, SerialNumber: 1, Bearer: 1, PhysicalChannel: uint32(c.id),
		DialedLength: uint16(len(number)), Dialed: wire.MakeText(number)})
	if err != nil {
		return nil, err
	}
	if err := c.WaitUp(ctx); err != nil {
		return c, err
	}
	return c, s.Send(&wire.IncomingConnected{PeerCallID: c.PeerID(), ConnectSpeed: 64_000, ReceiveWindow: s.node.cfg.ReceiveWindow, Framing: 1})
}

const disconnectedHere = "disconnected here"

// HangUp ends the call in order and waits until that is done: as the PNS with
// Call-Clear-Request and the notification that answers it, as the PAC with
// Call-Disconnect-Notify, which nobody answers.
func (c *Call) HangUp(ctx context.Context) error {
	if !c.pns {
		c.end(disconnectedHere)
		return c.session.Send(c.session.disconnect(c, wire.DisconnectAdmin))
	}
	if err := c.session.Send(&wire.ClearRequest{CallID: c.id}); err != nil {
		return err
	}
	return c.WaitEnd(ctx)
}

// SetLinkInfo sends Set-Link-Info about the call, as a PNS does.
func (c *Call) SetLinkInfo() error {
	return c.session.Send(&wire.SetLinkInfo{PeerCallID: c.PeerID(), SendACCM: 0xffffffff, ReceiveACCM: 0xffffffff})
}

// WANError sends WAN-Error-Notify about the call, as a PAC does.
func (c *Call) WANError() error {
	return c.session.Send(&wire.WANError{PeerCallID: c.PeerID(), CRC: 1})
}
