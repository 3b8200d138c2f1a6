package nat

import "slices"

// A connection with more calls than indexFrom has an index of them, until it
// has fewer than indexUntil. Below that a walk over them is as fast, and takes
// no memory. Above it, without an index, a client with thousands of calls could
// have each of its messages cost a walk over all of them.
const (
	indexFrom  = 64
	indexUntil = 32
)

// index finds the calls of a connection by Call ID.
type index map[indexKey]*sameID

type indexKey struct {
	side Side // whose ID it is
	told bool // as it was told, not the real one
	id   uint16
}

// sameID holds the calls with one Call ID, each list in the order in which they
// were announced.
type sameID struct{ live, ended []*Call }

func (s *sameID) list(call *Call) *[]*Call {
	if call.Live() {
		return &s.live
	}
	return &s.ended
}

// best is what Connection.find chooses.
func (s *sameID) best() *Call {
	if len(s.live) == 0 {
		return s.ended[len(s.ended)-1]
	}
	return slices.MinFunc(s.live, func(a, b *Call) int { return a.rank() - b.rank() }) // the first of equal ones
}

// keys are those under which a mapping is found.
func (m *Mapping) keys() [2]indexKey {
	return [...]indexKey{{m.Side, false, m.Real}, {m.Side, true, m.Told}}
}

func byID(a, b *Call) int {
	switch {
	case a.ID < b.ID:
		return -1
	case a.ID > b.ID:
		return 1
	}
	return 0
}

// add takes up a call with one of its mappings.
func (x index) add(call *Call, m *Mapping) {
	for _, k := range m.keys() {
		s := x[k]
		if s == nil {
			s = &sameID{}
			x[k] = s
		}
		list := s.list(call)
		if n := len(*list); n == 0 || (*list)[n-1].ID < call.ID {
			*list = append(*list, call)
		} else if i, found := slices.BinarySearchFunc(*list, call, byID); !found {
			*list = slices.Insert(*list, i, call)
		}
	}
}

// remove takes a call out. Its state is what it was when it was added.
func (x index) remove(call *Call, m *Mapping) {
	for _, k := range m.keys() {
		s := x[k]
		list := s.list(call)
		if i, found := slices.BinarySearchFunc(*list, call, byID); found {
			*list = slices.Delete(*list, i, i+1)
		}
		if len(s.live)+len(s.ended) == 0 {
			delete(x, k)
		}
	}
}

// indexed calls f for the call's mappings, if the connection has an index.
func (c *Connection) indexed(call *Call, f func(*Call, *Mapping)) {
	if c.index == nil {
		return
	}
	for _, m := range call.Ends {
		if m != nil {
			f(call, m)
		}
	}
}

// append adds a call to those of the connection.
func (c *Connection) append(call *Call) {
	c.calls, call.kept = append(c.calls, call), true
	if c.index == nil && len(c.calls) > indexFrom {
		c.index = index{}
		for _, other := range c.calls {
			c.indexed(other, c.index.add)
		}
		return
	}
	c.indexed(call, c.index.add)
}

// attach gives a call one of its mappings.
func (c *Connection) attach(call *Call, m *Mapping) {
	call.Ends[m.Side], m.call = m, call
	if c.index != nil {
		c.index.add(call, m)
	}
}

// detach takes a call that has ended out of those of the connection.
func (c *Connection) detach(i int) {
	call := c.calls[i]
	c.calls, call.kept = slices.Delete(c.calls, i, i+1), false
	c.indexed(call, c.index.remove)
	if len(c.calls) < indexUntil {
		c.index = nil
	}
}
