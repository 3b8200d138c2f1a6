package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// What others take away from the daemon in the kernel comes back, and calls and
// control connections go on.

const tcp = 6 // IP protocol

// interval is the time between packets of counted traffic.
const interval = 2 * time.Millisecond

// counted sends GRE both ways on every call until the function that it returns is
// called, which says how many packets were sent and how many were not answered.
func (w *world) counted(legs ...leg) func() (sent, lost int) {
	var all []*peer.Traffic
	for _, l := range legs {
		all = append(all, l.client.Traffic(interval, 100), l.server.Traffic(interval, 100))
	}
	return func() (sent, lost int) {
		w.Helper()
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, t := range all {
			wg.Go(func() {
				s, l, err := t.Stop(w.ctx)
				mu.Lock()
				defer mu.Unlock()
				w.check(err)
				sent, lost = sent+s, lost+l
			})
		}
		wg.Wait()
		return sent, lost
	}
}

// pairOfCalls has two clients with equal Call IDs at one server.
func (w *world) pairOfCalls() (server *peer.Node, legs []leg) {
	w.Helper()
	server = w.server(0, peer.Config{CallID: peer.Counting(0)})
	for i := range 2 {
		legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Counting(6)}), server), server))
	}
	w.talkLeg(legs...)
	return server, legs
}

// connections lists the conntrack entries of control connections by both tuples.
func (w *world) connections() (map[string]lab.Flow, error) {
	flows, err := w.Router.Conntrack()
	all := map[string]lab.Flow{}
	for _, f := range flows {
		if f.Protocol == tcp {
			all[fmt.Sprintf("%v reply %v zone %d", f.Original, f.Reply, f.Zone)] = f
		}
	}
	return all, err
}

// same waits until the conntrack entries of connections and calls are those.
func (w *world) same(connections map[string]lab.Flow, gre int) {
	w.Helper()
	w.eventually("the conntrack entries should be back", func() error {
		now, err := w.connections()
		if err != nil {
			return err
		}
		for name := range connections {
			if _, ok := now[name]; !ok {
				return fmt.Errorf("no %s among %v", name, now)
			}
		}
		flows, err := w.Router.GRE()
		if err == nil && len(flows) != gre {
			err = fmt.Errorf("%d entries of calls instead of %d", len(flows), gre)
		}
		return err
	})
}

// goOn has everything go on after a fault: the server speaks first, then the
// client, and every connection has another call.
func (w *world) goOn(server *peer.Node, legs []leg) {
	w.Helper()
	for _, l := range legs {
		w.check(l.server.Session().Ping(w.ctx), l.client.Session().Ping(w.ctx))
	}
	w.talkLeg(legs...)
	for _, l := range legs {
		legs = append(legs, w.up(w.call(l.client.Session()), server))
	}
	w.talkLeg(legs...)
	w.listed(legs...)
	w.hangUp(legs...)
	w.finish()
}

// silent waits until no end has an acknowledgement to send. While no daemon runs, one would make conntrack
// begin an entry, with another port or untranslated, and the other end would reset the connection.
func (w *world) silent(legs ...leg) {
	w.Helper()
	for _, l := range legs {
		w.must(l.client.Session().Acknowledged())
		w.must(l.server.Session().Acknowledged())
	}
}

// handles are the numbers that the kernel gives to what is made anew, and of elements
// that come and go with packets.
var handles = regexp.MustCompile(`(handle|rule|set senders,) \d+`)

// rules is the daemon's part of the rules, without those numbers.
func (w *world) rules() string {
	w.Helper()
	ours, _ := split(w.structure())
	return handles.ReplaceAllString(ours, "$1")
}

// split parts the daemon's table from the others.
func split(structure string) (ours, others string) {
	into := &others
	for line := range strings.Lines(structure) {
		if strings.HasPrefix(line, "table ") {
			into = &others
			if strings.HasPrefix(line, "table ip "+table+",") {
				into = &ours
			}
		}
		*into += line
	}
	return ours, others
}

// untranslated takes GRE with inside addresses off the servers' lists of faults,
// and counts it.
func (w *world) untranslated() (n int) {
	for _, node := range w.nodes {
		n += node.Forgive(func(fault string) bool {
			return strings.HasPrefix(fault, "GRE from 10.77.") && node.Address().As4()[0] == lab.WANRouter.As4()[0]
		})
	}
	return n
}

// Nftables, in every way in which others take our table or parts of it away.
func TestTableTakenAway(t *testing.T) {
	for _, f := range []struct {
		name string
		do   func(*world) error
	}{
		{"nft flush ruleset", func(w *world) error { return w.Router.FlushRuleset() }},
		{"our table deleted", func(w *world) error { return w.Router.DeleteTable(table) }},
		{"firewall stopped and started", func(w *world) error {
			return errors.Join(w.Router.DeleteTables(), w.Router.Firewall(lab.Masquerade("wan")))
		}},
		{"firewall reloaded", func(w *world) error { return w.Router.Firewall(lab.Masquerade("wan")) }},
		{"rules deleted", func(w *world) error { return w.Router.FlushChain(table, "prerouting") }},
		{"a chain deleted", func(w *world) error { return w.Router.DeleteChain(table, "nat") }},
		{"guard emptied", func(w *world) error { return w.Router.FlushSet(table, guardSet) }},
		{"ports emptied", func(w *world) error { return w.Router.FlushSet(table, "ports") }},
	} {
		t.Run(f.name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			server, legs := w.pairOfCalls()
			w.daemonStatus() // when it answers, the guard has what the last segment was about
			w.known(2)
			elements, err := w.Router.Elements(table, guardSet)
			w.must(err)
			running := w.rules()
			lost := w.counted(legs...)
			time.Sleep(100 * time.Millisecond) // some traffic before
			began := time.Now()
			w.must(f.do(w))
			whole := func() error {
				if tables, err := w.Router.Tables(); err != nil || len(tables) != 1 {
					return fmt.Errorf("tables %v, %w", tables, err)
				}
				now, err := w.Router.Elements(table, guardSet)
				if err == nil && len(now) != len(elements) {
					err = fmt.Errorf("%d elements of the guard instead of %d", len(now), len(elements))
				}
				return err
			}
			w.eventually("the table should be back", whole)
			back := time.Since(began)
			if f.name == "nft flush ruleset" {
				w.must(w.Router.Firewall(lab.Masquerade("wan"))) // what is not ours is up to its owner
			}
			w.eventually("the rules should be as they were", func() error {
				if now := w.rules(); now != running {
					return fmt.Errorf("they are\n%s\ninstead of\n%s", now, running)
				}
				return whole()
			})
			time.Sleep(100 * time.Millisecond) // and after
			_, w.before = split(w.structure())
			sent, gone := lost()
			t.Logf("the table was seen back after %v; %d of %d packets of calls were lost", back.Round(time.Millisecond), gone, sent)
			if n := w.untranslated(); n > 0 {
				// Without any rule conntrack is switched off.
				t.Logf("%d packets left untranslated meanwhile", n)
				if f.name != "nft flush ruleset" && f.name != "firewall stopped and started" && f.name != "our table deleted" {
					t.Error("though there was still a rule")
				}
			}
			if f.name == "firewall reloaded" && gone > 0 {
				t.Errorf("%d packets were lost though nothing of ours was touched", gone)
			}
			if n := w.daemonStatus().Counter("table_restored"); (n == 0) != (f.name == "firewall reloaded") {
				t.Errorf("the table was restored %d times", n)
			}
			if f.name != "firewall reloaded" && !strings.Contains(w.daemon.Log(), "program=") {
				t.Error("the log does not name the program that did it")
			}
			w.goOn(server, legs)
		})
	}
}

// Somebody takes the table away again and again. The daemon neither gives up nor
// spends its time on it, and in the end the table is there.
func TestTableFight(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server, legs := w.pairOfCalls()
	tries := 0
	for began := time.Now(); time.Since(began) < 3*time.Second; tries++ {
		if w.Router.DeleteTable(table) != nil { // it is not there
			time.Sleep(time.Millisecond)
		}
	}
	if n := w.daemonStatus().Counter("table_restored"); n < 2 || n > 12 {
		t.Errorf("put back %d times in three seconds, after %d attempts", n, tries)
	}
	w.eventually("the table should be there in the end", func() error {
		tables, err := w.Router.Tables()
		if err == nil && len(tables) != 1 {
			err = fmt.Errorf("tables %v", tables)
		}
		return err
	})
	w.goOn(server, legs)
}

// Conntrack, flushed and picked at, in every topology that the entry of a
// control connection knows.
func TestConntrackTakenAway(t *testing.T) {
	only := func(protocol uint8) func(*world) error {
		return func(w *world) error {
			flows, err := w.Router.Conntrack()
			for _, f := range flows {
				if f.Protocol == protocol {
					err = errors.Join(err, w.Router.DeleteFlow(f))
				}
			}
			return err
		}
	}
	for _, f := range []struct {
		name string
		do   func(*world) error
	}{
		{"conntrack -F", func(w *world) error { return w.Router.FlushConntrack() }},
		{"control connections", only(tcp)},
		{"calls", only(47)},
		{"half of the calls' entries", func(w *world) error {
			flows, err := w.Router.GRE()
			for _, f := range flows {
				if f.Original.Dst == lab.WANRouter { // conntrack -D -d
					err = errors.Join(err, w.Router.DeleteFlow(f))
				}
			}
			return err
		}},
		{"everything ten times", func(w *world) (err error) {
			for range 10 {
				err = errors.Join(err, w.Router.FlushConntrack())
			}
			return err
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			server, legs := w.pairOfCalls()
			connections, err := w.connections()
			w.must(err)
			if len(connections) != 2 {
				t.Fatalf("control connections are %v", connections)
			}
			lost := w.counted(legs...)
			time.Sleep(100 * time.Millisecond)
			w.must(f.do(w))
			w.same(connections, 2*len(legs))
			time.Sleep(100 * time.Millisecond)
			sent, gone := lost()
			t.Logf("%d of %d packets of calls were lost", gone, sent)
			w.goOn(server, legs)
		})
	}
}

// The topologies of a control connection: after a flush its server speaks at once, whether its entry is back or not.
func TestFlushInTopologies(t *testing.T) {
	forwarded := netip.AddrPortFrom(lab.WANRouter, peer.Port)
	for _, c := range []struct {
		name string
		plan lab.Plan
		port uint16
		dial netip.AddrPort
	}{
		{"no NAT", lab.Plan{Clients: 1, Servers: 1, Routed: true, Firewall: []lab.Piece{}}, peer.Port, netip.AddrPort{}},
		{"zone", lab.Plan{Clients: 1, Servers: 1, Firewall: []lab.Piece{lab.Zone("lan", 7), lab.Zone("wan", 7), lab.Masquerade("wan")}}, peer.Port, netip.AddrPort{}},
		{"port chosen at random", lab.Plan{Clients: 1, Servers: 1, Firewall: []lab.Piece{lab.SNATRandom("wan", lab.WANRouter, lab.WANRouter)}}, peer.Port, netip.AddrPort{}},
		{"forwarded to another port", lab.Plan{Clients: 1, Servers: 1,
			Firewall: []lab.Piece{lab.DNAT(forwarded, netip.MustParseAddrPort("10.77.1.1:4711")), lab.Masquerade("wan")}}, 4711, forwarded},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := withDaemon(t, c.plan)
			at, from, dial := w.Servers[0], w.Clients[0], c.dial
			if dial.IsValid() {
				at, from = from, at
			} else {
				dial = netip.AddrPortFrom(at.Address, c.port)
			}
			server := w.node(at, peer.Config{CallID: peer.Counting(0)})
			w.must(server.Listen(c.port))
			client := w.node(from, peer.Config{CallID: peer.Counting(6)})
			legs := []leg{w.up(w.call(w.dialTo(client, dial)), server)}
			w.talkLeg(legs...)
			w.known(1)
			connections, err := w.connections()
			w.must(err)
			for range 10 {
				w.must(w.Router.FlushConntrack())
				w.check(legs[0].server.Session().Ping(w.ctx), legs[0].client.Session().Ping(w.ctx))
			}
			w.same(connections, 2)
			w.goOn(server, legs)
		})
	}
}

// A flush of so many entries that the news of it does not fit into the socket.
func TestFlushOfThousands(t *testing.T) {
	clients, each := 40, 50
	if testing.Short() {
		clients, each = 4, 10
	}
	w := withDaemon(t, lab.Plan{Clients: clients, Servers: 1, Shared: true})
	server := w.server(0, peer.Config{})
	var legs []leg
	for i := range clients {
		session := w.dial(w.client(i, peer.Config{CallID: peer.Counting(1)}), server)
		for range each {
			c := w.call(session)
			if len(legs) < 8 || len(legs)%each == 0 {
				legs = append(legs, w.up(c, server))
			}
		}
	}
	w.status(clients * each)
	connections, err := w.connections()
	w.must(err)
	for range 3 {
		w.must(w.Router.FlushConntrack())
	}
	w.same(connections, 2*clients*each)
	for _, l := range legs {
		w.check(l.server.Session().Ping(w.ctx), l.client.Session().Ping(w.ctx))
	}
	w.talkLeg(legs...)
	s := w.status(clients * each)
	t.Logf("events lost %d times, %d entries of calls and %d of control connections put back",
		s.Counter("events_lost"), s.Counter("entries_removed"), s.Counter("connections_restored"))
	w.finish()
}

// The interface goes down and up and keeps its address. Masquerading forgets its
// connections when that happens; the daemon does not.
func TestInterfaceDownAndUp(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server, legs := w.pairOfCalls()
	connections, err := w.connections()
	w.must(err)
	for range 2 {
		w.must(w.Router.SetLink("wan", false))
		w.eventually("masquerading should forget the connections, and the daemon should not", func() error {
			if n := w.daemonStatus().Counter("connections_restored"); n < 2 {
				return fmt.Errorf("%d connections put back", n)
			}
			return nil
		})
		w.must(w.Router.SetLink("wan", true))
		w.same(connections, 4)
		w.eventually("packets should pass again", func() error { return legs[0].client.Echo(w.ctx, 1, 100) })
	}
	lost := w.counted(legs...)
	time.Sleep(100 * time.Millisecond)
	if sent, gone := lost(); gone > 0 {
		t.Errorf("%d of %d packets were lost afterwards", gone, sent)
	}
	w.goOn(server, legs)
}

// An idle daemon sleeps: it has no clock that ticks, and other tables' peace is
// its own.
func TestIdleSleeps(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	_, legs := w.pairOfCalls()
	time.Sleep(3 * time.Second) // until the last timers of the setting up are over
	for try := 0; ; try++ {
		lost := w.counted(legs...) // calls cost it nothing either
		before, err := w.daemon.Wakeups()
		w.must(err)
		time.Sleep(3 * time.Second)
		after, err := w.daemon.Wakeups()
		w.must(err)
		if sent, gone := lost(); gone > 0 {
			t.Errorf("%d of %d packets were lost", gone, sent)
		}
		t.Logf("woken %d times in three seconds", after-before)
		if after-before <= 10 {
			break
		}
		if try == 3 {
			t.Errorf("an idle daemon was woken %d times in three seconds", after-before)
			break
		}
	}
	w.hangUp(legs...)
	w.finish()
}
