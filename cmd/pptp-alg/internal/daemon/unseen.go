package daemon

import (
	"time"

	"pptp-alg/alg"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// inKernel lists the control connections that conntrack knows, and their states, by their flows.
func (d *daemon) inKernel() (map[alg.Flow]way, map[alg.Flow]conntrack.TCPState, error) {
	list, err := d.plane.ct.Connections(d.ports)
	if err != nil {
		return nil, nil, err
	}
	ways, states := map[alg.Flow]way{}, map[alg.Flow]conntrack.TCPState{}
	for _, c := range list {
		var w way
		w.client, w.server, w.path = orient(c, d.ports)
		// Kernels that send no conntrack entries along do not tell zones apart.
		flow := w.flow(nat.Zone{})
		for _, f := range [...]alg.Flow{flow, w.flow(w.path.Zone)} {
			if old, twice := ways[f]; !twice || old.path.Zone != w.path.Zone {
				ways[f], states[f] = w, c.State
			}
		}
	}
	return ways, states, nil
}

// unseenLater is when it is looked again for connections that ended while our rules were gone: one of their ends may
// have done so a little later than the other.
const unseenLater = 5 * time.Second

// lookForUnseen is called when our rules are back.
func (d *daemon) lookForUnseen(now time.Time) {
	d.endedUnseen(now)
	d.table.Schedule(&d.keeper.unseen, now.Add(unseenLater), d.endedUnseen)
}

// endedUnseen ends the control connections whose last segments did not come by here because our rules were gone:
// conntrack saw them. It would forget the connections two minutes later, and until then their calls were listed.
func (d *daemon) endedUnseen(now time.Time) {
	if d.alg.Len() == 0 {
		return
	}
	_, states, err := d.inKernel()
	if err != nil {
		d.plane.errors++
		d.limited("cannot list the control connections", "error", err)
		return
	}
	var over []*alg.Connection
	d.alg.Connections(func(c *alg.Connection) {
		switch state := states[c.Flow]; {
		case !lives(c) || d.standsStill(c):
		case state >= conntrack.TCPTimeWait: // both sides closed it, or one reset it
			over = append(over, c)
		case state > conntrack.TCPEstablished:
			c.Over(now) // which waits for a sign of life
		}
	})
	for _, c := range over {
		c.Close(now, "control connection was closed while this daemon's rules were gone")
	}
}

// A control connection whose entry was put back may be over: while there was no entry, a reset by the client was dropped
// as invalid, say, and the server was sent one by this router. Conntrack would keep the entry for days. So it is made
// for a time in which every living connection says something, and expires unless there was anything.

// heard is what was known of the calls of such a connection when its entry expired the last time.
type heard struct {
	expired bool
	packets uint64 // of GRE
}

// stayedUnheard reports whether the entry that has expired was one that had been put back.
func (d *daemon) stayedUnheard(c *alg.Connection) bool {
	_, back := d.unheard[c]
	return back
}

// expiredUnheard ends a connection that said nothing since its entry was put back. A second time is needed for that, in
// which its calls carried no GRE either.
func (d *daemon) expiredUnheard(now time.Time, c *alg.Connection) {
	last, is, counted := d.unheard[c], heard{expired: true}, true
	c.Calls().Each(func(call *nat.Call) {
		for _, m := range call.Ends {
			if packets, _ := d.counted(m); packets != nil {
				is.packets += *packets
			} else if m != nil && m.Open() {
				counted = false // conntrack does not count here, so nobody knows
			}
		}
	})
	if counted && last == is || !d.reconnect(c) {
		c.Over(now)
		return
	}
	d.unheard[c] = is
}
