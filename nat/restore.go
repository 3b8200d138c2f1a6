package nat

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// errRecord says that a record cannot be right, or does not fit what is there.
var errRecord = errors.New("impossible record")

// Resume makes calls and connections to come count on from these numbers.
func (t *Table) Resume(call, connection uint64) {
	t.lastID, t.lastConnection = max(t.lastID, call), max(t.lastConnection, connection)
}

// RestoreMapping takes up a mapping that the data plane carries already, or
// carried until lately. It belongs to no call until Connection.Restore attaches
// it or Connection.Claim takes it. The data plane is not asked.
func (t *Table) RestoreMapping(now time.Time, r MappingRecord) (*Mapping, error) {
	if !r.Path.Valid() || r.Path.Zone.Direction > ZoneFromServer || r.Side > Server || r.Told == 0 {
		return nil, fmt.Errorf("%w of a mapping: %+v", errRecord, r)
	}
	m := &Mapping{Path: &r.Path, Side: r.Side, Real: r.Real, Told: r.Told, Twin: r.Twin, Past: r.Past, known: true}
	k := arrivalKey(m)
	if !t.pool.unused(k.domain, r.Told) {
		return nil, fmt.Errorf("%w of a mapping: Call ID %d has an owner", errRecord, r.Told)
	}
	if r.Resting {
		t.pool.take(m)
		t.rest(orNow(r.Due, now), m)
		return m, nil
	}
	k = departureKey(m)
	for other := t.departures[k]; other != nil; other = other.next {
		if other.Twin == m.Twin {
			return nil, fmt.Errorf("%w of a mapping: two leave alike", errRecord)
		}
	}
	t.pool.take(m)
	m.state = mappingOpen
	m.next, t.departures[k] = t.departures[k], m
	if r.Due.IsZero() {
		t.renewLater(now, m)
	} else if t.cfg.Timeouts.Renew > 0 {
		t.renewAt(r.Due, m)
	}
	return m, nil
}

func orNow(t, now time.Time) time.Time {
	if t.IsZero() {
		return now
	}
	return t
}

// RestoreConnection takes up a control connection, whatever the limits are.
func (t *Table) RestoreConnection(id uint64, path Path, closed bool) (*Connection, error) {
	if !path.Valid() || path.Zone.Direction > ZoneFromServer || id == 0 {
		return nil, fmt.Errorf("%w of a control connection: %d, %+v", errRecord, id, path)
	}
	t.Resume(0, id)
	c := &Connection{ID: id, Path: path, table: t, closed: closed}
	if !closed {
		t.connections[c] = struct{}{}
		t.use(c.client(), 1, 0, 0)
	}
	return c, nil
}

// Restore takes up a call of the connection. Its mappings come before it, and
// calls in the order of their numbers. A live call of which a mapping is
// missing is an error, one of which a mapping rests ends.
func (c *Connection) Restore(now time.Time, r CallRecord) (*Call, error) {
	t := c.table
	if err := c.fits(r); err != nil {
		return nil, fmt.Errorf("call %d: %w", r.ID, err)
	}
	call := &Call{
		ID: r.ID, Connection: c, Direction: r.Direction, Initiator: r.Initiator, State: r.State, Refused: r.Refused,
		Since: r.Since, Up: r.Up, Over: r.Over, Reason: r.Reason,
	}
	for side, e := range r.Ends {
		if e.There {
			m := c.end(Side(side), e.HeldRecord, call)
			m.call, call.Ends[side] = call, m
		}
	}
	t.Resume(r.ID, 0)
	c.append(call)
	live := call.Live() && !call.Refused
	switch {
	case live:
		c.live++
		t.calls[call.ID] = call
		t.use(c.client(), 0, 1, 1)
	default:
		t.use(c.client(), 0, 0, 1)
		if call.Live() {
			c.asking++
		} else {
			t.remember(call)
		}
	}
	due := call.unanswered
	switch {
	case call.State == Established:
		due = nil
	case call.State == Ended:
		due = call.silence
	case call.State == Clearing, call.Refused:
		due = call.unasked
	}
	flows := slices.ContainsFunc(call.Ends[:], func(m *Mapping) bool {
		return m != nil && (m.state == mappingOpen || m.state == mappingReserved)
	})
	if due != nil && (call.Live() || flows) {
		t.agenda.set(&call.until, orNow(r.Due, now), due)
	}
	for _, m := range call.Ends {
		if m != nil && live && !m.Open() {
			c.End(now, call, "its Call ID was given to a newer call")
		}
	}
	c.forget(call) // if nothing holds it
	return call, nil
}

// fits returns an error when a call cannot be restored so.
func (c *Connection) fits(r CallRecord) error {
	if r.ID == 0 || r.Direction > Incoming || r.Initiator > Server || r.State > Ended || !r.Ends[r.Initiator].There {
		return fmt.Errorf("%w: %+v", errRecord, r)
	}
	if live := r.State != Ended; live && c.closed || live && r.Refused && r.State != Requested {
		return fmt.Errorf("%w: %v on a connection that is closed: %v", errRecord, r.State, c.closed)
	}
	if n := len(c.calls); n > 0 && c.calls[n-1].ID >= r.ID {
		return fmt.Errorf("%w: it comes behind call %d", errRecord, c.calls[n-1].ID)
	}
	if c.table.calls[r.ID] != nil {
		return fmt.Errorf("%w: it is there twice", errRecord)
	}
	for i, e := range r.Ends {
		if !e.There {
			continue
		}
		m, owner := c.lookup(Side(i), e.Told)
		d := arrivalKey(m).domain
		s := c.table.pool.spare[d]
		switch {
		case e.Told == 0, e.Spare && (!r.Refused || r.State == Ended):
			return fmt.Errorf("%w: the %v's Call ID: %+v", errRecord, Side(i), e)
		case r.Refused && r.State != Ended:
			// It has one end, of which the data plane knows nothing.
			if Side(i) != r.Initiator || owner != nil || s != nil && e.Spare != (s.id == e.Told) {
				return fmt.Errorf("%w: the %v's Call ID of a refused call: %+v", errRecord, Side(i), e)
			}
		case owner == nil && r.State == Ended:
		case owner == nil:
			return fmt.Errorf("%w: nothing is known of the %v's Call ID %d", errRecord, Side(i), e.Told)
		case r.State != Ended && (owner.call != nil || owner.Side != Side(i) || owner.Real != e.Real || *owner.Path != c.Path):
			return fmt.Errorf("%w: the %v's Call ID %d is another's", errRecord, Side(i), e.Told)
		}
	}
	if a, b := r.Ends[Client], r.Ends[Server]; a.There && b.There && a.Told == b.Told && !a.Spare {
		x, _ := c.lookup(Client, a.Told)
		y, _ := c.lookup(Server, b.Told)
		if arrivalKey(x) == arrivalKey(y) {
			return fmt.Errorf("%w: both sides have the same mapping", errRecord)
		}
	}
	return nil
}

// Call returns the call with a number, or nil.
func (c *Connection) Call(id uint64) *Call {
	i := slices.IndexFunc(c.calls, func(call *Call) bool { return call.ID == id })
	if i < 0 {
		return nil
	}
	return c.calls[i]
}

// lookup returns a mapping with a told Call ID of the side, and who owns that.
func (c *Connection) lookup(side Side, told uint16) (m, owner *Mapping) {
	m = &Mapping{Path: &c.Path, Side: side, Told: told}
	return m, c.table.pool.owner[arrivalKey(m)]
}

// end returns the mapping of one end of a call that fits.
func (c *Connection) end(side Side, r HeldRecord, call *Call) *Mapping {
	m, owner := c.lookup(side, r.Told)
	m.Real, m.promised = r.Real, r.Promised
	switch {
	case owner != nil && owner.call == nil && owner.Side == side && owner.Real == r.Real && *owner.Path == c.Path:
		owner.Path, owner.promised = &c.Path, r.Promised
		return owner
	case r.Spare:
		c.table.pool.spareAgain(m)
	case call.Refused && call.Live():
		c.table.pool.take(m)
	default:
		m.state = mappingFree // only to be shown
	}
	return m
}

// spareAgain gives m the domain's spare Call ID, which was m's before.
func (p *pool) spareAgain(m *Mapping) {
	d := arrivalKey(m).domain
	if p.spare[d] == nil {
		p.spare[d] = &spareID{id: m.Told}
	}
	p.spare[d].uses++
	m.spare = true
}

// remember puts an ended call among those that Ended returns.
func (t *Table) remember(call *Call) {
	i := len(t.ended)
	for i > 0 && t.ended[i-1].Over.After(call.Over) {
		i-- // a restored one
	}
	if t.ended = slices.Insert(t.ended, i, call); len(t.ended) > t.cfg.Remember {
		t.ended = slices.Delete(t.ended, 0, len(t.ended)-t.cfg.Remember)
	}
}

// Hold takes again what Reserve or Promise had returned.
func (c *Connection) Hold(side Side, r HeldRecord) (*Mapping, error) {
	m, owner := c.lookup(side, r.Told)
	m.Real, m.promised = r.Real, r.Promised
	d, p := arrivalKey(m).domain, c.table.pool
	if owner != nil && owner.orphan() {
		// The rest of the message had come, but nothing of it counts.
		c.table.sweep(owner)
		owner = nil
	}
	switch s := p.spare[d]; {
	case r.Told == 0, owner != nil, r.Spare && s != nil && s.id != r.Told, !r.Spare && s != nil && s.id == r.Told:
		return nil, fmt.Errorf("%w of a Call ID that is held: %+v", errRecord, r)
	case r.Spare:
		p.spareAgain(m)
	default:
		p.take(m)
	}
	return m, nil
}

// Claim takes a restored mapping of which Announce had opened the flow for an
// answer that is not complete yet.
func (c *Connection) Claim(side Side, told uint16) (*Mapping, error) {
	_, m := c.lookup(side, told)
	if m == nil || m.call != nil || m.Side != side || !m.Open() || *m.Path != c.Path {
		return nil, fmt.Errorf("%w of an answer: Call ID %d is not open", errRecord, told)
	}
	m.Path, m.claimed = &c.Path, true
	return m, nil
}

// Sweep closes the restored mappings that flow and that neither a call nor an
// answer came to use: their told Call IDs never left the router, and are free at
// once.
func (t *Table) Sweep() (swept int) {
	for _, m := range t.pool.owner {
		if m.orphan() {
			t.sweep(m)
			swept++
		}
	}
	return swept
}

// Leave is Sweep for when records are missing: the mappings may be those of calls that are up. They flow on, and
// their told Call IDs are nobody's until the time that end gives, when they have stopped.
func (t *Table) Leave(end func(*Mapping) time.Time) (left int) {
	for _, m := range t.pool.owner {
		if m.orphan() {
			t.depart(m)
			t.rest(end(m), m)
			left++
		}
	}
	return left
}

// orphan reports whether m is restored and nobody's.
func (m *Mapping) orphan() bool { return m.state == mappingOpen && m.call == nil && !m.claimed }

func (t *Table) sweep(m *Mapping) {
	t.depart(m)
	t.plane.Close(m)
	t.pool.release(m)
	m.state, m.known = mappingFree, false
	m.until.Clear()
	t.plane.Free(m)
}
