package e2e

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// A firewall with a flow table has the kernel carry established TCP connections
// past every hook, the control connections too. The daemon's anchor keeps them
// out of it; without the anchor the same scenario shows what would happen.
func TestFlowOffload(t *testing.T) {
	build := func(t *testing.T, config string) (w *world, server *peer.Node, clients [2]*peer.Node) {
		w = newWorld(t, lab.Plan{Clients: 2, Servers: 1})
		err := w.Router.Firewall(append([]lab.Piece{lab.FlowOffload("lan", "wan")}, strict()...)...)
		if os.Getenv(fullKernel) == "" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)) {
			// Also under CI: that it is missing is no fault of ours.
			t.Skipf("this kernel has no flow tables (CONFIG_NFT_FLOW_OFFLOAD): %v", err)
		}
		w.must(err)
		w.before = w.structure()
		w.start(config + quickConfig)
		server = w.server(0, peer.Config{CallID: peer.Counting(0)})
		for i := range clients {
			clients[i] = w.client(i, peer.Config{CallID: peer.Counting(crowdedID)})
		}
		return w, server, clients
	}
	for _, anchor := range []string{"auto", "ftp"} {
		t.Run("anchor "+anchor, func(t *testing.T) {
			w, server, clients := build(t, "anchor = \""+anchor+"\"\n")
			var sessions [2]*peer.Session
			var calls [2]*peer.Call
			for i := range clients {
				sessions[i] = w.dial(clients[i], server)
				calls[i] = w.call(sessions[i])
			}
			for _, c := range calls {
				w.talk(c, server)
			}
			w.status(2)
			if n := w.offloaded(2); n != 0 {
				t.Errorf("%d control connections are in the flow table", n)
			}
			// The connections go on being seen: another call, and the end of one.
			more := w.call(sessions[0])
			w.talk(more, server)
			w.status(3)
			w.check(calls[0].HangUp(w.ctx))
			w.status(2)
			w.talk(more, server)
			w.talk(calls[1], server)
			w.check(w.far(more, server).HangUp(w.ctx), more.WaitEnd(w.ctx))
			w.status(1)
			w.check(sessions[0].Stop(w.ctx), sessions[1].Stop(w.ctx))
			w.finish()
		})
	}
	t.Run("anchor off", func(t *testing.T) {
		w, server, clients := build(t, "anchor = \"off\"\n")
		for _, c := range clients {
			call := w.dialAndCall(c, server)
			if told := w.far(call, server).PeerID(); told != crowdedID {
				t.Errorf("the server was told Call ID %d instead of %d: the daemon saw the message, so this proves nothing", told, crowdedID)
			}
		}
		if n := w.offloaded(2); n != 2 {
			t.Errorf("%d of 2 control connections are in the flow table: this proves nothing", n)
		}
		if s := w.daemonStatus(); len(s.Calls) != 0 {
			t.Errorf("the daemon lists %d calls", len(s.Calls))
		}
		for _, n := range w.nodes {
			_ = n.Close()
		}
		w.stop()
	})
}

// offloaded counts the control connections that are in a flow table, of so many.
func (w *world) offloaded(connections int) (n int) {
	w.Helper()
	flows, err := w.Router.Control(peer.Port)
	w.must(err)
	if len(flows) != connections {
		w.Fatalf("there are %d control connections instead of %d:\n%s", len(flows), connections, lab.FlowsText(flows))
	}
	for _, f := range flows {
		if f.Status&lab.Offloaded != 0 {
			n++
		}
	}
	return n
}
