package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// expireAtOnce is how much of what is due is done before packets get a turn again.
const expireAtOnce = 16

// loop is the owner. It returns nil when ctx is done.
func (d *daemon) loop(ctx context.Context, reload <-chan config.Config) error {
	go d.watch(ctx)
	d.keeper.watch(ctx)
	d.fast.watch(ctx)
	packets := d.shared(ctx)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	pulse, stopPulse := d.pulse()
	defer stopPulse()
	var begun time.Time // with a segment
	for {
		if next, ok := d.table.Next(); ok {
			timer.Reset(time.Until(next))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return nil
		case p, ok := <-packets:
			if !ok {
				if ctx.Err() != nil {
					return nil // who shares out the packets was told to stop too
				}
				if err := d.queue.Err(); err != nil {
					return err
				}
				return errQueueClosed
			}
			begun = time.Now()
			d.packet(begun, p)
		case <-timer.C:
			d.table.ExpireSome(time.Now(), expireAtOnce)
		case r := <-d.removals:
			d.removed(time.Now(), r)
		case c := <-d.keeper.changes:
			d.tablesChanged(time.Now(), c)
		case err := <-d.keeper.moves:
			d.addressesChanged(time.Now(), err)
		case s := <-d.fast.sights():
			d.fast.saw(s)
		case <-d.fast.changes():
			d.fast.halt(time.Now(), "routes or devices have changed")
		case <-d.fast.appeared():
			d.fast.devices()
		case <-d.fast.moved():
			d.fast.stationsMoved(time.Now())
		case <-pulse:
			d.alive()
		case f := <-d.requests:
			f()
		case c := <-reload:
			d.reload(c)
		}
		d.plane.catchUp()
		if len(d.plane.unguarded) > 0 { // the turn that this begins tries again
			d.table.Schedule(&d.again, d.plane.behind, func(time.Time) {})
		}
		d.journal.flush(time.Now())
		d.evidence.Flush()
		if !begun.IsZero() {
			d.tally.add(time.Since(begun))
			begun = time.Time{}
		}
	}
}

// ask has the owner answer a question from another goroutine.
func ask[T any](ctx context.Context, d *daemon, question func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	var none T
	select {
	case d.requests <- func() {
		v, err := question()
		answers <- answer{v, err}
	}:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// removals is what came from the event socket: entries that are gone, or the
// news that some such news was lost.
type removals struct {
	events []conntrack.Event
	err    error
	lost   bool // news were lost, and all that were not have been handed over
}

// The kernel does not tell again of lost news before the socket was empty. So
// what there is afterwards is compared when that is the case, or now and then.
const (
	silence  = 20 * time.Millisecond
	patience = time.Second
)

// watch hands removals to the owner until the socket is closed.
func (d *daemon) watch(ctx context.Context) {
	var until time.Time // to compare at the latest; zero: nothing was lost
	wait := patience    // longer with each comparison, until it is quiet again
	for {
		if !until.IsZero() {
			_ = d.events.SetReadDeadline(time.Now().Add(silence))
		}
		events, err := d.events.Receive()
		r := removals{events: events, err: err}
		overflow := errors.Is(err, conntrack.ErrOverflow)
		quiet := errors.Is(err, os.ErrDeadlineExceeded)
		switch {
		case overflow && until.IsZero():
			until = time.Now().Add(wait)
		case quiet:
			until, wait = time.Time{}, patience
			_ = d.events.SetReadDeadline(until)
			r.lost, r.err = true, nil
		case !until.IsZero() && time.Now().After(until):
			wait *= 2
			until = time.Now().Add(wait)
			r.lost = true
		}
		if r.err != nil && !overflow && ctx.Err() != nil {
			return
		}
		select {
		case d.removals <- r:
		case <-ctx.Done():
			return
		}
		if r.err != nil && !overflow {
			return
		}
	}
}

// removed looks at what left the kernel's table.
func (d *daemon) removed(now time.Time, r removals) {
	if r.err != nil {
		d.counters.eventsLost++
		d.limited("news of removed conntrack entries was lost", "error", r.err)
		d.report(news.NewsLost, "%v", r.err)
	}
	if r.lost {
		d.resynchronise(now)
	}
	for _, e := range r.events {
		if c, ok := e.Connection(); ok {
			var w way
			w.client, w.server, w.path = orient(c, d.ports)
			for _, zone := range [...]nat.Zone{w.path.Zone, {}} {
				if known := d.alg.Find(w.flow(zone)); known != nil && known.Path().Zone == w.path.Zone {
					d.disappeared(now, known, e)
					break
				}
			}
			continue
		}
		if stored, ok := e.Stored(); ok {
			if m := d.mapping(stored.Arrives, stored.Zone); m != nil && m.Open() {
				d.counters.removedEntries++
				if d.plane.Lost(m, stored.Counters) != nil {
					d.table.RenewSoon(now, m)
				}
				if c := m.Call(); c != nil && d.news.Heard() {
					s := d.call(now, c, past)
					d.news.Publish(news.Event{Time: now, Kind: news.EntryRestored, Call: &s, Message: stored.String()})
				}
			}
		}
	}
}

// mapping finds the mapping of a conntrack entry.
func (d *daemon) mapping(g conntrack.GRE, z conntrack.Zone) *nat.Mapping {
	zone := z.ID
	if z.Direction == conntrack.ReplyOnly {
		zone = 0 // what arrives is in the original direction
	}
	return d.table.Find(nat.Tuple{Src: g.Src, Dst: g.Dst, CallID: g.CallID}, zone)
}

// reload takes over what can be changed while calls are up.
func (d *daemon) reload(c config.Config) {
	d.tell(d.manager.Reloading())
	defer d.ready()
	fixed := d.config
	changed, later := c.TakeOver(fixed)
	if len(later) > 0 {
		d.log.Warn("these settings change at the next start only", "keys", strings.Join(later, ", "))
	}
	before := d.anchor
	if c.Anchor != fixed.Anchor {
		d.chooseAnchor(c.Anchor)
	}
	ruleset, err := d.rulesFor(c)
	if err == nil {
		err = d.install(ruleset, rules.Elements{})
	}
	if err != nil {
		d.anchor.helper, d.anchor.others = before.helper, before.others
		d.log.Error("configuration not reloaded", "error", err)
		return
	}
	d.config, d.ruleset = c.Clone(), ruleset
	if c.Anchor != fixed.Anchor {
		d.reclaim()
	}
	d.table.Reconfigure(tableConfig(c, d.callEvent))
	if len(changed) == 0 {
		changed = []string{"nothing"}
	}
	d.log.Info("configuration reloaded", "changed", strings.Join(changed, ", "))
	d.report(news.Reloaded, "")
}

// A message about packets may be logged so often in each period: packets come
// at the pace of those who send them.
const (
	logPeriod = 10 * time.Second
	logBurst  = 20
	callBurst = 500 // of calls that come and go as they should
)

// volume is how often a message came in the current period.
type volume struct {
	since time.Time
	n     int
}

// limited logs a warning, at a bounded rate for each message.
func (d *daemon) limited(message string, args ...any) {
	d.bounded(slog.LevelWarn, logBurst, message, args...)
}

// bounded logs a message burst times in a period at most.
func (d *daemon) bounded(level slog.Level, burst int, message string, args ...any) {
	now := time.Now()
	v := d.volumes[message]
	if v == nil {
		v = &volume{since: now}
		d.volumes[message] = v
	}
	if now.Sub(v.since) >= logPeriod {
		if v.n > burst {
			args = append(args, "more of these, not logged", v.n-burst)
		}
		*v = volume{since: now}
	}
	if v.n++; v.n <= burst {
		d.log.Log(context.Background(), level, message, args...)
	}
}
