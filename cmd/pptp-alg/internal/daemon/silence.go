package daemon

import (
	"time"

	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/cmd/pptp-alg/internal/status"
	"pptp-alg/nat"
)

// This file finds out which side of a call sends GRE and which does not. The kernel's
// counters of the call's two entries know; they are read when the call has been up
// for a while, and at its end.

// record is what the daemon notes about a call. It is nat.Call.Note.
type record struct {
	look    nat.Deadline // at which the counters are read again
	warning string
	ended   *status.Call // as it was at its end
}

func (d *daemon) record(c *nat.Call) *record {
	r, _ := c.Note.(*record)
	if r == nil {
		r = new(record)
		c.Note = r
	}
	return r
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
	r := d.record(c)
	after := max(d.config.Timeouts.Silence, min(now.Sub(c.Up), lookAgain))
	d.table.Schedule(&r.look, now.Add(after), func(now time.Time) {
		if c.State != nat.Established {
			return
		}
		s := d.call(now, c, d.counted)
		kind := news.CallWarning
		switch {
		case s.Warning == "" && r.warning == "":
			return
		case s.Warning == "":
			kind = news.CallRecovered
			d.log.Info("GRE flows both ways now", d.callArgs(c)...)
		case r.warning == "":
			d.limited("call without GRE", append(d.callArgs(c), "warning", s.Warning)...)
		}
		if (s.Warning == "") != (r.warning == "") {
			d.news.Publish(news.Event{Time: now, Kind: kind, Call: &s})
			d.witness(now, kind, c, &s)
		}
		if r.warning = s.Warning; r.warning != "" {
			d.watchGRE(now, c)
		}
	})
}
