package nat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// maxRefused bounds the refused calls that one connection can have waiting for
// their answers.
const maxRefused = 16

// Connection holds the calls of one control connection.
type Connection struct {
	ID   uint64 // counts up from 1, never used again
	Path Path

	table  *Table
	calls  []*Call // in the order of their announcement; ended ones until their Call IDs are free
	live   int     // how many have not ended, without refused ones
	asking int     // how many are refused and wait for their answers
	closed bool
	index  index // of calls; nil while they are few
}

// Connect adds a control connection. It returns ErrLimit, wrapped, when the
// client or the table has too many.
func (t *Table) Connect(path Path) (*Connection, error) {
	client := path.Hosts[Client].Real
	have := t.of(client).connections
	switch {
	case over(len(t.connections), t.cfg.Limits.Connections):
		return nil, fmt.Errorf("%w: %d control connections in total", ErrLimit, t.cfg.Limits.Connections)
	case over(have, t.cfg.Limits.ConnectionsPerClient):
		return nil, fmt.Errorf("%w: %d control connections of client %v", ErrLimit, t.cfg.Limits.ConnectionsPerClient, client)
	case scarce(int(have), len(t.connections), t.cfg.Limits.Connections):
		return nil, fmt.Errorf("%w: %d control connections of client %v, and of %d in total only %d are left for others",
			ErrLimit, have, client, t.cfg.Limits.Connections, t.cfg.Limits.Connections-len(t.connections))
	}
	t.lastConnection++
	c := &Connection{ID: t.lastConnection, Path: path, table: t}
	t.connections[c] = struct{}{}
	t.use(client, 1, 0, 0)
	return c, nil
}

// Close ends all calls of the connection and forgets it. Call IDs of its calls
// can still be looked up until they are free.
func (c *Connection) Close(now time.Time, reason string) {
	c.EndAll(now, reason)
	if c.closed {
		return
	}
	c.closed = true
	delete(c.table.connections, c)
	c.table.use(c.client(), -1, 0, 0)
}

func (c *Connection) client() netip.Addr { return c.Path.Hosts[Client].Real }

// Live returns how many calls of the connection have not ended. Refused ones
// do not count.
func (c *Connection) Live() int { return c.live }

// Reserve takes a told Call ID for a real one of which only the high byte is
// known yet, so that a message that was cut there can go on. Request or
// Announce use it up, Discard gives it back.
func (c *Connection) Reserve(side Side, high byte) *Mapping {
	return c.hold(side, uint16(high)<<8) // any ID of the block will do to choose the block by
}

// hold takes a told Call ID for a real one.
func (c *Connection) hold(side Side, real uint16) *Mapping {
	m := &Mapping{Path: &c.Path, Side: side, Real: real}
	p := c.table.pool
	if told, ok := p.pick(arrivalKey(m).domain, real, noBlock); ok {
		m.Told = told
		p.take(m)
	} else {
		p.refuse(m)
	}
	return m
}

// Discard gives back a mapping unless a call came to use it.
func (c *Connection) Discard(now time.Time, m *Mapping) {
	if m.call == nil {
		c.table.discard(now, m)
	}
}

// Request announces a call with the Call ID of the side that announces it. It
// always returns a call: one that is refused has Refused set and the reason in
// Reason, and its Ends[side].Told is an ID that is nobody's. held is what
// Reserve returned for this ID, or nil.
func (c *Connection) Request(now time.Time, side Side, dir Direction, real uint16, held *Mapping) *Call {
	t := c.table
	call := &Call{Connection: c, Direction: dir, Initiator: side, Since: now}
	t.lastID++
	call.ID = t.lastID

	m, err := held, c.limit()
	if err == nil {
		err = c.shareIDs(side)
	}
	if err == nil {
		m, err = c.Announce(now, side, real, held)
	}
	if err != nil {
		c.refuse(now, call, side, real, m, err)
		return call
	}
	c.add(now, call, m)
	return call
}

// Adopt makes a call of one that was announced untranslated before the
// connection came under our eyes: its told Call ID is the real one. It returns
// nil where that ID is not free.
func (c *Connection) Adopt(now time.Time, side Side, dir Direction, id uint16) *Call {
	t := c.table
	m := &Mapping{Path: &c.Path, Side: side, Real: id, Told: id}
	d := arrivalKey(m).domain
	if c.closed || c.limit() != nil || !t.pool.room(d) || !t.pool.unused(d, id) || t.conflict(now, m) != nil {
		return nil
	}
	t.pool.take(m)
	if err := t.plane.Open(m); err != nil {
		t.pool.release(m)
		return nil
	}
	t.opened(now, m)
	t.lastID++
	call := &Call{ID: t.lastID, Connection: c, Direction: dir, Initiator: side, Since: now}
	c.add(now, call, m)
	return call
}

// add takes up a new call whose announcing side has its mapping.
func (c *Connection) add(now time.Time, call *Call, m *Mapping) {
	t := c.table
	call.Ends[m.Side], m.call = m, call
	c.append(call)
	c.live++
	t.calls[call.ID] = call
	t.use(c.client(), 0, 1, 1)
	t.Counters.CallsRequested++
	t.agenda.set(&call.until, now.Add(t.cfg.Timeouts.HalfOpen), call.unanswered)
	t.changed(call)
	t.notify(CallRequested, now, call)
}

// unanswered ends a half-open call, saying in words what it waited for.
func (c *Call) unanswered(now time.Time) {
	reason := "no answer to Outgoing-Call-Request from the " + c.Initiator.Other().String()
	switch {
	case c.State == Connecting:
		reason = "no Incoming-Call-Connected from the " + c.Initiator.String()
	case c.Direction == Incoming:
		reason = "no answer to Incoming-Call-Request from the " + c.Initiator.Other().String()
	}
	c.Connection.table.Counters.HalfOpenExpired++
	c.Connection.End(now, c, reason)
}

// unasked ends a call that is to end for a reason that it has already: it was
// refused, or is being cleared.
func (c *Call) unasked(now time.Time) { c.Connection.End(now, c, c.Reason) }

// limit returns an error when the connection may not have another call.
func (c *Connection) limit() error {
	t, l, client := c.table, c.table.cfg.Limits, c.client()
	switch {
	case over(len(t.calls), l.Calls):
		return fmt.Errorf("%w: %d calls in total", ErrLimit, l.Calls)
	case over(t.of(client).calls, l.CallsPerClient):
		return fmt.Errorf("%w: %d calls of client %v", ErrLimit, l.CallsPerClient, client)
	case scarce(int(t.of(client).calls), len(t.calls), l.Calls):
		return fmt.Errorf("%w: %d calls of client %v, and of %d in total only %d are left for others",
			ErrLimit, t.of(client).calls, client, l.Calls, l.Calls-len(t.calls))
	case over(c.live, l.CallsPerConnection):
		return fmt.Errorf("%w: %d calls of one control connection", ErrLimit, l.CallsPerConnection)
	}
	return c.limitPast()
}

// limitPast returns an error when too many calls hold Call IDs. Without it a
// client could take all IDs of a public address by asking for calls and ending
// them.
func (c *Connection) limitPast() error {
	t, l, client := c.table, c.table.cfg.Limits, c.client()
	const past = "ended ones included"
	switch {
	case over(t.held, withPast(l.Calls)):
		return fmt.Errorf("%w: %d calls in total, %s", ErrLimit, withPast(l.Calls), past)
	case scarce(int(t.of(client).held), t.held, withPast(l.Calls)):
		return fmt.Errorf("%w: %d calls of client %v, %s, and of %d in total only %d are left for others",
			ErrLimit, t.of(client).held, client, past, withPast(l.Calls), withPast(l.Calls)-t.held)
	case over(t.of(client).held, withPast(l.CallsPerClient)):
		return fmt.Errorf("%w: %d calls of client %v, %s", ErrLimit, withPast(l.CallsPerClient), client, past)
	case over(len(c.calls), withPast(l.CallsPerConnection)):
		return fmt.Errorf("%w: %d calls of one control connection, %s", ErrLimit, withPast(l.CallsPerConnection), past)
	}
	return nil
}

// refuse completes a call that is not to be. Its answer will be changed into
// a refusal, for which the connection has to remember it.
func (c *Connection) refuse(now time.Time, call *Call, side Side, real uint16, held *Mapping, err error) {
	t := c.table
	t.countRefusal(err)
	call.Refused, call.Reason = true, fmt.Sprintf("refused by this router: %v", err)
	m := held
	if m == nil {
		m = &Mapping{Path: &c.Path, Side: side}
		t.pool.refuse(m)
	}
	m.Real, m.call = real, call
	call.Ends[side] = m
	if c.closed || c.asking >= maxRefused || c.limitPast() != nil && !m.spare {
		// Told and forgotten: its answer will pass unchanged.
		call.State, call.Over = Ended, now
		t.discard(now, m)
		return
	}
	c.append(call)
	c.asking++
	t.changed(call)
	t.use(c.client(), 0, 0, 1)
	t.agenda.set(&call.until, now.Add(t.cfg.Timeouts.HalfOpen), call.unasked)
}

// Announce gives a side's Call ID its told form and opens its GRE. The mapping
// belongs to no call until Answer attaches it. On an error that concerns a
// held mapping, that mapping is returned with the error and stays reserved.
func (c *Connection) Announce(now time.Time, side Side, real uint16, held *Mapping) (*Mapping, error) {
	t := c.table
	if c.closed {
		return held, errClosed
	}
	if held != nil && held.spare {
		return held, ErrExhausted
	}
	m := &Mapping{Path: &c.Path, Side: side, Real: real}
	if err := t.conflict(now, m); err != nil {
		return held, err
	}
	open := t.open
	if held != nil && held.promised {
		open = t.keep
	}
	if err := open(now, m, held); err != nil {
		return held, err
	}
	return m, nil
}

// Own finds the call in which the side uses a Call ID: a live one before an
// ended one, one that nobody asked to clear before one that is being cleared,
// one that is being cleared before a refused one, and the oldest of several.
func (c *Connection) Own(side Side, real uint16) *Call {
	return c.find(indexKey{side, false, real}, func(call *Call) bool {
		m := call.Ends[side]
		return m != nil && m.Real == real
	})
}

// Peer finds the call for which the other side of owner was told a Call ID.
func (c *Connection) Peer(owner Side, told uint16) *Call {
	return c.find(indexKey{owner, true, told}, func(call *Call) bool {
		m := call.Ends[owner]
		return m != nil && m.Told == told
	})
}

// rank orders calls with one Call ID: the lowest is the one that is meant.
func (c *Call) rank() int {
	switch {
	case c.State == Ended:
		return 3
	case c.Refused:
		return 2
	case c.State == Clearing:
		return 1
	}
	return 0
}

func (c *Connection) find(k indexKey, match func(*Call) bool) *Call {
	if c.index != nil {
		if s := c.index[k]; s != nil {
			return s.best()
		}
		return nil
	}
	var best *Call
	for _, call := range c.calls {
		// Among ended ones the last counts: the earlier were replaced by it.
		if match(call) && (best == nil || call.rank() < best.rank() || call.rank() == 3 && best.rank() == 3) {
			best = call
		}
	}
	return best
}

// Blocks calls f with the high bytes that the real and told Call IDs of the
// side's mappings have.
func (c *Connection) Blocks(side Side, f func(real, told byte)) {
	for _, call := range c.calls {
		if m := call.Ends[side]; m != nil {
			f(byte(m.Real>>8), byte(m.Told>>8))
		}
	}
}

// Answer records that the other side accepted the call with its own Call ID.
func (c *Connection) Answer(now time.Time, call *Call, m *Mapping) {
	if !call.Live() || call.Refused || call.Ends[m.Side] != nil {
		c.Discard(now, m)
		return
	}
	c.attach(call, m)
	c.table.changed(call)
	if call.Direction == Outgoing {
		c.Up(now, call)
	} else if call.State == Requested {
		call.State = Connecting
	}
}

// Up records that the call is established.
func (c *Connection) Up(now time.Time, call *Call) {
	if !call.Live() || call.Refused || call.State >= Established {
		return
	}
	call.State, call.Up = Established, now
	call.until.Clear()
	c.table.Counters.CallsEstablished++
	c.table.changed(call)
	c.table.notify(CallEstablished, now, call)
}

// Refuse makes a refused call of one that cannot be completed.
func (c *Connection) Refuse(now time.Time, call *Call, err error) {
	if !call.Live() || call.Refused {
		return
	}
	c.table.countRefusal(err)
	call.Refused = true
	c.End(now, call, fmt.Sprintf("refused by this router: %v", err))
}

// Clear records that one side asked to clear the call. It ends when the other
// side confirms that, or after a while without.
func (c *Connection) Clear(now time.Time, call *Call, reason string) {
	if !call.Live() || call.Refused || call.State == Clearing {
		return
	}
	call.State, call.Reason = Clearing, reason
	t := c.table
	t.agenda.set(&call.until, now.Add(t.cfg.Timeouts.Clearing), call.unasked)
	t.changed(call)
}

// EndAll ends all calls of the connection.
func (c *Connection) EndAll(now time.Time, reason string) {
	for _, call := range slices.Clone(c.calls) {
		c.End(now, call, reason)
	}
}

// End ends a call. Its GRE flows on for the grace period, so that the peers'
// last packets pass; then its told Call IDs rest. The reason is for one that
// has none yet: refused ones do, and those that are being cleared.
func (c *Connection) End(now time.Time, call *Call, reason string) {
	if !call.Live() {
		return
	}
	t := c.table
	c.indexed(call, c.index.remove)
	call.State, call.Over = Ended, now
	c.indexed(call, c.index.add)
	t.changed(call)
	if call.Reason == "" {
		call.Reason = reason
	}
	if t.calls[call.ID] == call { // a refused call was never among them
		delete(t.calls, call.ID)
		c.live--
		t.use(c.client(), 0, -1, 0)
		t.Counters.CallsEnded++
	} else {
		c.asking--
	}
	t.remember(call)
	if m := call.Ends[call.Initiator]; m.spare { // no GRE flows
		call.until.Clear()
		t.close(now, m)
		c.forget(call)
	} else {
		t.agenda.set(&call.until, now.Add(t.cfg.Timeouts.Grace), call.silence)
	}
	t.notify(CallEnded, now, call)
}

// silence ends the GRE of a call.
func (c *Call) silence(now time.Time) {
	for _, m := range c.Ends {
		if m != nil {
			c.Connection.table.close(now, m)
		}
	}
	c.Connection.forget(c)
}

// forget drops an ended call when the last of its Call IDs is free.
func (c *Connection) forget(call *Call) {
	if call.Live() {
		return
	}
	for _, m := range call.Ends {
		if m != nil && m.state != mappingFree {
			return
		}
	}
	if i := slices.Index(c.calls, call); i >= 0 {
		c.detach(i)
		c.table.changed(call)
		call.until.Clear()
		c.table.use(c.client(), 0, 0, -1)
	}
}
