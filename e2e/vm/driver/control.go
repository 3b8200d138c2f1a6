package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"pptp-alg/e2e/wire"
)

// control is the control connection, with one call on it.
type control struct {
	conn net.Conn
	r    *wire.Reader
}

// errCleared says that the server has ended the call or the connection.
var errCleared = errors.New("the server has hung up")

func (c *control) send(m wire.Message) error {
	_, err := c.conn.Write(wire.Encode(m))
	return err
}

// call opens the connection and places a call; it gives the server's Call ID.
func (c *control) call(id uint16) (peer uint16, err error) {
	if err := c.send(&wire.StartRequest{ProtocolVersion: wire.Version, Framing: 3, Bearer: 3, HostName: wire.MakeText("driver")}); err != nil {
		return 0, err
	}
	for {
		m, err := c.r.Next()
		if err != nil {
			return 0, fmt.Errorf("place a call: %w", err)
		}
		switch m := m.(type) {
		case *wire.StartReply:
			if m.Result != wire.StartOK {
				return 0, fmt.Errorf("place a call: the control connection was refused, result %d", m.Result)
			}
			err = c.send(&wire.OutgoingCallRequest{CallID: id, MinimumBPS: 2400, MaximumBPS: 10e6, Bearer: 3, Framing: 3, ReceiveWindow: 64})
		case *wire.OutgoingCallReply:
			if m.Result != wire.ResultConnected || m.PeerCallID != id {
				return 0, fmt.Errorf("place a call: refused, result %d, for Call ID %d", m.Result, m.PeerCallID)
			}
			return m.CallID, nil
		case *wire.EchoRequest:
			err = c.send(&wire.EchoReply{Identifier: m.Identifier, Result: wire.EchoOK})
		}
		if err != nil {
			return 0, err
		}
	}
}

// listen answers keepalives until the server hangs up.
func (c *control) listen() error {
	for {
		m, err := c.r.Next()
		if err != nil {
			return fmt.Errorf("control connection: %w", err)
		}
		switch m := m.(type) {
		case *wire.EchoRequest:
			if err := c.send(&wire.EchoReply{Identifier: m.Identifier, Result: wire.EchoOK}); err != nil {
				return err
			}
		case *wire.DisconnectNotify, *wire.StopRequest:
			return errCleared
		}
	}
}

// clear ends the call. The answer (Call-Disconnect-Notify) goes to listen; what
// is still to come then is the end of the connection.
func (c *control) clear(id uint16) {
	_ = c.conn.SetDeadline(time.Now().Add(leaving))
	_ = c.send(&wire.ClearRequest{CallID: id})
	_ = c.send(&wire.StopRequest{Reason: 1})
	if t, ok := c.conn.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	b := make([]byte, 512)
	for {
		if _, err := c.conn.Read(b); err != nil {
			return
		}
	}
}
