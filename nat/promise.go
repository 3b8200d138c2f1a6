package nat

import "time"

// Promise takes a told Call ID for a real one of which it is not known yet
// whether a call comes of it: the beginning of an answer, cut before its
// result, which has to go on. Announce keeps the promise, Discard breaks it;
// until then no other call is affected. held is what Reserve returned for the
// ID, or nil.
func (c *Connection) Promise(side Side, real uint16, held *Mapping) *Mapping {
	m := held
	if m == nil {
		m = c.hold(side, real)
	} else if d, p := arrivalKey(m).domain, c.table.pool; !m.spare && real>>8 == m.Told>>8 && p.room(d) && p.free(d, real) {
		p.release(m)
		m.Told = real
		p.take(m)
	}
	m.Real, m.promised = real, true
	return m
}

// keep opens m with the told Call ID that held promises. On an error held
// keeps the ID.
func (t *Table) keep(now time.Time, m, held *Mapping) error {
	m.Told = held.Told
	t.pool.take(m)
	if err := t.plane.Open(m); err != nil {
		t.pool.take(held)
		return err
	}
	held.state = mappingFree
	t.opened(now, m)
	return nil
}
