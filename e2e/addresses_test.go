package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/wire"
)

// Addresses of the router that come and go under calls.

// wanNew is the router's second public address.
var wanNew = netip.MustParseAddr("198.18.0.9")

func onWAN(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 16) }

// waitLog waits until the daemon has written something.
func (w *world) waitLog(words string) {
	w.Helper()
	w.eventually("the daemon should say "+words, func() error {
		if !strings.Contains(w.daemon.Log(), words) {
			return fmt.Errorf("it said\n%s", w.daemon.Log())
		}
		return nil
	})
}

// nothingFrom watches for GRE, and for control packets too, that leave with an
// address. The function that it returns reports them.
func (w *world) nothingFrom(a netip.Addr, control bool) (check func()) {
	w.Helper()
	left, err := w.Router.CaptureIf(func(p *lab.Packet) bool {
		return p.Out && p.Src == a && (p.GRE != nil || control && p.TCP != nil)
	}, "wan")
	w.must(err)
	return func() {
		w.Helper()
		if n := len(left.Packets()); n > 0 {
			w.Errorf("%d packets left from %v, which is not the router's any more; the first is %v", n, a, left.Packets()[0])
		}
		w.check(left.Close())
	}
}

// The public address is replaced by another one: the old calls end and say why,
// nothing goes on leaving from the old address, and new calls use the new one.
func TestAddressReplaced(t *testing.T) {
	for name, firewall := range map[string][]lab.Piece{
		"masqueraded": {lab.Masquerade("wan")},
		// Conntrack keeps what such a rule has translated.
		"source NAT": {lab.SNAT("wan", lab.WANRouter, lab.WANRouter)},
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: firewall})
			// Without it the second address would go with the first.
			w.must(w.Router.Sysctl("net.ipv4.conf.wan.promote_secondaries", "1"))
			w.must(w.Router.AddAddress("wan", onWAN(wanNew)))
			server, legs := w.pairOfCalls()
			lost := w.counted(legs...)
			w.must(w.Router.DeleteAddress("wan", onWAN(lab.WANRouter)))
			w.waitLog("an address was removed from this router")
			// The owner's rule translates control packets so, address or not.
			check := w.nothingFrom(lab.WANRouter, name != "source NAT")
			for _, l := range legs {
				c := w.ended(fmt.Sprintf("public address %v was removed from this router", lab.WANRouter), from(l.client.Session().Local().Addr(), l.client.ID()))
				if c.PacketsFromClient == 0 || c.PacketsFromServer == 0 {
					t.Errorf("the record counts %d and %d packets", c.PacketsFromClient, c.PacketsFromServer)
				}
			}
			check()
			lost()
			if name == "source NAT" {
				w.must(w.Router.Firewall(lab.Masquerade("wan")))
				_, w.before = split(w.structure())
			}
			// The clients find out when they next speak, and dial again.
			for i, l := range legs {
				_ = l.client.Session().Send(&wire.EchoRequest{Identifier: 1})
				select {
				case <-l.client.Session().Done():
				case <-w.ctx.Done():
					t.Fatal("the client's connection to nowhere goes on")
				}
				l.server.Session().Abort() // it would wait for ever: what it says goes nowhere
				again := w.up(w.dialAndCall(w.nodes[i+1], server), server)
				if again.server.Remote() != wanNew {
					t.Errorf("the new call comes from %v", again.server.Remote())
				}
				legs[i] = again
			}
			// What the clients sent after their calls had ended.
			server.Forgive(func(fault string) bool { return strings.HasPrefix(fault, "GRE from ") })
			w.talkLeg(legs...)
			w.listed(legs...)
			w.hangUp(legs...)
			w.finish()
		})
	}
}

// The address goes and comes back, at once or after a moment: the calls stand
// still meanwhile, and go on.
func TestAddressComesBack(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": 0, "after a moment": 500 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			server, legs := w.pairOfCalls()
			connections, err := w.connections()
			w.must(err)
			for range 2 {
				w.must(w.Router.DeleteAddress("wan", onWAN(lab.WANRouter)))
				if wait > 0 {
					w.eventually("without the address there should be no entries of calls", func() error {
						gre, err := w.Router.GRE()
						if err == nil && len(gre) > 0 {
							err = fmt.Errorf("there are\n%s", lab.FlowsText(gre))
						}
						return err
					})
					_ = legs[0].client.Session().Send(&wire.EchoRequest{Identifier: 1}) // waits as well
					time.Sleep(wait)
				}
				w.must(w.Router.AddAddress("wan", onWAN(lab.WANRouter)))
				w.same(connections, 2*len(legs))
			}
			w.goOn(server, legs)
		})
	}
}

// The address moves to another interface before it leaves the first: nothing
// happens to the calls, not even for a packet.
func TestAddressMoves(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{lab.SNAT("wan", lab.WANRouter, lab.WANRouter)}})
	w.must(w.Router.Sysctl("net.ipv4.conf.wan.promote_secondaries", "1"))
	w.must(w.Router.AddAddress("wan", onWAN(wanNew)))
	server, legs := w.pairOfCalls()
	lost := w.counted(legs...)
	time.Sleep(50 * time.Millisecond)
	w.must(w.Router.AddAddress("lo", netip.PrefixFrom(lab.WANRouter, 32)))
	w.must(w.Router.DeleteAddress("wan", onWAN(lab.WANRouter)))
	time.Sleep(3 * time.Second)
	if sent, gone := lost(); gone > 0 {
		t.Errorf("%d of %d packets were lost", gone, sent)
	}
	w.goOn(server, legs)
}

// As with PPP: the interface goes, and the address with it. Calls of the other
// address are not concerned.
func TestAddressGoesWithItsInterface(t *testing.T) {
	own := netip.MustParseAddr("198.18.0.77")
	first := netip.MustParseAddr("10.77.1.1")
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{
		lab.SNATFrom(first, "wan", own), lab.Masquerade("wan")}})
	w.must(w.Router.AddDevice("ppp0"), w.Router.AddAddress("ppp0", netip.PrefixFrom(own, 32)))
	w.start(quickConfig)
	server, legs := w.pairOfCalls()
	if legs[0].server.Remote() != own || legs[1].server.Remote() != lab.WANRouter {
		t.Fatalf("the calls come from %v and %v", legs[0].server.Remote(), legs[1].server.Remote())
	}
	lost := w.counted(legs[1])
	w.must(w.Router.DeleteDevice("ppp0"))
	w.waitLog("an address was removed from this router")
	check := w.nothingFrom(own, false)
	w.ended("public address 198.18.0.77 was removed from this router", from(first, legs[0].client.ID()))
	check()
	if sent, gone := lost(); gone > 0 {
		t.Errorf("%d of %d packets of the other call were lost", gone, sent)
	}
	legs[0].client.Session().Abort()
	legs[0].server.Session().Abort()
	w.goOn(server, legs[1:])
}
