package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// An end of a control connection speaks when the connection's conntrack entry is gone and the daemon has not put it back: it
// stands still all the while. The segment meets no reset, from nobody, and its retransmission arrives.
func TestSpokenInTheGap(t *testing.T) {
	forwarded := netip.AddrPortFrom(lab.WANRouter, peer.Port)
	inside := netip.MustParseAddrPort("10.77.1.1:4711")
	plan := func(pieces ...lab.Piece) lab.Plan { return lab.Plan{Clients: 1, Servers: 1, Firewall: pieces} }
	flush := func(w *world) error { return w.Router.FlushConntrack() }
	strictly := func(take func(*world) error) func(*world) error { // every segment without an entry is invalid then
		return func(w *world) error {
			return errors.Join(w.Router.Sysctl("net.netfilter.nf_conntrack_tcp_loose", "0"), take(w))
		}
	}
	for _, c := range []struct {
		name   string
		plan   lab.Plan
		own    bool // the client is the router's own
		server bool // or the server is
		port   uint16
		dial   netip.AddrPort
		take   func(*world) error
		events bool // the kernel tells of what is removed
	}{
		{"masquerading", plan(lab.Masquerade("wan")), false, false, peer.Port, netip.AddrPort{}, flush, true},
		{"control connections alone", plan(lab.Masquerade("wan")), false, false, peer.Port, netip.AddrPort{},
			func(w *world) error { return w.takeConnections(1) }, true},
		{"the kernel does not tell", plan(lab.Masquerade("wan")), false, false, peer.Port, netip.AddrPort{},
			func(w *world) error { return w.takeConnections(1) }, false},
		{"port chosen at random", plan(lab.SNATRandom("wan", lab.WANRouter, lab.WANRouter)), false, false, peer.Port, netip.AddrPort{}, flush, true},
		{"strict firewall", lab.Plan{Clients: 1, Servers: 1, Firewall: strict()}, false, false, peer.Port, netip.AddrPort{}, flush, true},
		{"server inside", plan(lab.DNAT(forwarded, inside), lab.Masquerade("wan")), false, false, 4711, forwarded, flush, true},
		{"zone", plan(lab.Zone("lan", 7), lab.Zone("wan", 7), lab.Masquerade("wan")), false, false, peer.Port, netip.AddrPort{}, flush, true},
		{"conntrack takes nothing up in the middle", plan(lab.Masquerade("wan")), false, false, peer.Port, netip.AddrPort{}, strictly(flush), true},
		{"that, and the kernel does not tell", plan(lab.Masquerade("wan")), false, false, peer.Port, netip.AddrPort{},
			strictly(func(w *world) error { return w.takeConnections(1) }), false},
		{"no NAT", lab.Plan{Clients: 1, Servers: 1, Routed: true, Firewall: []lab.Piece{}}, false, false, peer.Port, netip.AddrPort{}, flush, true},
		{"router's own client", plan(lab.Masquerade("wan")), true, false, peer.Port, netip.AddrPort{}, flush, true},
		{"router's own server", plan(lab.Masquerade("wan")), false, true, peer.Port, netip.AddrPort{}, flush, true},
	} {
		for _, speaker := range []string{"server", "client"} {
			t.Run(c.name+"/the "+speaker+" speaks", func(t *testing.T) {
				w := withDaemon(t, c.plan)
				at, from, dial := w.Servers[0], w.Clients[0], c.dial
				switch {
				case c.own:
					from = router(w, lab.WANRouter)
				case c.server:
					from, at = w.Servers[0], router(w, lab.WANRouter)
				case dial.IsValid():
					at, from = from, at
				}
				if !dial.IsValid() {
					dial = netip.AddrPortFrom(at.Address, c.port)
				}
				if !c.events {
					w.must(w.Router.Sysctl("net.netfilter.nf_conntrack_events", "0"))
				}
				server := w.node(at, peer.Config{CallID: peer.Counting(0)})
				w.must(server.Listen(c.port))
				client := w.node(from, peer.Config{CallID: peer.Counting(6)})
				l := w.up(w.call(w.dialTo(client, dial)), server)
				w.talkLeg(l)
				w.silent(l)
				w.status(1) // when it answers, it has dealt with what was said
				w.known(1)
				says := l.server.Session()
				if speaker == "client" {
					says = l.client.Session()
				}
				source := says.Local().Port()

				seen, err := w.Router.CaptureIf(func(p *lab.Packet) bool { return p.TCP != nil })
				w.must(err)
				for range 3 {
					w.freeze()
					w.must(c.take(w))
					before := len(seen.Packets())
					answered := make(chan error, 1)
					go func() { answered <- says.Ping(w.ctx) }()
					w.eventually("what it says should get as far as the router", func() error {
						for _, p := range seen.Packets()[before:] {
							if uint16(p.TCP.SrcPort) == source && len(p.Payload) > 0 {
								return nil
							}
						}
						return errors.New("it has not")
					})
					w.must(w.daemon.Signal(syscall.SIGCONT))
					w.check(<-answered)
				}
				w.silent(l)
				for _, p := range seen.Packets() {
					if p.TCP.RST {
						t.Errorf("%v", p)
					}
				}
				if t.Failed() {
					t.Fatal("the connection is lost")
				}
				w.goOn(server, []leg{l})
			})
		}
	}
}

// The entry of a control connection is removed while no daemon runs, its calls' entries are not. The next daemon cannot know
// whether the connection has ended; when its server is the first to say something, it goes on.
func TestSpokenAfterTheRestart(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server, legs := w.pairOfCalls()
	w.silent(legs...)
	w.status(2)
	w.kill()
	w.must(w.takeConnections(1))
	w.again(quickConfig)
	w.goOn(server, legs) // the server speaks first
}

// The set of the control connections has those that are there, and what others take out of it comes back.
func TestKnownConnections(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server, legs := w.pairOfCalls()
	w.known(2)
	w.must(w.Router.FlushSet(table, connectionsSet))
	w.known(2)
	w.must(w.Router.DeleteTable(table))
	w.known(2)
	w.kill()
	w.again(quickConfig)
	w.known(2)
	w.check(legs[0].client.Session().Stop(w.ctx))
	w.known(1)
	legs[1].client.Session().Abort()
	w.known(0)
	w.up(w.dialAndCall(w.client(1, peer.Config{CallID: peer.Counting(9)}), server), server)
	w.known(1)
	w.kill()
	w.must(w.Router.FlushSet(table, connectionsSet))
	w.again(quickConfig)
	w.known(1)
	w.untranslated()
	w.finish()
}

// known waits until so many control connections are known to the daemon's rules.
func (w *world) known(connections int) {
	w.Helper()
	w.eventually(fmt.Sprintf("%d control connections should be known to the rules", connections), func() error {
		elements, err := w.Router.Elements(table, connectionsSet)
		if err == nil && len(elements) != 2*connections {
			err = fmt.Errorf("%d elements: %x", len(elements), elements)
		}
		return err
	})
}
