package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// This file holds what the scenarios of docs/topologies.md share.

// plan draws a lab: routers, segments and stations of one's own. The first
// error ends the test when all is drawn.
type plan struct {
	*lab.Site
	errs []error
}

// drawn makes a lab as draw says. The router of the world is the first one
// that draw makes.
func drawn(t *testing.T, draw func(*plan)) *world {
	t.Helper()
	return worldOf(t, func(ctx context.Context) (*lab.Site, error) {
		l, err := lab.New()
		if err != nil {
			return nil, err
		}
		p := &plan{Site: &lab.Site{Lab: l}}
		draw(p)
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		p.try(l.Settle(ctx))
		if err := errors.Join(p.errs...); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		return p.Site, nil
	})
}

func (p *plan) try(err error) { p.errs = append(p.errs, err) }

func (p *plan) segment(name string) *lab.Segment {
	s, err := p.Segment(name)
	p.try(err)
	return s
}

// router adds a router that counts what its conntrack entries carry.
func (p *plan) router(name string) *lab.Host {
	h, err := p.Lab.Router(name)
	p.try(err)
	p.try(h.Sysctl("net.netfilter.nf_conntrack_acct", "1"))
	if p.Site.Router == nil {
		p.Site.Router = h
	}
	return h
}

// attach plugs a host into a segment, with addresses such as "10.1.0.1/16".
func (p *plan) attach(h *lab.Host, s *lab.Segment, addresses ...string) {
	var prefixes []netip.Prefix
	for _, a := range addresses {
		prefixes = append(prefixes, netip.MustParsePrefix(a))
	}
	p.try(h.Attach(s, prefixes...))
}

// station adds a host with one address and, if not "", a default route.
func (p *plan) station(name string, s *lab.Segment, address, gateway string) lab.Station {
	h, err := p.Host(name)
	p.try(err)
	p.attach(h, s, address)
	if gateway != "" {
		p.try(h.Route(netip.Prefix{}, netip.MustParseAddr(gateway)))
	}
	return lab.Station{Host: h, Address: netip.MustParsePrefix(address).Addr()}
}

// raw adds a host for the package raw.
func (p *plan) raw(name string, s *lab.Segment, address string) lab.Station {
	h, err := p.Host(name)
	p.try(err)
	p.try(h.Attach(s))
	return lab.Station{Host: h, Address: netip.MustParseAddr(address)}
}

// beside is a world for another router of the same lab, with a daemon of its
// own.
func (w *world) beside(router *lab.Host) *world {
	w.Helper()
	b := &world{T: w.T, Site: &lab.Site{Lab: w.Lab, Router: router}, ctx: w.ctx}
	b.before = b.structure()
	return b
}

// listen makes a server at a station.
func (w *world) listen(at lab.Station, cfg peer.Config) *peer.Node {
	w.Helper()
	n := w.node(at, cfg)
	w.must(n.Listen(peer.Port))
	return n
}

// dialTo opens a control connection to an address that is not the server's own.
func (w *world) dialTo(client *peer.Node, to netip.AddrPort) *peer.Session {
	w.Helper()
	s, err := client.Dial(w.ctx, to)
	w.must(err)
	return s
}

func at(address string) netip.Addr { return netip.MustParseAddr(address) }

// public is the control port at an address.
func public(address netip.Addr) netip.AddrPort { return netip.AddrPortFrom(address, peer.Port) }

// leg is a call seen from both ends; client is the end that opened the TCP
// connection.
type leg struct{ client, server *peer.Call }

// up is the leg of a call that the TCP client placed.
func (w *world) up(c *peer.Call, server *peer.Node) leg {
	w.Helper()
	return leg{c, w.far(c, server)}
}

// down is the leg of a call that the TCP server placed.
func (w *world) down(c *peer.Call, client *peer.Node) leg {
	w.Helper()
	return leg{w.far(c, client), c}
}

// talkLeg sends GRE both ways, every payload checked byte by byte at both ends.
func (w *world) talkLeg(legs ...leg) {
	w.Helper()
	for _, l := range legs {
		w.check(l.client.Echo(w.ctx, 3, 300), l.server.Echo(w.ctx, 3, 300))
	}
}

// expect is what a router between the two ends alone lists for a call.
func (l leg) expect() lab.CallStatus {
	return lab.CallStatus{
		State: lab.StateUp,
		Client: lab.SideStatus{Address: l.client.Session().Local().Addr(), CallID: l.client.ID(),
			TranslatedAddress: l.server.Remote(), TranslatedCallID: l.server.PeerID()},
		Server: lab.SideStatus{Address: l.server.Session().Local().Addr(), CallID: l.server.ID(),
			TranslatedAddress: l.client.Remote(), TranslatedCallID: l.client.PeerID()},
	}
}

// listed waits until status lists these calls as up and no others, and
// compares addresses, Call IDs and counters with what the peers know.
func (w *world) listed(legs ...leg) {
	w.Helper()
	s := w.status(len(legs))
	for _, l := range legs {
		want := l.expect()
		i := slices.IndexFunc(s.Calls, func(c lab.CallStatus) bool { return c.Client == want.Client && c.Server == want.Server })
		if i < 0 {
			w.Errorf("status does not list client %v, server %v; it lists %v", want.Client, want.Server, sides(s.Calls))
			continue
		}
		if c := s.Calls[i]; c.PacketsFromClient < 3 || c.PacketsFromServer < 3 {
			w.Errorf("status of client %v counts %d and %d packets", want.Client, c.PacketsFromClient, c.PacketsFromServer)
		}
	}
}

func sides(calls []lab.CallStatus) string {
	var b strings.Builder
	for _, c := range calls {
		fmt.Fprintf(&b, "\n  client %v, server %v: %s %s %s", c.Client, c.Server, c.Direction, c.State, c.Reason)
	}
	return b.String()
}

// ended waits until an ended call is listed that match likes, whose reason has
// these words.
func (w *world) ended(words string, match func(lab.CallStatus) bool) lab.CallStatus {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	var found lab.CallStatus
	_, err := w.daemon.WaitStatus(ctx, func(s *lab.Status) error {
		for _, c := range s.Ended {
			if match(c) && strings.Contains(c.Reason, words) {
				found = c
				return nil
			}
		}
		return fmt.Errorf("no ended call whose reason says %q among%s", words, sides(s.Ended))
	})
	w.check(err)
	return found
}

// from matches calls of a client with a Call ID.
func from(client netip.Addr, id uint16) func(lab.CallStatus) bool {
	return func(c lab.CallStatus) bool { return c.Client.Address == client && c.Client.CallID == id }
}

// hangUp ends calls one after the other, every second one from its server, and
// has the others prove that they go on.
func (w *world) hangUp(legs ...leg) {
	w.Helper()
	for i, l := range legs {
		end, other := l.client, l.server
		if i%2 == 1 {
			end, other = other, end
		}
		w.check(end.HangUp(w.ctx), other.WaitEnd(w.ctx))
		w.status(len(legs) - i - 1)
		if i+1 < len(legs) {
			w.talkLeg(legs[i+1:]...)
		}
	}
}

// finishAll ends a scenario with several routers.
func (w *world) finishAll(others ...*world) {
	w.Helper()
	w.finish()
	for _, o := range others {
		o.finish()
	}
}
