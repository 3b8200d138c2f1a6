package nat

import (
	"errors"
	"time"
)

// maxTaken bounds how many told Call IDs are tried for one call when something
// that is not ours uses them.
const maxTaken = 8

// open chooses a told Call ID for the mapping and opens its GRE.
func (t *Table) open(now time.Time, m *Mapping, block int) error {
	for range maxTaken {
		told, ok := t.pool.pick(arrivalKey(m).domain, m.Real, block)
		if !ok {
			return ErrExhausted
		}
		m.Told = told
		t.pool.take(m)
		err := t.plane.Open(m)
		if err == nil {
			t.opened(now, m)
			return nil
		}
		t.pool.release(m)
		if !errors.Is(err, ErrTaken) {
			return err
		}
		// Leave that ID alone for a while.
		foreign := &Mapping{Path: m.Path, Side: m.Side, Told: told, state: mappingResting}
		t.pool.take(foreign)
		t.agenda.set(&foreign.until, now.Add(t.cfg.Timeouts.Rest), func(time.Time) { t.pool.release(foreign) })
	}
	return ErrTaken
}

func (t *Table) opened(now time.Time, m *Mapping) {
	m.state = mappingOpen
	if k := departureKey(m); t.departures[k] == nil {
		t.departures[k] = m
	}
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
	t.agenda.set(&m.until, now.Add(every), func(now time.Time) {
		t.plane.Renew(m)
		t.renewLater(now, m)
	})
}

// conflict looks for a mapping whose GRE leaves with the same addresses and
// Call ID. Of two calls of one client the newer one wins: the client, or the
// server for it, has used the ID again and so the older call is over. Of two
// clients' calls the older one stays; nobody could tell the two apart.
func (t *Table) conflict(now time.Time, m *Mapping) error {
	old := t.departures[departureKey(m)]
	switch {
	case old == nil:
		return nil
	case old.call == nil:
		return ErrAmbiguous
	case !old.call.Live():
		t.close(now, old)
		return nil
	case old.Path == m.Path:
		// Several calls of one control connection: the data plane may know how.
		return nil
	case old.Path.Hosts[Client].Real == m.Path.Hosts[Client].Real:
		old.call.Connection.End(now, old.call, "its Call ID was given to a newer call")
		t.close(now, old)
		return nil
	}
	return ErrAmbiguous
}

// close ends the mapping's GRE and lets its told Call ID rest.
func (t *Table) close(now time.Time, m *Mapping) {
	if m == nil || m.state == mappingResting || m.state == mappingFree {
		return
	}
	if m.state == mappingOpen {
		if k := departureKey(m); t.departures[k] == m {
			delete(t.departures, k)
		}
		t.plane.Close(m)
	}
	opened := m.state == mappingOpen
	m.state = mappingResting
	t.agenda.set(&m.until, now.Add(t.cfg.Timeouts.Rest), func(time.Time) {
		m.state = mappingFree
		if m.spare {
			t.pool.forgive(m)
		} else {
			t.pool.release(m)
		}
		if opened {
			t.plane.Free(m)
		}
		if m.call != nil {
			m.call.Connection.forget(m.call)
		}
	})
}

func (t *Table) countRefusal(err error) {
	switch {
	case errors.Is(err, ErrLimit):
		t.Counters.RefusedLimit++
	case errors.Is(err, ErrExhausted), errors.Is(err, ErrTaken):
		t.Counters.RefusedExhausted++
	case errors.Is(err, ErrAmbiguous):
		t.Counters.RefusedAmbiguous++
	default:
		t.Counters.RefusedKernel++
	}
}
