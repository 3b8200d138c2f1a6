package daemon

import (
	"slices"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/cmd/pptp-alg/internal/status"
	"pptp-alg/nat"
)

// This file finds out which side of a call sends GRE and which does not. The kernel's
// counters of the call's two entries know; they are read when the call has been up
// for a while, and at its end.

// watched is what the daemon notes about a call that is up: its nat.Call.Note. That of one that has ended is a
// *status.Call, as it was at its end.
type watched struct {
	look   nat.Deadline // at which the counters are read again
	warned bool         // a side was silent when they were read last
}

func (d *daemon) watched(c *nat.Call) *watched {
	w, _ := c.Note.(*watched)
	if w == nil {
		w = new(watched)
		c.Note = w
	}
	return w
}

// A counter returns packets and bytes that flowed in a mapping, or nil where the
// kernel does not count. The mapping is nil while a side's Call ID is unknown.
type counter func(*nat.Mapping) (packets, bytes *uint64)

// past counts what is known without asking the kernel.
func past(m *nat.Mapping) (packets, bytes *uint64) {
	if m == nil {
		return status.Known[uint64](0), status.Known[uint64](0)
	}
	return status.Known(m.Past.Packets), status.Known(m.Past.Bytes)
}

// counted asks the kernel.
func (d *daemon) counted(m *nat.Mapping) (packets, bytes *uint64) {
	if m == nil || !m.Open() {
		return past(m)
	}
	stored, err := d.plane.ct.Get(entryOf(m))
	if err == nil && !stored.Accounted {
		return nil, nil
	}
	// An entry that is gone counts nothing more.
	t := sum(sum(m.Past, stored.Counters), d.fast.traffic(m))
	return status.Known(t.Packets), status.Known(t.Bytes)
}

// lookAgain is how long a call that has been without GRE for ever is left alone at
// most.
const lookAgain = time.Hour

// watchGRE has the counters of a new call read after a while. Where a side is silent
// then, they are read again until it is not, ever more rarely: after as long as the
// call has been up. A router may have thousands of calls that nobody uses.
func (d *daemon) watchGRE(now time.Time, c *nat.Call) {
	w := d.watched(c)
	after := max(d.config.Timeouts.Silence, min(now.Sub(c.Up), lookAgain))
	d.table.Schedule(&w.look, now.Add(after), func(now time.Time) {
		if c.State != nat.Established {
			return
		}
		w := d.watched(c)
		if w.warned && d.silent(c) { // as before
			d.watchGRE(now, c)
			return
		}
		s := d.call(now, c, d.counted)
		kind, silent := news.CallWarning, s.Warning != ""
		switch {
		case silent == w.warned:
		case silent:
			d.limited("call without GRE", append(d.callArgs(c), "warning", s.Warning)...)
		default:
			kind = news.CallRecovered
			d.log.Info("GRE flows both ways now", d.callArgs(c)...)
		}
		if silent != w.warned {
			d.news.Publish(news.Event{Time: now, Kind: kind, Call: &s})
			d.witness(now, kind, c, &s)
		}
		if w.warned = silent; silent {
			d.watchGRE(now, c)
		}
	})
}

// silent reports whether a side has not sent anything. A router with thousands of calls that nobody uses asks itself this
// thousands of times, and describing each would leave much for the collector.
func (d *daemon) silent(c *nat.Call) bool {
	return slices.ContainsFunc(c.Ends[:], func(m *nat.Mapping) bool {
		packets, _ := d.counted(m)
		return packets != nil && *packets == 0
	})
}
