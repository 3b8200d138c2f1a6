package ways

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFind(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.found(q, "up1", "198.18.1.254", 1500)

	back := Question{Src: q.Dst, Dst: q.Src, Link: l.index("up1")}
	l.found(back, "lan", client, 1500)

	here := q
	here.Dst = netip.MustParseAddr("198.18.1.1")
	l.refused(here, "the router itself")
	here.Dst = netip.MustParseAddr("198.18.1.255")
	l.refused(here, "not the address of one host")
	here.Dst = netip.MustParseAddr("2001:db8::1")
	l.refused(here, "not IPv4")
	here = q
	here.Link = 999
	l.refused(here, "no device with the index 999")
	here.Link = 0
	l.refused(here, "no device with the index 0")
}

func TestFindByMark(t *testing.T) {
	l := newLab(t)
	l.ip("route add default via 198.18.2.254 table 102", "rule add fwmark 2 lookup 102")
	q := l.out()
	l.settle()
	l.found(q, "up1", "198.18.1.254", 1500)
	q.Mark = 2
	l.found(q, "up2", "198.18.2.254", 1500)
	l.changed("a rule", func() { l.ip("rule del fwmark 2 lookup 102") })
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("a rule by source", func() { l.ip("rule add from 10.77.1.1 iif lan lookup 102") })
	l.found(q, "up2", "198.18.2.254", 1500)
	q.Src = netip.MustParseAddr("10.77.1.2")
	l.found(q, "up1", "198.18.1.254", 1500)
}

// Rules that look at what the kernel can't be asked for.
func TestRulesThatCannotBeAsked(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.ip("route add default via 198.18.2.254 table 102")
	for _, rule := range []string{"tos 0x10", "ipproto gre"} {
		l.changed(rule, func() { l.ip("rule add " + rule + " lookup 102") })
		l.refused(q, "a routing rule looks at")
		l.changed(rule, func() { l.ip("rule del " + rule + " lookup 102") })
		l.found(q, "up1", "198.18.1.254", 1500)
	}
	// The question is for a protocol that no rule names.
	for _, rule := range []string{"ipproto udp", "ipproto tcp"} {
		l.changed(rule, func() { l.ip("rule add " + rule + " lookup 102") })
		l.found(q, "up1", "198.18.1.254", 1500)
	}
	l.changed("all protocols", func() { l.ip("rule add ipproto icmp lookup 102") })
	l.refused(q, "a routing rule looks at")
	l.ip("rule del ipproto icmp lookup 102")
	if l.try("ip", "rule", "add", "dscp", "8", "lookup", "102") == nil { // since Linux 6.13 and its ip
		l.settle()
		l.refused(q, "a routing rule looks at")
	}
}

func TestRoutes(t *testing.T) {
	for _, c := range []struct{ name, route, words string }{
		{"several next hops", "203.0.113.0/24 nexthop via 198.18.1.254 nexthop via 198.18.2.254", "several next hops"},
		{"blackhole", "blackhole 203.0.113.0/24", "a blackhole route"},
		{"unreachable", "unreachable 203.0.113.0/24", "does not forward"},
		{"prohibit", "prohibit 203.0.113.0/24", "prohibits"},
		{"encapsulation", "203.0.113.0/24 encap ip id 5 dst 198.18.1.254 via 198.18.1.254 dev up1", "into a tunnel"},
		{"type of service", "203.0.113.0/24 tos 0x10 via 198.18.2.254", "type of service"},
		{"local", "local 203.0.113.0/24 dev lo", "the router itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			q := l.out()
			l.found(q, "up1", "198.18.1.254", 1500)
			l.changed(c.name, func() { l.ip("route add " + c.route) })
			l.refused(q, c.words)
		})
	}
}

// A type of service that was there before is found in the list.
func TestRouteForServiceBefore(t *testing.T) {
	l := newLab(t)
	l.ip("route add 203.0.113.0/24 tos 0x10 via 198.18.2.254")
	l.settle()
	l.w.mu.Lock()
	l.w.services = false // what the news said
	l.w.mu.Unlock()
	l.refused(l.out(), "type of service")
}

func TestRouteChanges(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("a route", func() { l.ip("route add 203.0.113.0/24 via 198.18.2.253") })
	l.found(q, "up2", "198.18.2.253", 1500)
	l.changed("another next hop", func() { l.ip("route change 203.0.113.0/24 via 198.18.2.252") })
	l.found(q, "up2", "198.18.2.252", 1500)
	l.changed("its MTU", func() { l.ip("route change 203.0.113.0/24 via 198.18.2.252 mtu 1400") })
	l.found(q, "up2", "198.18.2.252", 1400)
	l.changed("a larger MTU than the device's", func() { l.ip("route change 203.0.113.0/24 via 198.18.2.252 mtu 9000") })
	l.found(q, "up2", "198.18.2.252", 1500)
	l.changed("an IPv6 next hop", func() { l.ip("route change 203.0.113.0/24 via inet6 fe80::1 dev up1") })
	l.found(q, "up1", "fe80::1", 1500)
	l.changed("a host on the link", func() { l.ip("route change 203.0.113.0/24 dev up2") })
	l.found(q, "up2", server, 1500)
	l.changed("its end", func() { l.ip("route del 203.0.113.0/24") })
	l.found(q, "up1", "198.18.1.254", 1500)
	l.unchanged("a route to others", func() {
		l.ip("route add 203.0.113.2/31 via 198.18.2.254", "route add 203.0.112.0/24 via 198.18.2.254", "route add 192.0.2.0/24 via 198.18.2.254")
	})
	l.changed("a route to the source", func() { l.ip("route add 10.77.1.0/28 dev up2") })
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("no route", func() { l.ip("route del default") })
	l.refused(q, "no route to")
	l.ip("nexthop add id 5 via 198.18.2.254 dev up2")
	l.ip("route add default nhid 5")
	l.settle()
	l.found(q, "up2", "198.18.2.254", 1500)
	l.changed("its change", func() { l.ip("nexthop replace id 5 via 198.18.1.254 dev up1") })
	l.found(q, "up1", "198.18.1.254", 1500)
}

// What the kernel allows is a part of the answer, and of the news.
func TestForwardingAllowed(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("forwarding off", func() { l.sysctl("net/ipv4/conf/lan/forwarding", "0") })
	l.refused(q, "does not forward")
	l.changed("forwarding on", func() { l.sysctl("net/ipv4/conf/lan/forwarding", "1") })
	l.found(q, "up1", "198.18.1.254", 1500)
	q.Src = netip.MustParseAddr("192.0.2.9")
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("a check of sources", func() { l.sysctl("net/ipv4/conf/lan/rp_filter", "1") })
	l.refused(q, "rp_filter")
}

func TestAddressChange(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.found(q, "up1", "198.18.1.254", 1500)
	l.unchanged("an address that is prolonged", func() { l.ip("addr change 198.18.1.1/24 dev up1 valid_lft 3000 preferred_lft 3000") })
	l.changed("an address that went", func() { l.ip("addr del 198.18.1.1/24 dev up1") })
	l.refused(q, "no route")
}

// Routes that come back with the carrier of a device by which nothing went meanwhile.
func TestRoutesWithLinkdown(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.ip("route add 203.0.113.0/24 via 198.18.2.254")
	l.sysctl("net/ipv4/conf/up2/ignore_routes_with_linkdown", "1")
	l.settle()
	l.found(q, "up2", "198.18.2.254", 1500)
	l.changed("no carrier", func() { l.ip("link set isp2 down") })
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("a carrier", func() { l.ip("link set isp2 up") })
	l.found(q, "up2", "198.18.2.254", 1500)
}

// A next hop that fails is news, another neighbour is not.
func TestNeighbours(t *testing.T) {
	l := newLab(t)
	l.ip("neigh add 198.18.1.254 lladdr 02:00:00:00:00:01 dev up1 nud reachable", "neigh add 198.18.1.7 lladdr 02:00:00:00:00:02 dev up1 nud reachable")
	l.found(l.out(), "up1", "198.18.1.254", 1500)
	l.unchanged("another neighbour that fails", func() { l.ip("neigh change 198.18.1.7 dev up1 nud failed") })
	l.unchanged("a next hop's other address", func() { l.ip("neigh change 198.18.1.254 lladdr 02:00:00:00:00:03 dev up1 nud reachable") })
	l.changed("a next hop that fails", func() { l.ip("neigh change 198.18.1.254 dev up1 nud failed") })
	l.ip("neigh replace 198.18.1.254 lladdr 02:00:00:00:00:01 dev up1 nud permanent")
	l.found(l.out(), "up1", "198.18.1.254", 1500)
}

func TestIPsec(t *testing.T) {
	l := newLab(t)
	q := l.out()
	if l.w.ipsec == nil {
		l.found(q, "up1", "198.18.1.254", 1500) // a kernel without it has nothing to look at
		return
	}
	const template = " tmpl src 198.18.1.1 dst 192.0.2.1 proto esp mode tunnel"
	l.found(q, "up1", "198.18.1.254", 1500)
	add := func(policy string) func() { return func() { l.ip("xfrm policy add " + policy + template) } }
	l.changed("a policy for others", add("dst 192.0.2.0/24 dir out"))
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("a policy for what comes in", add("dst 203.0.113.0/24 dir in"))
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("a policy for UDP", add("dst 203.0.113.0/24 proto udp dir out"))
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("a policy", add("dst 203.0.113.0/24 dir out"))
	l.refused(q, "an IPsec policy is for packets to 203.0.113.0/24")
	l.changed("its end", func() { l.ip("xfrm policy del dst 203.0.113.0/24 dir out") })
	l.found(q, "up1", "198.18.1.254", 1500)
	l.changed("a policy for what is forwarded", add("dir fwd"))
	l.refused(q, "an IPsec policy is for packets to 0.0.0.0/0")
}

// An answer is remembered until news come.
func TestAnswersAreRemembered(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.found(q, "up1", "198.18.1.254", 1500)
	known := func() (answers, links int) {
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		return len(l.w.answers), len(l.w.links)
	}
	if answers, links := known(); answers != 1 || links == 0 {
		t.Errorf("%d answers, %d links are remembered", answers, links)
	}
	l.w.mu.Lock()
	for i := range remembered + 10 {
		l.w.answers[Question{Mark: uint32(i) + 10}] = answer{}
	}
	l.w.mu.Unlock()
	q.Mark = 7
	l.found(q, "up1", "198.18.1.254", 1500)
	if answers, _ := known(); answers != 1 {
		t.Errorf("%d answers are remembered", answers)
	}
	l.changed("a route", func() { l.ip("route add 203.0.113.0/24 via 198.18.2.254") })
	if answers, _ := known(); answers != 0 {
		t.Error("an answer outlived a change")
	}
}

// News that do not fit into the socket are news.
func TestOverflow(t *testing.T) {
	l := newLab(t)
	q := l.out()
	l.found(q, "up1", "198.18.1.254", 1500)
	l.settle()
	if err := l.w.events.SetReadBuffer(1); err != nil { // the kernel's minimum
		t.Fatal(err)
	}
	l.w.mu.Lock() // the reader stops at the first
	batch := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(batch, []byte(strings.Repeat("route add 192.0.2.0/24 via 198.18.2.254\nroute del 192.0.2.0/24\n", 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	l.ip("-batch " + batch)
	l.ip("route add 203.0.113.0/24 via 198.18.2.254")
	l.w.mu.Unlock()
	l.settle()
	if l.w.listed {
		t.Error("routes for types of service are not looked for again")
	}
	l.found(q, "up2", "198.18.2.254", 1500)
}

func TestClose(t *testing.T) {
	inNewNamespace(t)
	w, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	select {
	case _, open := <-w.Changes():
		if open {
			t.Error("Close is news")
		}
	case <-time.After(30 * time.Second):
		t.Error("the channel stays open")
	}
	var reason *Unsafe
	if _, err := w.Find(Question{Src: netip.MustParseAddr(client), Dst: netip.MustParseAddr(server), Link: 1}); err == nil || errors.As(err, &reason) {
		t.Errorf("after Close: %v", err)
	}
}
