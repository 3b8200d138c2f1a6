package daemon

import (
	"testing"
	"time"

	"pptp-alg/alg"
)

// A connection went on while no daemon ran, or it did not: conntrack knows nothing of it
// any more, but all of its calls. It ends, and its calls, unless it shows a sign of life
// before its keepalives are overdue.
func TestForgottenConnection(t *testing.T) {
	inKernel(t, func(kernel *daemon) {
		boot := time.Now().Add(-time.Hour)
		now := boot.Add(10 * time.Minute)
		d := reader(now, boot)
		d.plane, d.ports = kernel.plane, d.config.Ports
		eachRecord(written(boot), d.take)
		for i := range d.connections {
			d.connections[i].local = 0
		}
		for _, r := range d.mappings {
			d.entries[placeAt(arrives(r), zoneOf(r))] = found{remaining: time.Hour}
		}
		d.fill()
		if err := d.restoreConnections(); err != nil {
			t.Error(err)
			return
		}
		var c *alg.Connection
		d.alg.Connections(func(one *alg.Connection) { c = one })
		if d.refused > 0 || c == nil || d.table.Len() != 1 {
			t.Errorf("%d records were refused, %d calls", d.refused, d.table.Len())
			return
		}
		d.table.Expire(now.Add(80 * time.Second))
		if !lives(c) || d.table.Len() != 1 {
			t.Errorf("after 80 s the connection is %v, with %d calls", c.State, d.table.Len())
		}
		d.table.Expire(now.Add(100 * time.Second))
		if c.State != alg.Closed || d.table.Len() != 0 {
			t.Errorf("after 100 s the connection is %v, with %d calls", c.State, d.table.Len())
		}
	})
}
