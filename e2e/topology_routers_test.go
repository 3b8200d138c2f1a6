package e2e

import (
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// Two routers, each with a NAT and a daemon of its own, each translating what
// the other has translated already.

const (
	westPublic = "198.18.0.11"
	eastPublic = "198.18.0.12"
)

// twoSites has two hosts in each of two networks with the same addresses:
// nothing but the routers' public addresses can be seen between them. Hosts
// 10.0.0.11 are reached from outside, with DNAT.
func twoSites(t *testing.T) (west, east *world, hosts map[string][]lab.Station) {
	t.Helper()
	hosts = map[string][]lab.Station{}
	var eastRouter *lab.Host
	west = drawn(t, func(p *plan) {
		wan := p.segment("wan")
		for _, site := range []struct{ name, public string }{{"west", westPublic}, {"east", eastPublic}} {
			lan := p.segment("lan")
			router := p.router(site.name)
			p.attach(router, lan, "10.0.0.1/24")
			p.attach(router, wan, site.public+"/24")
			p.try(router.Firewall(lab.Masquerade("wan"), lab.DNAT(public(at(site.public)), public(at("10.0.0.11"))),
				lab.ForwardDrop(), lab.DropInvalid(), lab.AcceptEstablished(), lab.AcceptTCP("lan", peer.Port), lab.AcceptTCP("wan", peer.Port)))
			for _, address := range []string{"10.0.0.11", "10.0.0.12", "10.0.0.13"} {
				hosts[site.name] = append(hosts[site.name], p.station(site.name+" "+address, lan, address+"/24", "10.0.0.1"))
			}
			eastRouter = router
		}
	})
	east = west.beside(eastRouter)
	west.start(quickConfig)
	east.start(quickConfig)
	return west, east, hosts
}

// Both ends behind NAT of their own. The west router's A' is the east router's
// A, and the east router's B' is the west router's B; so are the Call IDs.
func TestTwoRouters(t *testing.T) {
	w, e, hosts := twoSites(t)
	server := w.listen(hosts["east"][0], peer.Config{CallID: peer.Counting(6)})
	var legs []leg
	for i := range 3 {
		client := w.node(hosts["west"][i], peer.Config{CallID: peer.Fixed(6)})
		legs = append(legs, w.up(w.call(w.dialTo(client, public(at(eastPublic)))), server))
	}
	w.talkLeg(legs...)
	w.chained(e, legs)
	// Clearing a call at either end leaves the others alone.
	w.check(legs[0].client.HangUp(w.ctx), legs[1].server.HangUp(w.ctx), legs[1].client.WaitEnd(w.ctx))
	w.status(1)
	e.status(1)
	w.talkLeg(legs[2])
	w.finishAll(e)
}

// chained compares what two routers in a row list: what one of them tells, the
// other one gets as the real thing.
func (w *world) chained(second *world, legs []leg) {
	w.Helper()
	a, b := w.status(len(legs)), second.status(len(legs))
	for _, l := range legs {
		found := false
		for _, x := range a.Calls {
			for _, y := range b.Calls {
				found = found || x.Client.Address == l.client.Session().Local().Addr() && x.Client.CallID == l.client.ID() &&
					x.Client.TranslatedAddress == y.Client.Address && x.Client.TranslatedCallID == y.Client.CallID &&
					y.Client.TranslatedAddress == l.server.Remote() && y.Client.TranslatedCallID == l.server.PeerID() &&
					y.Server.Address == l.server.Session().Local().Addr() && y.Server.CallID == l.server.ID() &&
					y.Server.TranslatedAddress == x.Server.Address && y.Server.TranslatedCallID == x.Server.CallID &&
					x.Server.TranslatedAddress == l.client.Remote() && x.Server.TranslatedCallID == l.client.PeerID() &&
					x.PacketsFromClient >= 3 && y.PacketsFromServer >= 3
			}
		}
		if !found {
			w.Errorf("no chain for %v and %v in%s\nand%s", l.client, l.server, sides(a.Calls), sides(b.Calls))
		}
	}
}

// Site to site: west dials east and east dials west, between the same two
// public addresses, with equal Call IDs everywhere.
func TestSiteToSite(t *testing.T) {
	w, e, hosts := twoSites(t)
	eastServer := w.listen(hosts["east"][0], peer.Config{CallID: peer.Counting(1)})
	westServer := w.listen(hosts["west"][0], peer.Config{CallID: peer.Counting(1)})
	var eastward, westward []leg
	for i := range 2 {
		client := w.node(hosts["west"][1+i], peer.Config{CallID: peer.Fixed(1)})
		eastward = append(eastward, w.up(w.call(w.dialTo(client, public(at(eastPublic)))), eastServer))
		client = w.node(hosts["east"][1+i], peer.Config{CallID: peer.Fixed(1)})
		westward = append(westward, w.up(w.call(w.dialTo(client, public(at(westPublic)))), westServer))
	}
	w.talkLeg(eastward...)
	w.talkLeg(westward...)
	w.status(4)
	e.status(4)
	w.check(eastward[0].client.HangUp(w.ctx), westward[1].server.HangUp(w.ctx), westward[1].client.WaitEnd(w.ctx))
	w.status(2)
	e.status(2)
	w.talkLeg(eastward[1], westward[0])
	w.finishAll(e)
}

// The same, and here the hosts that dial and answer are one and the same on
// each side: a gateway with both ends of a site-to-site route on it.
func TestSiteToSiteOneHost(t *testing.T) {
	w, e, hosts := twoSites(t)
	west := w.listen(hosts["west"][0], peer.Config{CallID: peer.Counting(5)})
	east := w.listen(hosts["east"][0], peer.Config{CallID: peer.Counting(5)})
	eastward := w.up(w.call(w.dialTo(west, public(at(eastPublic)))), east)
	westward := w.up(w.call(w.dialTo(east, public(at(westPublic)))), west)
	w.talkLeg(eastward, westward)
	w.status(2)
	e.status(2)
	w.check(eastward.client.HangUp(w.ctx))
	w.status(1)
	w.talkLeg(westward)
	w.finishAll(e)
}
