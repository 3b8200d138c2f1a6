package daemon

import (
	"errors"
	"time"

	"pptp-alg/alg"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// This file keeps the conntrack entries of control connections, and of everything
// after news of removals were lost.

// entryOfConnection returns the conntrack entry of a control connection, without a timeout. Whoever
// the kernel took for its opener, it is the client here.
func (d *daemon) entryOfConnection(c *alg.Connection) conntrack.Connection {
	ends, path := noteOf(c).ends, c.Path()
	client, server := ends[nat.Client], ends[nat.Server]
	return conntrack.Connection{
		Original: conntrack.Tuple{Src: client.real, Dst: server.told},
		Reply:    conntrack.Tuple{Src: server.real, Dst: client.told},
		Zone:     conntrack.Zone{ID: path.Zone.ID, Direction: conntrack.Direction(path.Zone.Direction)},
		Mark:     path.Mark,
		Helper:   d.anchor.helper, // only new entries get it from the rules
	}
}

// lives reports whether a control connection has segments to come that need its
// entry.
func lives(c *alg.Connection) bool { return c.State != alg.Closing && c.State != alg.Closed }

// disappeared is called when the conntrack entry of a control connection is
// gone. If it was removed, it is put back before the next segment: without it,
// what the server says would be answered with a reset. If the kernel let it
// expire, or saw the connection's end, the connection is probably over.
//
// An entry that expires has no time left. One that masquerading removes has,
// when its interface goes down.
func (d *daemon) disappeared(now time.Time, c *alg.Connection, e conntrack.Event) {
	d.counters.removedConnections++
	expired := e.PortID == 0 && e.Timeout == 0
	ending := e.TCPState > conntrack.TCPEstablished
	switch {
	case d.standsStill(c):
		// addressLost or addressBack decides.
	case e.TCPState >= conntrack.TCPTimeWait: // both sides closed it, or one reset it
		c.Over(now)
	case expired && !ending && lives(c) && d.stayedUnheard(c):
		d.expiredUnheard(now, c)
	case !lives(c), expired, ending, !d.reconnect(c):
		c.Lost(now)
	}
}

// reconnect puts the conntrack entry of a control connection back.
func (d *daemon) reconnect(c *alg.Connection) bool {
	entry := d.entryOfConnection(c)
	entry.Timeout = min(conntrack.EstablishedTimeout(), d.config.Timeouts.Unheard)
	restored, err := d.plane.ct.RestoreConnection(entry)
	if lacking := (*conntrack.UnsupportedError)(nil); errors.As(err, &lacking) && entry.Helper != "" {
		entry.Helper = ""
		restored, err = d.plane.ct.RestoreConnection(entry)
	}
	noteOf(c).stuck = err != nil
	d.review(c)
	if err != nil {
		d.limited("cannot put the conntrack entry of a control connection back", "client", c.Flow.Client, "server", c.Flow.Server, "error", err)
		return false
	}
	if restored {
		d.unheard[c] = heard{}
		d.counters.restoredConnections++
		d.limited("put the conntrack entry of a control connection back, which another program or the kernel had removed",
			"client", c.Flow.Client, "server", c.Flow.Server)
	}
	return true
}

// resynchronise finds out what is gone of our entries when the news of it was lost.
func (d *daemon) resynchronise(now time.Time) {
	type place struct {
		arrives conntrack.GRE
		zone    conntrack.Zone
	}
	stored, err := d.plane.ct.List()
	if err != nil {
		d.plane.errors++
		d.limited("cannot list the conntrack entries of calls", "error", err)
		return
	}
	there := make(map[place]conntrack.GRE, len(stored))
	for _, s := range stored {
		there[place{s.Arrives, s.Zone}] = s.Leaves
	}
	var lost []*nat.Mapping
	d.table.Mappings(func(m *nat.Mapping) {
		e := entryOf(m)
		if leaves, ok := there[place{e.Arrives, e.Zone}]; m.Open() && (!ok || leaves != e.Leaves) {
			lost = append(lost, m)
		}
	})
	for _, m := range lost {
		d.counters.removedEntries++
		if d.plane.Lost(m, conntrack.Counters{}) != nil {
			d.table.RenewSoon(now, m)
		}
	}
	connections := 0
	d.alg.Connections(func(c *alg.Connection) {
		if !lives(c) || d.standsStill(c) {
			return
		}
		if there, err := d.plane.ct.HasConnection(d.entryOfConnection(c)); err == nil && !there {
			d.counters.removedConnections++
			connections++
			d.reconnect(c)
		}
	})
	d.log.Info("compared the conntrack table with the calls", "entries put back", len(lost), "control connections put back", connections)
}

// forget removes the conntrack entry of a control connection.
func (d *daemon) forget(c *alg.Connection) {
	if err := d.plane.ct.DeleteConnection(d.entryOfConnection(c)); err != nil && !errors.Is(err, conntrack.ErrNotFound) {
		d.plane.errors++
		d.limited("cannot delete the conntrack entry of a control connection", "client", c.Flow.Client, "server", c.Flow.Server, "error", err)
	}
}
