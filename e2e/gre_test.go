package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// Names of the daemon's packet counters.
const (
	counterUnmapped = "unmapped"
	counterBlocked  = "blocked"
)

// counter waits until one of the daemon's named counters has reached a value.
func (w *world) counter(name string, least uint64) {
	w.Helper()
	w.eventually("counter "+name, func() error {
		n, _, err := w.Router.Counter(table, name)
		if err == nil && n < least {
			err = fmt.Errorf("%d instead of at least %d", n, least)
		}
		return err
	})
}

// strangers sends GRE without a control connection: enhanced GRE with a Call ID
// and ordinary GRE, and says which of them arrived at the server.
func (w *world) strangers(client, server *peer.Node) (enhanced, ordinary bool) {
	w.Helper()
	capture, err := w.Servers[0].Capture("wan")
	w.must(err)
	payload := []byte("not PPTP, or nobody's")
	for range 3 {
		w.check(client.SendGRE(server.Address(), wire.EncodeGRE(wire.GRE{CallID: 999, HasSeq: true, Payload: payload})),
			client.SendGRE(server.Address(), peer.PlainGRE(0x0800, payload)))
	}
	// What is sent last arrives last: then the others have arrived or never will.
	last := []byte("last")
	w.check(client.SendGRE(server.Address(), peer.PlainGRE(0x6558, last)))
	_, err = capture.Wait(w.ctx, func(p *lab.Packet) bool { return p.GREError != nil && bytes.HasSuffix(p.Payload, last) })
	w.must(err)
	for _, p := range capture.Packets() {
		switch {
		case p.Out:
		case p.GRE != nil:
			enhanced = true
			if p.GRE.CallID != 999 || !bytes.Equal(p.GRE.Payload, payload) {
				w.Errorf("GRE that is nobody's was changed: %v", p)
			}
		case p.GREError != nil && bytes.Equal(p.Payload, peer.PlainGRE(0x0800, payload)):
			ordinary = true
		}
	}
	return enhanced, ordinary
}

// GRE that belongs to no call passes as it would without the daemon, and is
// counted.
func TestUnmappedGREPasses(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	client, server := w.client(0, peer.Config{}), w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(1, peer.Config{}), server)
	enhanced, ordinary := w.strangers(client, server)
	if !enhanced || !ordinary {
		t.Errorf("enhanced GRE passed: %v, ordinary GRE passed: %v", enhanced, ordinary)
	}
	w.counter(counterUnmapped, 3)
	w.talk(call, server)
	if n, _, err := w.Router.Counter(table, counterUnmapped); err != nil || n != 3 {
		t.Errorf("%d packets are counted as unmapped instead of 3 (ordinary GRE is not PPTP's), %v", n, err)
	}
	w.stop()
}

// With guard = "all" enhanced GRE of no call is dropped; ordinary GRE is not,
// and calls work.
func TestUnmappedGREDropped(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1})
	w.start("guard = \"all\"\n" + quickConfig)
	client, server := w.client(0, peer.Config{}), w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(1, peer.Config{}), server)
	enhanced, ordinary := w.strangers(client, server)
	if enhanced || !ordinary {
		t.Errorf("enhanced GRE passed: %v, ordinary GRE passed: %v", enhanced, ordinary)
	}
	w.counter(counterBlocked, 3)
	w.talk(call, server)
	w.stop()
}

// Outside hosts cannot get in with a Call ID that belongs to somebody else.
func TestForgedGRE(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 2, Firewall: strict()})
	server, stranger := w.server(0, peer.Config{}), w.server(1, peer.Config{})
	client := w.client(0, peer.Config{CallID: peer.Fixed(77)})
	call := w.dialAndCall(client, server)
	capture, err := w.Clients[0].CaptureIf(func(p *lab.Packet) bool { return p.GRE != nil && !p.Out }, "lan")
	w.must(err)
	packet := wire.EncodeGRE(wire.GRE{CallID: w.far(call, server).PeerID(), HasSeq: true, Payload: []byte("forged")})
	w.check(stranger.SendGRE(lab.WANRouter, packet))
	w.talk(call, server)
	for _, p := range capture.Packets() {
		if p.Src != server.Address() {
			t.Errorf("%v came in", p)
		}
	}
	// The router has made an ordinary entry for the stranger's packet, which
	// stays a while; so finish would not be content.
	w.check(call.HangUp(w.ctx))
	w.eventually("the entries of the call should go", func() error {
		gre, err := w.Router.GRE()
		for _, f := range gre {
			if f.Ours() || f.Original.Src != stranger.Address() {
				err = fmt.Errorf("left: %v", f)
			}
		}
		return err
	})
	w.noFaults()
	w.stop()
}

// A call whose control connection is gone does not keep working: after the
// grace its GRE gets nowhere.
func TestGREAfterTheEnd(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{})
	other := w.dialAndCall(w.client(1, peer.Config{}), server)
	call := w.dialAndCall(w.client(0, peer.Config{}), server)
	far := w.far(call, server)
	w.talk(call, server)
	call.Session().Close()
	w.status(1)
	w.eventually("the entries of the ended call should go", func() error {
		gre, err := w.Router.GRE()
		if err == nil && len(gre) != 2 {
			err = fmt.Errorf("%d entries, two of them for the other call:\n%s", len(gre), lab.FlowsText(gre))
		}
		return err
	})
	if err := far.EchoWithin(w.ctx, 500*time.Millisecond, 1, 100); !errors.Is(err, peer.ErrNoAnswer) {
		t.Errorf("GRE of an ended call: %v", err)
	}
	w.talk(other, server)
	w.noFaults()
}
