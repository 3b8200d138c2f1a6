package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// More is removed than the event socket holds, also while what was lost is being
// compared: in the end everything is there.
func TestEventsLost(t *testing.T) {
	inKernel(t, func(d *daemon) {
		d.log, d.volumes, d.removals = slog.New(slog.DiscardHandler), map[string]*volume{}, make(chan removals, 16)
		d.alg = alg.New(alg.Config{}, d.table)
		var err error
		if d.events, err = conntrack.Listen([]uint16{1723}); err != nil {
			t.Error(err)
			return
		}
		defer d.events.Close()
		if err = d.events.SetReadBuffer(1); err != nil { // the kernel's minimum: a few events
			t.Error(err)
			return
		}
		now := time.Now()
		const calls, each = 200, 20
		client, public, server := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.9")
		path := nat.Path{Hosts: [2]nat.Host{{Real: client, Told: public}, {Real: server, Told: server}}}
		for i := range calls / each {
			port := uint16(40000 + i)
			ends := [2]end{
				{netip.AddrPortFrom(client, port), netip.AddrPortFrom(public, port)},
				{netip.AddrPortFrom(server, 1723), netip.AddrPortFrom(server, 1723)},
			}
			c, err := d.alg.Open(now, alg.Flow{Client: ends[nat.Client].real, Server: ends[nat.Server].real}, path)
			if err != nil {
				t.Error(err)
				return
			}
			c.Note = &note{ends: ends}
			if !d.reconnect(c) {
				t.Error("cannot make a connection's entry")
			}
			for j := range each {
				if call := c.Calls().Request(now, nat.Client, nat.Outgoing, uint16(100*i+j), nil); call.Refused {
					t.Error(call.Reason)
					return
				}
			}
		}
		whole := func() bool {
			list, err := d.plane.ct.List()
			if err != nil {
				t.Error(err)
			}
			n := 0
			d.alg.Connections(func(c *alg.Connection) {
				if there, err := d.plane.ct.HasConnection(d.entryOfConnection(c)); there && err == nil {
					n++
				}
			})
			return len(list) == calls && n == calls/each
		}
		if !whole() {
			t.Error("the calls are not there to begin with")
			return
		}
		other, err := conntrack.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer other.Close()
		takeAway := func() {
			list, err := other.List()
			if err != nil {
				t.Error(err)
			}
			for _, s := range list {
				_ = other.Delete(s.Entry)
			}
			d.alg.Connections(func(c *alg.Connection) { _ = other.DeleteConnection(d.entryOfConnection(c)) })
		}
		takeAway() // before anybody reads
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go d.watch(ctx)
		compared := 0
		for deadline := time.After(30 * time.Second); ; {
			select {
			case r := <-d.removals:
				if r.lost {
					if compared++; compared == 1 {
						takeAway() // once more, at the worst time
					}
				}
				d.removed(time.Now(), r)
				continue
			case <-time.After(200 * time.Millisecond): // quiet
			case <-deadline:
				t.Error("events come for ever")
			}
			break
		}
		if d.counters.eventsLost == 0 || compared == 0 {
			t.Errorf("events were lost %d times, compared %d times", d.counters.eventsLost, compared)
		}
		if !whole() {
			t.Error("not everything is back")
		}
		d.alg.Connections(func(c *alg.Connection) { c.Close(now, "test") })
	})
}
