package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// These scenarios run without the daemon. They show that the lab and the peers
// are right where nothing is in the way, and what goes wrong without a daemon:
// a scenario with it proves little if it would pass without it too.

func TestWithoutDaemonRouted(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Routed: true, Firewall: []lab.Piece{}})
	server := w.server(0, peer.Config{})
	for i := range 2 {
		w.talk(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(7)}), server), server)
	}
	w.noFaults()
}

// One client behind plain masquerading gets its call, and no GRE: for the
// kernel the two directions have different keys, so the answer belongs to
// nothing.
func TestWithoutDaemonMasqueraded(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(9)})
	call := w.dialAndCall(w.client(0, peer.Config{CallID: peer.Fixed(7)}), server)
	if err := call.EchoWithin(w.ctx, time.Second, 1, 100); !errors.Is(err, peer.ErrNoAnswer) {
		t.Errorf("GRE of one client got through without the daemon: %v", err)
	}
	if far := w.far(call, server); far.Stats().Questions != 1 {
		t.Errorf("the server saw %+v", far.Stats())
	}
	w.noFaults()
}

// With Call ID 0 on both sides the two keys are alike and one client works, by
// luck. The answers to the second client, whose Call ID is 0 too, then reach
// the first.
func TestWithoutDaemonEqualCallIDs(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	first, second := w.client(0, peer.Config{CallID: peer.Fixed(0)}), w.client(1, peer.Config{CallID: peer.Fixed(0)})
	w.check(w.dialAndCall(first, server).Echo(w.ctx, 3, 100))
	call := w.dialAndCall(second, server)
	if err := call.EchoWithin(w.ctx, time.Second, 1, 100); !errors.Is(err, peer.ErrNoAnswer) {
		t.Errorf("the second client got an answer: %v", err)
	}
	if f := strings.Join(first.Faults(), "\n"); !strings.Contains(f, "payload of another call") {
		t.Errorf("the first client should have got the second one's answer: %q", f)
	}
}

// A firewall that accepts what is established and new TCP drops the GRE too.
func TestWithoutDaemonStrict(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	call := w.dialAndCall(w.client(0, peer.Config{CallID: peer.Fixed(0)}), server)
	if err := call.EchoWithin(w.ctx, time.Second, 1, 100); !errors.Is(err, peer.ErrNoAnswer) {
		t.Errorf("GRE got through a firewall that does not accept it: %v", err)
	}
}

func strict() []lab.Piece {
	return []lab.Piece{lab.Masquerade("wan"), lab.StrictForward("lan", peer.Port)}
}
