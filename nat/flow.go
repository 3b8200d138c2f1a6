package nat

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// renewSpread is the part of Timeouts.Renew by which a renewal may come early:
// one in so many.
const renewSpread = 4

// maxTaken bounds how many told Call IDs are tried for one call when something
// that is not ours uses them.
const maxTaken = 8

// maxTwins bounds the calls of one control connection in which one side uses the
// same Call ID. No peer is known that has more than a few; each costs the next
// one a look.
const maxTwins = 64

// open chooses a told Call ID for the mapping and opens its GRE. Where an ID
// is held for the mapping, it is that one or another of its block, and held
// loses it. On an error held keeps it.
func (t *Table) open(now time.Time, m, held *Mapping) error {
	block := noBlock
	if held != nil {
		block = int(held.Told >> 8)
	}
	tryHeld := held != nil
	for range maxTaken {
		told, ok := t.pool.pick(arrivalKey(m).domain, m.Real, block)
		if tryHeld && !(ok && told == m.Real) {
			told, ok, tryHeld = held.Told, true, false
		}
		if !ok {
			return ErrExhausted
		}
		m.Told = told
		t.pool.take(m)
		err := t.plane.Open(m)
		if err == nil {
			if held != nil {
				t.pool.release(held)
				held.state = mappingFree
			}
			t.opened(now, m)
			return nil
		}
		if held != nil && told == held.Told {
			t.pool.take(held)
		} else {
			t.pool.release(m)
		}
		if !errors.Is(err, ErrTaken) {
			return err
		}
		if held != nil && told == held.Told {
			continue // which keeps that ID out of the way
		}
		// Leave that ID alone for a while.
		foreign := &Mapping{Path: m.Path, Side: m.Side, Told: told, state: mappingResting}
		t.pool.take(foreign)
		t.agenda.set(&foreign.until, now.Add(t.cfg.Timeouts.Rest), func(time.Time) { t.pool.release(foreign) })
	}
	return ErrTaken
}

func (t *Table) opened(now time.Time, m *Mapping) {
	m.state, m.known = mappingOpen, true
	k := departureKey(m)
	m.next, t.departures[k] = t.departures[k], m
	if m.Real != m.Told {
		t.Counters.Translated++
	}
	t.renewLater(now, m)
}

func (t *Table) renewLater(now time.Time, m *Mapping) {
	every := t.cfg.Timeouts.Renew
	if every <= 0 {
		return
	}
	// Flows that were opened together are not renewed together for ever.
	every -= time.Duration(t.pool.rng.Int64N(int64(every/renewSpread) + 1))
	t.renewAt(now.Add(every), m)
}

func (t *Table) renewAt(at time.Time, m *Mapping) {
	t.agenda.set(&m.until, at, func(now time.Time) { t.renew(now, m) })
}

// renewAgain is how soon a flow that could not be renewed is tried again: the
// kernel has no room for it, and may have some soon.
const renewAgain = 10 * time.Second

func (t *Table) renew(now time.Time, m *Mapping) {
	if err := t.plane.Renew(m); err != nil {
		t.RenewSoon(now, m)
		return
	}
	t.renewLater(now, m)
}

// RenewSoon has the data plane renew an open mapping whose flow could not be
// kept.
func (t *Table) RenewSoon(now time.Time, m *Mapping) {
	if m.Open() {
		t.agenda.set(&m.until, now.Add(renewAgain), func(now time.Time) { t.renew(now, m) })
	}
}

// conflict looks for mappings whose GRE leaves with the same addresses and Call
// ID. One of a call that ended, or that was asked to be cleared, makes way. Of
// two calls of one client the newer one wins: the client, or the server for it,
// has used the ID again and so the older call is over. Of two clients' calls
// the older one stays; nobody could tell the two apart.
func (t *Table) conflict(now time.Time, m *Mapping) error {
	var next *Mapping
	var twins []uint16
	for old := t.departures[departureKey(m)]; old != nil; old = next {
		next = old.next
		switch {
		case old.call == nil:
			return ErrAmbiguous
		case !old.call.Live(), old.call.State == Clearing:
		case old.Path == m.Path:
			// Several calls of one control connection, which its ends can tell
			// apart by the other Call ID.
			if twins = append(twins, old.Twin); len(twins) >= maxTwins {
				return fmt.Errorf("%w: %d calls of one client at least", ErrAmbiguous, maxTwins)
			}
			continue
		case old.Path.Hosts[Client].Real != m.Path.Hosts[Client].Real:
			return ErrAmbiguous
		}
		old.call.Connection.End(now, old.call, "its Call ID was given to a newer call")
		t.close(now, old)
	}
	slices.Sort(twins)
	m.Twin = 0
	for _, taken := range twins {
		if taken == m.Twin {
			m.Twin++
		}
	}
	return nil
}

// close ends the mapping's GRE and lets its told Call ID rest.
func (t *Table) close(now time.Time, m *Mapping) {
	switch m.state {
	case mappingResting, mappingFree:
		return
	case mappingOpen:
		t.depart(m)
		t.plane.Close(m)
	}
	if m.spare {
		t.discard(now, m)
		return
	}
	t.rest(now.Add(t.cfg.Timeouts.Rest), m)
}

// rest keeps the mapping's told Call ID until the given time.
func (t *Table) rest(until time.Time, m *Mapping) {
	m.state = mappingResting
	t.agenda.set(&m.until, until, func(time.Time) {
		t.pool.release(m)
		m.state = mappingFree
		if m.known {
			m.known = false
			t.plane.Free(m)
		}
		if m.call != nil {
			m.call.Connection.forget(m.call)
		}
	})
}

// depart takes the mapping out of departures.
func (t *Table) depart(m *Mapping) {
	k := departureKey(m)
	if first := t.departures[k]; first != m {
		for first.next != m {
			first = first.next
		}
		first.next = m.next
	} else if m.next != nil {
		t.departures[k] = m.next
	} else {
		delete(t.departures, k)
	}
	m.next = nil
}

// discard gives back a reserved mapping at once; one that flows has to rest.
func (t *Table) discard(now time.Time, m *Mapping) {
	switch {
	case m.state == mappingOpen:
		t.close(now, m)
	case m.state != mappingReserved:
	case m.spare:
		m.state = mappingFree
		d := arrivalKey(m).domain
		if s := t.pool.forgive(m); s != nil {
			t.agenda.set(&s.until, now.Add(t.cfg.Timeouts.Rest), func(time.Time) { delete(t.pool.spare, d) })
		}
	default:
		m.state = mappingFree
		t.pool.release(m)
	}
}

func (t *Table) countRefusal(err error) {
	switch {
	case errors.Is(err, ErrLimit), errors.Is(err, errClosed):
		t.Counters.RefusedLimit++
	case errors.Is(err, ErrExhausted), errors.Is(err, ErrTaken):
		t.Counters.RefusedExhausted++
	case errors.Is(err, ErrAmbiguous):
		t.Counters.RefusedAmbiguous++
	default:
		t.Counters.RefusedKernel++
	}
}
