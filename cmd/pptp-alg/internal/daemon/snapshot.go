package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/cmd/pptp-alg/internal/status"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// counting is what reads the kernel's counters of all calls, on a socket of its
// own: it takes a while, in which the owner has packets to look after.
type counting struct {
	mu      sync.Mutex // one status at a time
	ct      *conntrack.Client
	carried nat.Traffic // what metrics last said
}

// snapshot is what the owner alone can say for the status. Everything else is
// made of it elsewhere.
type snapshot struct {
	status  status.Status // complete but for its calls
	calls   []nat.Call
	ends    [][2]nat.Mapping // of the calls; those that there are
	paths   []*status.FastPath
	fast    *fastpath.Path // nil: off
	taken   time.Time
	silence time.Duration
}

// snapshot copies what may change.
func (d *daemon) snapshot() (snapshot, error) {
	s := d.snapshotCalls()
	s.status.Version, s.status.Started, s.status.Counters = d.version, wall(time.Now(), d.started), d.count()
	s.status.Anchor = d.anchor.String()
	s.status.FastPath = d.cannot
	if d.fast != nil {
		s.fast, s.status.FastPath = d.fast.path, "on"
	}
	return s, nil
}

// snapshotCalls copies the calls and the control connections. A call's connection
// is not copied: its path does not change.
func (d *daemon) snapshotCalls() snapshot {
	s := snapshot{
		calls: make([]nat.Call, 0, d.table.Len()), ends: make([][2]nat.Mapping, 0, d.table.Len()),
		taken: time.Now(), silence: d.config.Timeouts.Silence,
	}
	d.table.Calls(func(c *nat.Call) {
		var ends [2]nat.Mapping
		for i, m := range c.Ends {
			if m != nil {
				ends[i] = *m
			}
		}
		s.calls, s.ends = append(s.calls, *c), append(s.ends, ends)
		if d.fast != nil {
			s.paths = append(s.paths, d.fast.describe(c))
		}
	})
	for _, c := range d.table.Ended() {
		if ended, ok := c.Note.(*status.Call); ok {
			s.status.Ended = append(s.status.Ended, *ended)
		}
	}
	s.status.Connections = make([]status.Connection, 0, d.alg.Len())
	d.alg.Connections(func(c *alg.Connection) {
		if c.State != alg.Closed {
			s.status.Connections = append(s.status.Connections, connection(c))
		}
	})
	return s
}

// describe makes the status of a snapshot and of the kernel's counters.
func (s *snapshot) describe(flows map[conntrack.GRE]conntrack.Stored) status.Status {
	count := func(m *nat.Mapping) (packets, bytes *uint64) { return traffic(m, flows) }
	s.status.Calls = make([]status.Call, len(s.calls))
	for i := range s.calls {
		c := &s.calls[i]
		for side := range c.Ends {
			if c.Ends[side] != nil {
				c.Ends[side] = &s.ends[i][side]
			}
		}
		s.status.Calls[i] = describeCall(s.taken, c, count, s.silence)
		if s.paths != nil {
			s.status.Calls[i].FastPath = s.paths[i]
		}
	}
	s.status.Sort()
	return s.status
}

// status describes everything. Any goroutine may ask.
func (d *daemon) status(ctx context.Context) (status.Status, error) {
	d.counting.mu.Lock()
	defer d.counting.mu.Unlock()
	s, err := ask(ctx, d, d.snapshot)
	if err != nil {
		return status.Status{}, err
	}
	stored, err := d.counting.ct.List()
	if err != nil {
		return status.Status{}, fmt.Errorf("read the calls' counters: %w", err)
	}
	flows := make(map[conntrack.GRE]conntrack.Stored, len(stored))
	for _, e := range stored {
		flows[e.Arrives] = e
	}
	if s.fast != nil {
		if err := addCarried(s.fast, flows); err != nil {
			return status.Status{}, err
		}
	}
	return s.describe(flows), nil
}
