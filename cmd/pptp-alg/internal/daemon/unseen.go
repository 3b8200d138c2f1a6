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
