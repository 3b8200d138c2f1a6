package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"pptp-alg/conntrack"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// Lives of the entries in the kernel, which can't be refreshed, only replaced.
// An entry of a call outlives the daemon by what is left of entryLife.
const (
	entryLife  = 12 * time.Hour
	entryRenew = 4 * time.Hour
)

// twinZone is above the conntrack zones that twins take, from the highest
// number down: users begin at the lowest.
const twinZone = 0xffff

// plane is the nat.DataPlane: a conntrack entry and an element of the guard
// set for every mapping.
type plane struct {
	ct    *conntrack.Client
	rules *rules.Kernel
	log   *slog.Logger
	// limited logs what can come often.
	limited func(message string, args ...any)
	// journal is told of every mapping that the kernel has.
	journal *journal
	// fast is told of every mapping whose GRE flows; nil: it is off.
	fast *fastPath

	// restore puts the table back when it turns out to be gone.
	restore func() error
	// live reports whether GRE that arrives so is that of an open mapping.
	live func(conntrack.GRE, conntrack.Zone) bool
	// away reports whether an address of the path is not there, so that nothing
	// may flow.
	away func(*nat.Path) bool
	// unguarded are mappings that are open, and not yet in the guard: see guard.
	unguarded []*nat.Mapping
	behind    time.Time // when it is tried again after a failure
	errors    uint64    // requests that the kernel refused unexpectedly
	// carried is what flowed in mappings that are freed.
	carried nat.Traffic
}

func gre(t nat.Tuple) conntrack.GRE {
	return conntrack.GRE{Src: t.Src, Dst: t.Dst, CallID: t.CallID}
}

func guardOf(m *nat.Mapping) rules.Call {
	t := m.Arrives()
	return rules.Call{Src: t.Src, Dst: t.Dst, CallID: t.CallID}
}

// entryOf returns the conntrack entry of a mapping. GRE towards the server
// travels like the control connection's original packets, GRE towards the
// client like its replies.
func entryOf(m *nat.Mapping) conntrack.Entry {
	zone := conntrack.Zone{ID: m.Path.Zone.ID, Direction: conntrack.Direction(m.Path.Zone.Direction)}
	if m.Side == nat.Client {
		zone = zone.Opposite()
	}
	if m.Twin != 0 && zone.ID == 0 {
		// Two entries must not have the same reply tuple. No packet ever matches
		// a reply tuple here, so another zone for it changes nothing else.
		zone = conntrack.Zone{ID: twinZone - m.Twin, Direction: conntrack.ReplyOnly}
	}
	return conntrack.Entry{
		Arrives: gre(m.Arrives()),
		Leaves:  gre(m.Leaves()),
		Zone:    zone,
		Mark:    m.Path.Mark,
		Timeout: entryLife,
	}
}

// Open implements nat.DataPlane. Nobody has been told of the Call ID yet. The entry
// comes first: it says whether the Call ID is another tunnel's, and as long as we
// had the guard for such a one, that tunnel's packets would be dropped, for
// conntrack takes each of them for the first. A packet that is earlier than the
// entry has begun a flow of its own, which the entry finds in its way.
func (p *plane) Open(m *nat.Mapping) error {
	if p.away(m.Path) {
		return errAway
	}
	if err := p.guard(); err != nil { // those before it could not be guarded
		return err
	}
	p.journal.opening(m)
	if err := p.create(entryOf(m)); err != nil {
		return err
	}
	p.unguarded = append(p.unguarded, m)
	p.fast.open(m)
	return nil
}

// guard puts the tuples of mappings that were opened into the guard. What the guard is for, that no packet begins an
// ordinary flow when an entry is gone for a moment or for good, comes later than an entry: so this has time until the
// segment with the Call ID has gone on, and nobody waits for it. It comes before anything else is done with an entry.
func (p *plane) guard() error {
	err := p.addToGuard()
	if errors.Is(err, rules.ErrAbsent) {
		if err = p.restore(); err == nil {
			err = p.addToGuard()
		}
	}
	return p.guarded(err)
}

// guardPause is how long what could not be guarded stays so, unless there is another call.
const guardPause = time.Second

// catchUp is guard when no call waits for it. It leaves a table that is gone to its keeper, and after a failure the kernel alone
// for guardPause.
func (p *plane) catchUp() {
	if !time.Now().Before(p.behind) {
		_ = p.guarded(p.addToGuard()) // says itself what is wrong
	}
}

func (p *plane) addToGuard() error {
	if len(p.unguarded) == 0 {
		return nil
	}
	calls := make([]rules.Call, 0, len(p.unguarded))
	for _, m := range p.unguarded {
		calls = append(calls, guardOf(m))
	}
	return p.rules.Add(calls...)
}

// guarded notes what became of it.
func (p *plane) guarded(err error) error {
	if err != nil {
		p.errors++
		p.behind = time.Now().Add(guardPause)
		p.limited("cannot guard the Call IDs of calls, will try again, and refuse others until then", "calls", len(p.unguarded), "error", err)
		return err
	}
	p.unguarded, p.behind = p.unguarded[:0], time.Time{}
	return nil
}

// create makes an entry, and clears away what is in its way and can't belong
// to anything that lives.
func (p *plane) create(e conntrack.Entry) error {
	for range 3 {
		err := p.ct.Create(e)
		var exists *conntrack.ExistsError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &exists):
			p.errors++
			return err
		case exists.Side == conntrack.Original:
			// The router's own tunnel, or a call that began before we did.
			return nat.ErrTaken
		}
		// Another flow leaves looking the same: a call of ours, or else an
		// ordinary flow of a call that was before this one, or an entry that an
		// earlier run left behind.
		if stored, ours := exists.Flow.Stored(); ours && p.live(stored.Arrives, stored.Zone) {
			return nat.ErrAmbiguous
		}
		if err := p.ct.DeleteFlow(exists.Flow); err != nil && !errors.Is(err, conntrack.ErrNotFound) {
			p.errors++
			return fmt.Errorf("clear the way for %v: %w", e, err)
		}
		p.limited("removed a stale GRE flow", "flow", exists.Flow.String(), "for", e.String())
	}
	return nat.ErrAmbiguous
}

// Renew implements nat.DataPlane.
func (p *plane) Renew(m *nat.Mapping) error {
	if p.away(m.Path) {
		return nil
	}
	p.catchUp()
	p.journal.mappingChanged(m)
	p.fast.closed(m)
	defer p.fast.open(m)
	e := entryOf(m)
	counted := p.traffic(m)
	if err := p.ct.Replace(e); err != nil {
		p.errors++
		p.limited("cannot renew a conntrack entry, will try again", "entry", e.String(), "error", err)
		if _, err := p.ct.Get(e); errors.Is(err, conntrack.ErrNotFound) {
			m.Past = counted
		}
		return err
	}
	m.Past = counted
	return nil
}

// Close implements nat.DataPlane. The guard stays until Free.
func (p *plane) Close(m *nat.Mapping) {
	p.catchUp()
	p.journal.mappingChanged(m)
	p.fast.closed(m)
	e := entryOf(m)
	last, err := p.ct.DeleteCounted(e)
	m.Past = sum(m.Past, last.Counters) // an entry that is gone has counted nothing more
	if err != nil && !errors.Is(err, conntrack.ErrNotFound) {
		p.errors++
		p.log.Error("cannot delete a conntrack entry", "entry", e.String(), "error", err)
	}
}

// Free implements nat.DataPlane.
func (p *plane) Free(m *nat.Mapping) {
	p.journal.mappingChanged(m)
	p.carried = plus(p.carried, m.Past)
	p.unguarded = slices.DeleteFunc(p.unguarded, func(u *nat.Mapping) bool { return u == m })
	if err := p.rules.Delete(guardOf(m)); err != nil && !errors.Is(err, rules.ErrAbsent) {
		p.errors++
		p.log.Error("cannot take a Call ID from the guard set", "call", guardOf(m), "error", err)
	}
}

// traffic returns what the mapping's entries have counted so far.
func (p *plane) traffic(m *nat.Mapping) nat.Traffic {
	stored, _ := p.ct.Get(entryOf(m)) // an entry that is gone counts nothing more
	return sum(m.Past, stored.Counters)
}

func sum(past nat.Traffic, now conntrack.Counters) nat.Traffic {
	return plus(past, nat.Traffic(now))
}

func plus(a, b nat.Traffic) nat.Traffic {
	return nat.Traffic{Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes}
}

// Lost brings back an entry that somebody else removed.
func (p *plane) Lost(m *nat.Mapping, last conntrack.Counters) error {
	p.catchUp()
	p.journal.mappingChanged(m)
	p.fast.closed(m)
	e := entryOf(m)
	m.Past = sum(m.Past, last)
	if p.away(m.Path) {
		return nil
	}
	p.fast.open(m)
	if err := p.create(e); err != nil {
		p.errors++
		p.limited("cannot bring back a conntrack entry that was removed, will try again", "entry", e.String(), "error", err)
		return err
	}
	p.limited("brought back a conntrack entry that was removed", "entry", e.String())
	return nil
}

// errAway refuses a call for which there is no address.
var errAway = errors.New("the address that the call would use was removed from this router")

// Pause stops what flows through a mapping until Resume. Its packets are dropped
// by the guard meanwhile.
func (p *plane) Pause(m *nat.Mapping) { p.Close(m) }

// Resume brings back an entry that Pause took away.
func (p *plane) Resume(m *nat.Mapping) error { return p.Lost(m, conntrack.Counters{}) }

// revive makes the entry of a mapping that was taken over and has none, or another.
func (p *plane) revive(m *nat.Mapping) error {
	err := p.ct.Replace(entryOf(m))
	if exists := (*conntrack.ExistsError)(nil); errors.As(err, &exists) {
		err = p.create(entryOf(m)) // which clears the way
	}
	if err != nil {
		p.errors++
		p.limited("cannot make the conntrack entry of a call again, will try again", "entry", entryOf(m).String(), "error", err)
	}
	return err
}
