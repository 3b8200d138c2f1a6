package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// Calls that the router's administrator ends: pptp-alg drop.

// drop runs the command, and returns what it says and its exit code.
func (w *world) drop(args ...string) (out string, code int) {
	w.Helper()
	cmd := exec.CommandContext(w.ctx, program(w), append([]string{"drop", "--socket", w.daemon.Socket()}, args...)...)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		w.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// number is that of a call in the status.
func (w *world) number(l leg) string {
	w.Helper()
	want := l.expect()
	for _, c := range w.daemonStatus().Calls {
		if c.Client == want.Client && c.Server == want.Server {
			return string(c.ID)
		}
	}
	w.Fatalf("status does not list %v", l.client)
	return ""
}

// told wants both ends to have been told that the call is over, each by the message
// that its end of the call is told with and with a Call ID that it knows, and that the
// control connection is, and both connections to end.
func (w *world) told(l leg, pns *peer.Call) {
	w.Helper()
	for _, c := range []*peer.Call{l.client, l.server} {
		w.check(c.WaitEnd(w.ctx))
		w.over(c.Session())
		want := "cleared by the peer"
		if c == pns {
			want = "disconnected by the peer, result 3"
		}
		if c.Ended() != want {
			w.Errorf("%v ended: %q, want %q", c, c.Ended(), want)
		}
		got := c.Session().Received()
		if last, ok := got[len(got)-1].(*wire.StopRequest); !ok || last.Reason != 1 {
			w.Errorf("%v: the last message is %s", c, wire.Describe(got[len(got)-1]))
		}
	}
}

// over waits for the end of a control connection.
func (w *world) over(s *peer.Session) {
	w.Helper()
	w.eventually("the control connection should end", func() error {
		select {
		case <-s.Done():
			return nil
		default:
			return fmt.Errorf("%v is up", s)
		}
	})
}

// Wherever the two ends are, and whichever of them placed the call, both are told in
// words that they understand, and their control connection ends. The call of another
// client with the same Call ID goes on, and the client can dial again at once.
func TestDrop(t *testing.T) {
	type scene struct {
		w       *world
		server  *peer.Node
		clients [2]*peer.Node
		dial    netip.AddrPort
	}
	const id = 9
	masqueraded := func(t *testing.T) (s scene) {
		s.w = withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{lab.Masquerade("wan"), lab.ForwardDrop(),
			lab.DropInvalid(), lab.AcceptEstablished(), lab.AcceptTCP("lan", peer.Port)}})
		s.server = s.w.server(0, peer.Config{CallID: peer.Counting(0)})
		s.dial = control(s.server)
		for i := range s.clients {
			s.clients[i] = s.w.client(i, peer.Config{CallID: peer.Fixed(id)})
		}
		return s
	}
	outgoing := func(w *world, s *peer.Session, _ *peer.Node, server *peer.Node) (leg, bool) {
		return w.up(w.call(s), server), true
	}
	for name, c := range map[string]struct {
		lab func(*testing.T) scene
		// place makes a call on a new control connection, and says whether the client
		// is its PNS.
		place func(w *world, s *peer.Session, client, server *peer.Node) (leg, bool)
	}{
		"masqueraded": {masqueraded, outgoing},
		"incoming call": {masqueraded, func(w *world, s *peer.Session, _, server *peer.Node) (leg, bool) {
			call, err := s.IncomingCall(w.ctx)
			w.must(err)
			return w.up(call, server), false
		}},
		"placed by the server": {masqueraded, func(w *world, _ *peer.Session, client, server *peer.Node) (leg, bool) {
			accepted, err := server.Accept(w.ctx)
			w.must(err)
			return w.down(w.call(accepted), client), false
		}},
		"port forwarding": {func(t *testing.T) (s scene) {
			s.w = inside(t, 1, 2, to(peer.Port, 0), lab.ForwardDrop(), lab.DropInvalid(), lab.AcceptEstablished(), lab.AcceptTCP("wan", peer.Port))
			s.server = s.w.listen(s.w.Clients[0], peer.Config{CallID: peer.Counting(0)})
			s.dial = public(lab.WANRouter)
			for i := range s.clients {
				s.clients[i] = s.w.node(s.w.Servers[i], peer.Config{CallID: peer.Fixed(id)})
			}
			return s
		}, outgoing},
		"hairpin": {func(t *testing.T) (s scene) {
			s.w = inside(t, 3, 1, to(peer.Port, 0), lab.SNATInside(netip.MustParsePrefix(lanNet), "lan"))
			s.server = s.w.listen(s.w.Clients[0], peer.Config{CallID: peer.Counting(0)})
			s.dial = public(lab.WANRouter)
			for i := range s.clients {
				s.clients[i] = s.w.node(s.w.Clients[1+i], peer.Config{CallID: peer.Fixed(id)})
			}
			return s
		}, outgoing},
		"no NAT": {func(t *testing.T) (s scene) {
			s.w = withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Routed: true, Firewall: []lab.Piece{lab.StrictForward("lan", peer.Port)}})
			s.server = s.w.listen(s.w.Servers[0], peer.Config{CallID: peer.Counting(40)})
			s.dial = public(s.w.Servers[0].Address)
			for i := range s.clients {
				s.clients[i] = s.w.node(s.w.Clients[i], peer.Config{CallID: peer.Fixed(id)})
			}
			return s
		}, outgoing},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.lab(t)
			w := s.w
			var legs [2]leg
			var fromClient bool
			for _, i := range []int{1, 0} { // the one that is dropped comes last: its Call ID is taken
				client := s.clients[i]
				legs[i], fromClient = c.place(w, w.dialTo(client, s.dial), client, s.server)
			}
			w.talkLeg(legs[:]...)
			out, code := w.drop(w.number(legs[0]))
			if code != 0 || !strings.Contains(out, "both sides were told") || strings.Count(out, "\n") != 1 {
				t.Fatalf("exit code %d: %s", code, out)
			}
			pns := legs[0].server
			if fromClient {
				pns = legs[0].client
			}
			again, _ := c.place(w, w.dialTo(s.clients[0], s.dial), s.clients[0], s.server)
			w.told(legs[0], pns)
			over := w.ended("dropped by the administrator", func(got lab.CallStatus) bool {
				return got.Client == legs[0].expect().Client && got.Server == legs[0].expect().Server
			})
			if over.Diagnosis != "" {
				t.Errorf("what was dropped has a diagnosis: %s", over.Diagnosis)
			}
			w.talkLeg(again, legs[1])
			w.listed(again, legs[1])
			if why := legs[1].client.Ended(); why != "" {
				t.Errorf("the other call ended: %s", why)
			}
			for _, name := range []string{"connections_unparsed", "messages_unknown_call_id", "streams_resynchronised"} {
				if n := string(w.daemonStatus().Counters[name]); n != "0" {
					t.Errorf("%s is %s", name, n)
				}
			}
			if !builtWithCgo(t) {
				w.check(w.privileged())
			}
			// From the very same port, when both ends have forgotten the connection.
			port := legs[0].client.Session().Local().Port()
			w.eventually("the client should dial again from its port", func() error {
				session, err := s.clients[0].ConnectFrom(w.ctx, port, s.dial)
				if err == nil {
					err = session.Start(w.ctx)
				}
				if err == nil {
					err = session.Stop(w.ctx)
				}
				return err
			})
			w.hangUp(again, legs[1])
			w.finish()
		})
	}
}

// Of several calls of a control connection one cannot be ended alone; a client's are
// ended together, on all its connections; and a refusal leaves everything as it was.
func TestDropSeveral(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(100)})
	client := w.client(0, peer.Config{CallID: peer.Counting(5)})
	session := w.dial(client, server)
	legs := []leg{w.up(w.call(session), server), w.up(w.call(session), server)}
	alone := w.up(w.dialAndCall(client, server), server)
	other := w.up(w.dialAndCall(w.client(1, peer.Config{CallID: peer.Counting(5)}), server), server)
	own := w.up(w.dialAndCall(w.node(router(w, lab.WANRouter), peer.Config{CallID: peer.Fixed(7)}), server), server)
	w.talkLeg(legs...)
	w.talkLeg(alone, other, own)
	for words, args := range map[string][]string{
		"give --connection":         {w.number(legs[0])},
		"there is no call 4711":     {"4711"},
		"client 192.0.2.77 has no":  {"192.0.2.77"},
		"a program on this router;": {w.number(own)},
	} {
		if out, code := w.drop(args...); code != exitFailure || !strings.Contains(out, words) {
			t.Errorf("%v: exit code %d: %s", args, code, out)
		}
	}
	w.talkLeg(legs...)
	w.talkLeg(alone, other, own)
	w.check(session.Ping(w.ctx), own.client.Session().Ping(w.ctx))
	if out, code := w.drop(w.number(legs[0]), "--connection"); code != 0 || !strings.Contains(out, "dropped calls ") {
		t.Errorf("exit code %d: %s", code, out)
	}
	for _, l := range legs {
		w.told(l, l.client)
	}
	w.talkLeg(alone, other, own)
	w.check(alone.client.Session().Ping(w.ctx))
	third := w.up(w.dialAndCall(client, server), server)
	if out, code := w.drop(client.Address().String()); code != 0 || strings.Count(out, "\n") != 2 {
		t.Errorf("exit code %d: %s", code, out)
	}
	w.told(alone, alone.client)
	w.told(third, third.client)
	w.talkLeg(other, own)
	w.listed(other, own)
	w.hangUp(other, own)
	w.finish()
}

// A side that is in the middle of a message gets no words that it would misread: it is
// reset; the other one is told.
func TestDropInTheMiddleOfAMessage(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1})
	server := w.server(0, peer.Config{})
	call := w.up(w.dialAndCall(w.client(0, peer.Config{}), server), server)
	w.talkLeg(call)
	echo := wire.Encode(&wire.EchoRequest{Identifier: 7})
	w.must(call.client.Session().SendBytes(echo[:10]))
	w.eventually("the server should have half a message", func() error {
		if !bytes.HasSuffix(call.server.Session().Read(), echo[:10]) {
			return fmt.Errorf("it has %x", call.server.Session().Read())
		}
		return nil
	})
	out, code := w.drop(w.number(call))
	if code != 0 || !strings.Contains(out, "the client was told, the other side got a reset") {
		t.Errorf("exit code %d: %s", code, out)
	}
	w.check(call.client.WaitEnd(w.ctx), call.server.WaitEnd(w.ctx))
	w.over(call.server.Session())
	if !bytes.HasSuffix(call.server.Session().Read(), echo[:10]) {
		t.Errorf("the server got more: %x", call.server.Session().Read())
	}
	if why := call.client.Ended(); !strings.HasPrefix(why, "disconnected by the peer") {
		t.Errorf("the client's call ended: %q", why)
	}
	w.finish()
}
