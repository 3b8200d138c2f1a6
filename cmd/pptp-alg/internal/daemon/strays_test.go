package daemon

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// The rules know a control connection as long as its conntrack entry would be put back: not when that failed, until it is there
// again, and not when the connection is over. What the kernel refuses is tried again.
func TestKnownToTheRules(t *testing.T) {
	inKernel(t, func(d *daemon) {
		now := time.Now()
		d.journal = newJournal(nil)
		d.log, d.volumes = slog.New(slog.DiscardHandler), map[string]*volume{}
		d.alg = alg.New(alg.Config{Decide: func(*alg.Segment, alg.Verdict) {}, Changed: d.connectionChanged}, d.table)
		client, public, server := netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("192.0.2.1:41000"), netip.MustParseAddrPort("203.0.113.9:1723")
		open := func() *alg.Connection {
			c, err := d.alg.Open(now, alg.Flow{Client: client, Server: server},
				nat.Path{Hosts: [2]nat.Host{{Real: client.Addr(), Told: public.Addr()}, {Real: server.Addr(), Told: server.Addr()}}})
			if err != nil {
				t.Error(err)
				return nil
			}
			c.Note = &note{ends: [2]end{{client, public}, {server, server}}}
			d.review(c)
			return c
		}
		flows := []rules.Flow{{Src: client, Dst: server}, {Src: server, Dst: public}}
		is := func(known bool, when string) {
			t.Helper()
			d.setFlows(now)
			list, err := d.plane.rules.Flows()
			missing, e := d.plane.rules.MissingFlows(flows)
			if err != nil || e != nil || known && (len(list) != 2 || len(missing) > 0) || !known && len(list) > 0 {
				t.Errorf("%s: %v, %v %v", when, list, err, e)
			}
		}
		c := open()
		if c == nil {
			return
		}
		is(true, "when it is new")
		if !d.reconnect(c) {
			t.Error("its entry cannot be made")
		}
		is(true, "with its entry")

		_ = d.plane.ct.DeleteConnection(d.entryOfConnection(c))
		works := d.plane.ct
		broken, err := conntrack.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		_ = broken.Close()
		d.plane.ct = broken
		d.disappeared(now, c, conntrack.Event{Flow: conntrack.Flow{TCPState: conntrack.TCPEstablished, Timeout: time.Hour}})
		d.plane.ct = works
		is(false, "when its entry cannot be put back")
		if !d.reconnect(c) {
			t.Error("its entry cannot be put back")
		}
		is(true, "when it can again")

		c.Close(now, "test")
		next := open()
		is(true, "when another connection begins between the same ends at once")

		rulesWork := d.plane.rules
		brokenRules, err := rules.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		_ = brokenRules.Close()
		d.plane.rules = brokenRules
		next.Close(now, "test")
		d.setFlows(now)
		d.plane.rules = rulesWork
		if list, err := rulesWork.Flows(); len(list) != 2 || err != nil || !d.strays.waiting {
			t.Errorf("after the kernel has refused: %v, %v", list, err)
		}
		d.table.Expire(now.Add(guardPause))
		if list, err := rulesWork.Flows(); len(list) > 0 || err != nil {
			t.Errorf("a second later: %v, %v", list, err)
		}

		open()
		if err := rulesWork.Remove(); err != nil {
			t.Error(err)
		}
		d.setFlows(now)
		if len(d.strays.changed) > 0 {
			t.Error("a table that is gone is waited for")
		}
		if err := rulesWork.ApplyWith(d.ruleset, d.elements()); err != nil {
			t.Error(err)
		}
		is(true, "when the table is back")
	})
}
