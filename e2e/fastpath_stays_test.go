package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// Where calls stay on the ordinary path, or go back to it, because the programs could not treat their packets as the kernel does.

// stays talks on calls until status says that none of them takes the fast path for a reason that has some words in it.
func (w *world) stays(words string, legs ...leg) {
	w.Helper()
	w.eventually("calls should stay on the ordinary path", func() error {
		w.talkLeg(legs...)
		for _, c := range w.daemonStatus().Calls {
			if f := c.FastPath; f == nil || f.ToServer && f.ToClient || !strings.Contains(f.Reason, words) {
				return fmt.Errorf("%+v", f)
			}
		}
		return nil
	})
}

// A mark that packets get after they are routed does not send them another way, though there is a route for it.
func TestFastPathMarkedLate(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 2, Firewall: append(strict(), lab.MarkLate("wan", 7))})
	w.must(w.Router.RouteByMark(7, 107, netip.PrefixFrom(w.Servers[0].Address, 32), w.Servers[1].Address, "wan"))
	w.start(quickConfig, fastPathFlags...)
	server := w.server(0, peer.Config{})
	l := w.up(w.dialAndCall(w.client(0, peer.Config{}), server), server)
	w.stays("another Ethernet address", l)
	w.check(l.client.Echo(w.ctx, 50, 300), l.server.Echo(w.ctx, 50, 300))
	rule := netlink.NewRule()
	rule.Family, rule.Mark, rule.Table, rule.Priority = unix.AF_INET, 7, 107, 207
	w.must(w.Router.Netlink().RuleDel(rule))
	w.fast(l)
	w.hangUp(l)
	w.finish()
}

// A next hop that answers no more: the sender hears of it, as it does without the fast path, and back it goes when there are answers.
func TestFastPathNoNeighbour(t *testing.T) {
	w, legs := fastCalls(t, 1)
	l := legs[0]
	w.fast(l)
	there := w.Servers[0].Netlink()
	link, err := there.LinkByName("wan")
	w.must(err, there.LinkSetARPOff(link))
	wan, err := w.Router.Netlink().LinkByName("wan")
	w.must(err, w.Router.Netlink().NeighDel(&netlink.Neigh{LinkIndex: wan.Attrs().Index, Family: netlink.FAMILY_V4, IP: w.Servers[0].Address.AsSlice()}))
	heard, err := w.Clients[0].CaptureIf(func(p *lab.Packet) bool { return p.Protocol == 1 && !p.Out }, "lan")
	w.must(err)
	w.eventually("the client should hear that the server can't be reached", func() error {
		if err := l.client.EchoWithin(w.ctx, 200*time.Millisecond, 1, 100); err == nil {
			return errors.New("it can")
		}
		if len(heard.Packets()) == 0 {
			return errors.New("it does not")
		}
		return nil
	})
	w.ordinary()
	w.must(there.LinkSetARPOn(link))
	w.eventually("the call should work again", func() error { return l.client.EchoWithin(w.ctx, time.Second, 1, 100) })
	w.fast(l)
	w.hangUp(l)
	w.finish()
}

// Rules of iptables-legacy, of which the kernel tells nobody, are found out a while after they came; calls stay on the ordinary path then.
func TestFastPathLegacyTables(t *testing.T) {
	w, legs := fastCalls(t, 1)
	room := w.room()
	w.fast(legs...)
	out, err := room.Shell(w.ctx, "iptables-legacy -A FORWARD -s 192.0.2.1 -j DROP")
	if err != nil {
		w.Fatalf("%v\n%s", err, out)
	}
	w.eventually("the daemon should see the table", func() error {
		if _, why := w.paths(); !strings.Contains(why, "iptables-legacy (filter)") {
			return errors.New(why)
		}
		return nil
	})
	w.stays("iptables-legacy (filter)", legs...)
	w.hangUp(legs...)
	w.finish()
}
