package daemon

import (
	"fmt"
	"net/netip"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// addressWait is how long the calls of an address that was removed wait for it to
// come back. Some programs remove an address and add it again when a lease is
// renewed. Meanwhile their GRE is dropped: nothing leaves from an address that is
// not the router's, and may be somebody else's already.
const addressWait = 2 * time.Second

// uses reports whether an address is one of a path's four.
func uses(p *nat.Path, a netip.Addr) bool {
	for _, h := range p.Hosts {
		if h.Real == a || h.Told == a {
			return true
		}
	}
	return false
}

// ours reports whether an address is this router's, or was until a moment ago and may come back.
func (k *keeper) ours(a netip.Addr) bool { return k.local[a] || k.away[a] != nil }

// addressesOf lists a path's four addresses.
func addressesOf(p *nat.Path) [4]netip.Addr {
	client, server := p.Hosts[nat.Client], p.Hosts[nat.Server]
	return [4]netip.Addr{client.Real, client.Told, server.Real, server.Told}
}

// owned says with a bit for each of addressesOf whether it is ours. Calls can be translated to addresses that no
// interface ever had: that those are not there means nothing.
func owned(p *nat.Path, ours func(netip.Addr) bool) (bits uint8) {
	for i, a := range addressesOf(p) {
		if ours(a) {
			bits |= 1 << i
		}
	}
	return bits
}

// isAway reports whether an address of the path was removed from this router.
func (d *daemon) isAway(p *nat.Path) bool {
	for a := range d.keeper.away {
		if uses(p, a) {
			return true
		}
	}
	return false
}

// standsStill reports whether a control connection waits for its address. Its
// segments must not pass: what the client says would be translated anew, and the
// server would end the connection.
func (d *daemon) standsStill(c *alg.Connection) bool {
	path := c.Path()
	return c.State != alg.Closed && d.isAway(&path)
}

// addressesChanged is called when addresses of the router were added or removed.
func (d *daemon) addressesChanged(now time.Time, err error) {
	k := &d.keeper
	if err != nil {
		d.log.Error("addresses can no longer be watched: calls go on when their address is removed", "error", err)
		d.fast.end(now, "addresses can no longer be watched")
		return
	}
	d.fast.halt(now, "addresses have changed")
	local, err := k.addresses.Local()
	if err != nil {
		d.limited("cannot list the addresses of this router", "error", err)
		return
	}
	for a := range k.local {
		if !local[a] && k.away[a] == nil {
			d.addressGone(now, a)
		}
	}
	for a := range k.away {
		if local[a] {
			d.addressBack(now, a)
		}
	}
	k.local = local
}

// at calls f for the control connections that use an address.
func (d *daemon) at(a netip.Addr, f func(*alg.Connection)) (n int) {
	var all []*alg.Connection
	d.alg.Connections(func(c *alg.Connection) {
		if p := c.Path(); uses(&p, a) && c.State != alg.Closed {
			all = append(all, c)
		}
	})
	for _, c := range all { // which f may take away
		f(c)
	}
	return len(all)
}

// mappingsAt calls f for the mappings that use an address and are open.
func (d *daemon) mappingsAt(a netip.Addr, f func(*nat.Mapping)) {
	d.table.Mappings(func(m *nat.Mapping) {
		if m.Open() && uses(m.Path, a) {
			f(m)
		}
	})
}

// addressGone stops everything that uses an address.
func (d *daemon) addressGone(now time.Time, a netip.Addr) {
	n := d.at(a, d.forget)
	d.mappingsAt(a, d.plane.Pause)
	if n == 0 {
		return
	}
	until := new(nat.Deadline)
	d.keeper.away[a] = until
	d.table.Schedule(until, now.Add(addressWait), func(now time.Time) { d.addressLost(now, a) })
	d.log.Warn("an address was removed from this router: its calls are stopped, and end unless it comes back", "address", a,
		"within", addressWait, "control connections", n)
}

// addressBack lets go on what addressGone has stopped.
func (d *daemon) addressBack(now time.Time, a netip.Addr) {
	d.keeper.away[a].Clear()
	delete(d.keeper.away, a)
	d.mappingsAt(a, func(m *nat.Mapping) {
		if d.plane.Resume(m) != nil {
			d.table.RenewSoon(now, m)
		}
	})
	n := d.at(a, func(c *alg.Connection) {
		if lives(c) {
			d.reconnect(c)
		}
	})
	d.log.Info("an address of this router came back: its calls go on", "address", a, "control connections", n)
}

// addressLost ends what addressGone has stopped. The ends learn of it when they
// next speak: with no entry, the client's next segment is translated anew, and
// the server resets a connection that it does not know.
func (d *daemon) addressLost(now time.Time, a netip.Addr) {
	delete(d.keeper.away, a)
	n := d.at(a, func(c *alg.Connection) {
		kind := "public address"
		if p := c.Path(); p.Hosts[nat.Client].Real == a || p.Hosts[nat.Server].Real == a {
			kind = "address"
		}
		d.forget(c) // which a bare acknowledgement may have brought back
		c.Close(now, fmt.Sprintf("%s %v was removed from this router", kind, a))
	})
	d.log.Warn("calls ended with their address", "address", a, "control connections", n)
}
