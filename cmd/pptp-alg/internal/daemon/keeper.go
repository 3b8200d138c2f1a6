package daemon

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/addresses"
	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// The number of ports that the configuration allows is what the event filter holds.
var _ = [1]struct{}{}[config.MaxPorts-conntrack.MaxPorts]

// keeper looks after what is the daemon's in the kernel and others can take
// away: the nftables table, the entries of control connections, and the
// addresses that calls are translated to. The kernel tells it of changes; while
// there are none it does nothing.
type keeper struct {
	tables    *rules.Watch
	addresses *addresses.Watch
	changes   chan change
	moves     chan error

	// The table, when others do not leave it alone.
	last    rules.Change // the last change of others
	repairs repairs
	again   nat.Deadline
	took    atomic.Int64 // nanoseconds of the last look
	unseen  nat.Deadline

	local map[netip.Addr]bool
	away  map[netip.Addr]*nat.Deadline // addresses that were removed, until their calls end
}

// change is what came from the socket that watches nftables.
type change struct {
	rules.Change
	err error
}

// How often the table is looked at; repairs says how often it is put back. A look
// costs two milliseconds, and more with many calls.
const (
	looksFree  = 10 // looks in each period that come at once
	lookPeriod = time.Second
	lookPause  = 100 * time.Millisecond // between further ones, at least
	lookShare  = 20                     // they take no more than this part of the time
)

// openKeeper begins to watch the addresses.
func (d *daemon) openKeeper(undo func(func() error)) (err error) {
	k := &d.keeper
	k.changes, k.moves = make(chan change), make(chan error)
	k.away = map[netip.Addr]*nat.Deadline{}
	if k.addresses, err = addresses.Listen(); err != nil {
		return err
	}
	undo(k.addresses.Close)
	k.local, err = k.addresses.Local()
	return err
}

// watchTables begins to watch nftables. It comes after the table: where somebody watches, the kernel composes a message
// about every single element of a transaction, which takes longer than the rest of the start where there are many calls.
// What was changed since then is looked for.
func (d *daemon) watchTables(kernel *rules.Kernel, undo func(func() error)) (err error) {
	if d.keeper.tables, err = kernel.Watch(); err != nil {
		return err
	}
	undo(d.keeper.tables.Close)
	if untouched, err := kernel.Untouched(); err != nil || untouched {
		return err
	}
	d.checkTable(time.Now())
	return nil
}

// watch hands what the kernel tells to the owner, until the sockets are closed.
func (k *keeper) watch(ctx context.Context) {
	go func() {
		var since time.Time
		for n := 0; ; n++ {
			c, err := k.tables.Receive()
			select {
			case k.changes <- change{c, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
			if now := time.Now(); now.Sub(since) >= lookPeriod {
				since, n = now, 0
			}
			if pause := k.pause(); n >= looksFree || pause > lookPause { // what comes meanwhile is taken together
				time.Sleep(pause)
			}
		}
	}()
	go func() {
		for {
			err := k.addresses.Receive()
			select {
			case k.moves <- err:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
}

// tablesChanged is called when somebody else has changed something in nftables.
func (d *daemon) tablesChanged(now time.Time, c change) {
	if c.err != nil {
		d.log.Error("nftables can no longer be watched: if the table of this daemon is removed, that is noticed with the next call", "error", c.err)
		d.fast.end(now, "nftables can no longer be watched")
		return
	}
	d.fast.halt(now, "nftables was changed by "+c.String())
	d.keeper.last = c.Change
	pause := d.keeper.pause()
	d.checkTable(now)
	d.reviewAnchor(now)
	d.fast.hold(time.Now().Add(max(pause, d.keeper.pause()) + firstHalt))
}

// pause is how long what changes in nftables is not read when there is much of it: a look at the table takes its time.
func (k *keeper) pause() time.Duration {
	return max(lookPause, time.Duration(k.took.Load())*lookShare)
}

// checkTable puts the table back if something of it is gone or altered; later
// if it was put back a short time ago, for then somebody may be at work who does
// not want it.
func (d *daemon) checkTable(now time.Time) {
	k := &d.keeper
	defer func(began time.Time) { k.took.Store(int64(time.Since(began))) }(time.Now())
	d.plane.catchUp() // so that what is missing is so for another reason
	d.setFlows(now)
	wanted := d.elements()
	damage, err := d.plane.rules.Diff(d.ruleset)
	if err == nil && len(damage) == 0 {
		if damage, err = d.lacking(wanted); err == nil && len(damage) == 0 {
			k.repairs.whole()
			return
		}
	}
	if next := k.repairs.due(now); err == nil && now.Before(next) {
		d.table.Schedule(&k.again, next, d.checkTable)
		return
	}
	k.repairs.begin(now)
	if err == nil {
		err = d.repair(wanted, damage)
	}
	if err != nil {
		d.limited("cannot put the nftables table of this daemon back", "error", err, "changed by", k.last.String(), "next attempt in", k.repairs.pause)
		d.table.Schedule(&k.again, now.Add(k.repairs.pause), d.checkTable)
	}
}

// guard lists the elements that the guard is to have.
func (d *daemon) guard() (guard []rules.Call) {
	d.table.Mappings(func(m *nat.Mapping) { guard = append(guard, guardOf(m)) })
	return guard
}

// elements lists everything that the table is to have besides the ruleset.
func (d *daemon) elements() rules.Elements { return rules.Elements{Calls: d.guard(), Flows: d.flows()} }

// lacking says in words which of these elements are missing.
func (d *daemon) lacking(wanted rules.Elements) (damage []string, err error) {
	calls, err := d.plane.rules.Missing(wanted.Calls)
	if err != nil {
		return nil, err
	}
	flows, err := d.plane.rules.MissingFlows(wanted.Flows)
	if len(calls) > 0 {
		damage = append(damage, "elements of the set "+rules.CallsSet+" are missing")
	}
	if len(flows) > 0 {
		damage = append(damage, "elements of the set "+rules.ConnectionsSet+" are missing")
	}
	return damage, err
}

// restore puts the table back when it turned out to be gone. It is
// plane.restore.
func (d *daemon) restore() error {
	return d.repair(d.elements(), []string{"table ip " + rules.TableName + " is missing"})
}

// repair puts the table back, with its elements.
func (d *daemon) repair(e rules.Elements, damage []string) error {
	if err := d.install(d.ruleset, e); err != nil {
		return err
	}
	d.counters.tableRestored++
	d.lookForUnseen(time.Now())
	const some = 3
	more := max(0, len(damage)-some)
	d.limited("the nftables table of this daemon was changed by another program and was put back", "program", d.keeper.last.String(),
		"what", damage[:len(damage)-more], "and more", more, "guarded", len(e.Calls), "control connections", len(e.Flows)/2)
	d.report(news.TableRestored, "table ip %s was changed by %v", rules.TableName, d.keeper.last)
	return nil
}
