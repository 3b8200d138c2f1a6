package nat

import "time"

// Find returns the mapping whose GRE arrives with the tuple, in the zone with
// that number, or nil. It may be one whose GRE no longer flows; see
// Mapping.Open.
func (t *Table) Find(arrives Tuple, zone uint16) *Mapping {
	if !arrives.Src.Is4() || !arrives.Dst.Is4() {
		return nil
	}
	return t.pool.owner[key{domain{arrives.Src.As4(), arrives.Dst.As4(), zone}, arrives.CallID}]
}

// Mappings calls f for every mapping that the data plane has opened and not
// freed, in no order: those that flow and those whose IDs rest.
func (t *Table) Mappings(f func(*Mapping)) {
	for _, m := range t.pool.owner {
		if m.known {
			f(m)
		}
	}
}

// Each calls f for the connection's calls that have not ended, in the order of
// their announcement.
func (c *Connection) Each(f func(*Call)) {
	for _, call := range c.calls {
		if call.Live() {
			f(call)
		}
	}
}

// Settle closes at once the mappings of calls that are not up: those that
// ended and those that were not answered. It is for the end of the program;
// calls that are up stay as they are.
func (t *Table) Settle(now time.Time) {
	for _, m := range t.pool.owner {
		up := m.call != nil && (m.call.State == Established || m.call.State == Clearing)
		if m.state == mappingOpen && !up {
			t.close(now, m)
		}
	}
}
