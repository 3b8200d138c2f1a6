package e2e

import (
	"fmt"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// crowded makes a lab in which one client already has a call with the Call ID
// that every other client will use: so nobody else's ID can stay what it is,
// and an untranslated message cannot pass for a translated one. The high and
// the low byte of the ID differ.
func crowded(t *testing.T, clients int, server peer.Config) (*world, *peer.Node) {
	t.Helper()
	w := withDaemon(t, lab.Plan{Clients: clients + 1, Servers: 1, Shared: true})
	s := w.server(0, server)
	w.dialAndCall(w.client(clients, peer.Config{CallID: peer.Fixed(crowdedID)}), s)
	_, err := s.Accept(w.ctx)
	w.must(err)
	return w, s
}

const crowdedID = 0xa55a

// held is how long a peer waits for the acknowledgement of a piece before it
// sends the next: a daemon that needs more bytes may keep a piece to itself.
const held = 100 * time.Millisecond

// cuts gives the positions to cut a message at: every one, or with -short those
// around the fields that matter.
func cuts(t wire.Type) []int {
	var all []int
	for i := 1; i < wire.Size(t); i++ {
		if !testing.Short() || i == 1 || i >= 9 && i <= 17 || i == wire.Size(t)-1 {
			all = append(all, i)
		}
	}
	return all
}

// An Outgoing-Call-Request cut in two at every position.
func TestCutRequest(t *testing.T) {
	w, server := crowded(t, 1, peer.Config{CallID: peer.Counting(0x1234)})
	client := w.client(0, peer.Config{CallID: peer.Fixed(crowdedID)})
	session := w.dial(client, server)
	accepted, err := server.Accept(w.ctx)
	w.must(err)
	for _, at := range cuts(wire.TypeOutgoingCallRequest) {
		session.SetSegments(peer.Segments{Cuts: peer.CutAt(at), Pause: held})
		w.cutCall(fmt.Sprintf("request cut at %d", at), session, server)
	}
	w.check(peer.CompareStreams(session.Sent(), accepted.Read(), false), peer.CompareStreams(accepted.Sent(), session.Read(), false))
	w.finish()
}

// An Outgoing-Call-Reply cut in two at every position.
func TestCutReply(t *testing.T) {
	w, server := crowded(t, 1, peer.Config{CallID: peer.Counting(0x1234)})
	session := w.dial(w.client(0, peer.Config{CallID: peer.Fixed(crowdedID)}), server)
	accepted, err := server.Accept(w.ctx)
	w.must(err)
	for _, at := range cuts(wire.TypeOutgoingCallReply) {
		accepted.SetSegments(peer.Segments{Cuts: peer.CutAt(at), Pause: held})
		w.cutCall(fmt.Sprintf("reply cut at %d", at), session, server)
	}
	w.check(peer.CompareStreams(session.Sent(), accepted.Read(), false), peer.CompareStreams(accepted.Sent(), session.Read(), false))
	w.finish()
}

// cutCall places a call, sends GRE both ways and hangs up.
func (w *world) cutCall(name string, session *peer.Session, server *peer.Node) {
	w.Helper()
	call, err := session.OutgoingCall(w.ctx)
	if err != nil {
		w.Fatalf("%s: %v", name, err)
	}
	far := w.far(call, server)
	if id := far.PeerID(); id == 0 || id == crowdedID {
		w.Errorf("%s: the server was told the Call ID %#x", name, id)
	}
	for _, err := range []error{call.Echo(w.ctx, 1, 64), far.Echo(w.ctx, 1, 64), call.HangUp(w.ctx)} {
		if err != nil {
			w.Fatalf("%s: %v", name, err)
		}
	}
}

// Streams in small pieces in both directions, with and without pauses.
func TestSmallPieces(t *testing.T) {
	for _, size := range []int{1, 2, 3, 7, 13} {
		for _, pause := range []time.Duration{0, held} {
			if size == 1 && pause > 0 && testing.Short() {
				continue
			}
			t.Run(fmt.Sprintf("%d bytes, pause %v", size, pause), func(t *testing.T) {
				segments := peer.Segments{Cuts: peer.CutEvery(size), Pause: pause}
				w, server := crowded(t, 1, peer.Config{Segments: segments})
				session := w.dial(w.client(0, peer.Config{CallID: peer.Fixed(crowdedID), Segments: segments}), server)
				accepted, err := server.Accept(w.ctx)
				w.must(err)
				for range 2 {
					w.cutCall("small pieces", session, server)
				}
				w.check(session.Stop(w.ctx))
				<-accepted.Done()
				w.check(peer.CompareStreams(session.Sent(), accepted.Read(), false), peer.CompareStreams(accepted.Sent(), session.Read(), false))
				w.finish()
			})
		}
	}
}

// The start request and the first call request in one segment.
func TestStartAndCallTogether(t *testing.T) {
	w, server := crowded(t, 1, peer.Config{CallID: peer.Counting(0x1234)})
	client := w.client(0, peer.Config{CallID: peer.Fixed(crowdedID)})
	session, err := client.Connect(w.ctx, control(server))
	w.must(err)
	call, err := session.StartAndCall(w.ctx)
	w.must(err)
	if id := w.far(call, server).PeerID(); id == crowdedID {
		t.Errorf("the server was told %#x, which is another client's", id)
	}
	w.talk(call, server)
	w.finish()
}

// Three requests in one segment and three replies in another, whole and cut in
// the middle of the second message.
func TestMessagesTogether(t *testing.T) {
	for name, at := range map[string][]int{"whole": nil, "cut": {180}, "cut at the messages' ends": {32, 168}} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			segments := peer.Segments{Cuts: peer.CutAt(at...), Pause: held}
			server := w.server(0, peer.Config{CallID: peer.Counting(0x1234), Gather: 3, Segments: segments})
			capture, err := w.Router.CaptureIf(func(p *lab.Packet) bool { return len(p.Control) == 3 }, "lan", "wan")
			w.must(err)
			var all []*peer.Call
			var sessions []*peer.Session
			for i := range 2 {
				session := w.dial(w.client(i, peer.Config{CallID: peer.Counting(crowdedID), Segments: segments}), server)
				calls, err := session.PlaceOutgoingTogether(3)
				w.must(err)
				for _, c := range calls {
					w.must(c.WaitUp(w.ctx))
				}
				all, sessions = append(all, calls...), append(sessions, session)
			}
			w.distinct(all, server)
			for _, c := range all {
				w.talk(c, server)
			}
			if at == nil {
				// Two requests and two replies, each seen on both sides.
				for _, p := range capture.Packets() {
					t.Log(p)
				}
				if n := len(capture.Packets()); n != 8 {
					t.Errorf("%d segments had three messages instead of 8", n)
				}
			}
			for range sessions {
				accepted, err := server.Accept(w.ctx)
				w.must(err)
				for _, s := range sessions {
					if s.Local().Port() == accepted.Remote().Port() { // masquerading keeps a free port
						w.check(peer.CompareStreams(s.Sent(), accepted.Read(), false), peer.CompareStreams(accepted.Sent(), s.Read(), false))
					}
				}
			}
			w.finish()
		})
	}
}
