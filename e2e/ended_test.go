package e2e

import (
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// The record of calls that ended or failed, with a reason in words.

// A server that refuses, in every way that RFC 2637 section 2.8 has for it.
func TestRecordOfRefusedCalls(t *testing.T) {
	answers := []struct {
		answer peer.Answer
		words  string
	}{
		{peer.Answer{Result: wire.ResultError, ErrorCode: wire.ErrorNoResource}, "server refused the call: no resources (error 4), result 2"},
		{peer.Answer{Result: wire.ResultNoCarrier}, "server refused the call: no carrier (result 3)"},
		{peer.Answer{Result: wire.ResultBusy}, "server refused the call: busy (result 4)"},
		{peer.Answer{Result: 5}, "server refused the call: no dial tone (result 5)"},
		{peer.Answer{Result: 6}, "server refused the call: timed out (result 6)"},
		{peer.Answer{Result: 7}, "server refused the call: not accepted (result 7)"},
		{peer.Answer{Result: 77}, "server refused the call: result 77"},
	}
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	next := 0
	server := w.server(0, peer.Config{Answer: func(wire.Message) peer.Answer {
		next++
		if next > 1 && next <= len(answers)+1 {
			return answers[next-2].answer
		}
		return peer.Answer{Result: wire.ResultConnected}
	}})
	bystander := w.up(w.dialAndCall(w.client(1, peer.Config{}), server), server)
	session := w.dial(w.client(0, peer.Config{CallID: peer.Counting(50)}), server)
	for i, a := range answers {
		if _, err := session.OutgoingCall(w.ctx); err == nil {
			t.Errorf("%s: the call came up", a.words)
		}
		c := w.ended(a.words, from(w.Clients[0].Address, uint16(50+i)))
		if c.Server.Address != server.Address() {
			t.Errorf("%s: of server %v", a.words, c.Server.Address)
		}
	}
	l := w.up(w.call(session), server)
	w.talkLeg(l, bystander)
	w.listed(l, bystander)
	w.finish()
}

// A server that never answers, and a client that never says Incoming-Call-Connected.
func TestRecordOfUnansweredCalls(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 2})
	w.start(quickConfig + "half_open = \"1s\"\n")
	deaf := w.server(0, peer.Config{Answer: func(wire.Message) peer.Answer { return peer.Answer{Silent: true} }})
	server := w.server(1, peer.Config{})
	client := w.client(0, peer.Config{CallID: peer.Counting(5)})
	session := w.dial(client, deaf)
	_, err := session.PlaceOutgoing()
	w.must(err)
	w.ended("no answer to Outgoing-Call-Request from the server", from(client.Address(), 5))
	w.must(session.Send(&wire.IncomingCallRequest{CallID: 77}))
	w.ended("no answer to Incoming-Call-Request from the server", from(client.Address(), 77))
	// Announced and answered, but not connected.
	other := w.dial(client, server)
	w.must(other.Send(&wire.IncomingCallRequest{CallID: 78, DialedLength: 1, Dialed: wire.MakeText("1")}))
	w.ended("no Incoming-Call-Connected from the client", from(client.Address(), 78))
	l := w.up(w.call(other), server)
	w.talkLeg(l)
	w.listed(l)
	for _, n := range []*peer.Node{deaf, server} {
		for _, f := range n.Faults() {
			t.Error(f)
		}
	}
	w.closeWithout(client)
}

// closeWithout ends a scenario in which a node got answers that it could not
// expect, as its requests were written by hand.
func (w *world) closeWithout(n *peer.Node) {
	w.Helper()
	w.must(n.Close())
	for i, x := range w.nodes {
		if x == n {
			w.nodes = append(w.nodes[:i], w.nodes[i+1:]...)
			break
		}
	}
	w.finish()
}

// Ways in which calls that were up end.
func TestRecordOfEndedCalls(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(*world, leg)
		words string
	}{
		"client clears":      {func(w *world, l leg) { w.check(l.client.HangUp(w.ctx)) }, "cleared by the client"},
		"server disconnects": {func(w *world, l leg) { w.check(l.server.HangUp(w.ctx)) }, "disconnected by the server: disconnected by its administrator (result 3)"},
		"client stops":       {func(w *world, l leg) { w.check(l.client.Session().Stop(w.ctx)) }, "client stopped the control connection: general request (reason 1)"},
		"server stops":       {func(w *world, l leg) { w.check(l.server.Session().Stop(w.ctx)) }, "server stopped the control connection: general request (reason 1)"},
		"client closes":      {func(w *world, l leg) { l.client.Session().Close() }, "control connection closed by the client"},
		"server closes":      {func(w *world, l leg) { l.server.Session().Close() }, "control connection closed by the server"},
		"client resets":      {func(w *world, l leg) { l.client.Session().Abort() }, "control connection reset by the client"},
		"server resets":      {func(w *world, l leg) { l.server.Session().Abort() }, "control connection reset by the server"},
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			server := w.server(0, peer.Config{CallID: peer.Counting(70)})
			var legs []leg
			for i := range 2 {
				legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(6)}), server), server))
			}
			w.talkLeg(legs...)
			c.end(w, legs[0])
			got := w.ended(c.words, from(w.Clients[0].Address, 6))
			if want := legs[0].expect(); got.Client != want.Client || got.Server != want.Server {
				t.Errorf("the record says client %v, server %v instead of client %v, server %v", got.Client, got.Server, want.Client, want.Server)
			}
			if got.PacketsFromClient < 6 || got.PacketsFromServer < 6 {
				t.Errorf("the record counts %d and %d packets", got.PacketsFromClient, got.PacketsFromServer)
			}
			w.talkLeg(legs[1])
			w.listed(legs[1])
			w.finish()
		})
	}
}

// Only so many ended calls are kept, the last ones.
func TestRecordIsBounded(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 1})
	w.start("remember = 3\n" + quickConfig)
	server := w.server(0, peer.Config{})
	session := w.dial(w.client(0, peer.Config{CallID: peer.Counting(1)}), server)
	for range 5 {
		w.check(w.call(session).HangUp(w.ctx))
	}
	w.ended("cleared by the client", from(w.Clients[0].Address, 5))
	s := w.daemonStatus()
	if len(s.Ended) != 3 || s.Ended[0].Client.CallID != 5 || s.Ended[2].Client.CallID != 3 {
		t.Errorf("kept are%s", sides(s.Ended))
	}
	w.finish()
}
