package nat

// Find returns the mapping whose GRE arrives with the tuple, or nil. It may be
// one whose GRE no longer flows; see Mapping.Open.
func (t *Table) Find(arrives Tuple, zone Zone) *Mapping {
	if !arrives.Src.Is4() || !arrives.Dst.Is4() {
		return nil
	}
	return t.pool.owner[key{domain{arrives.Src.As4(), arrives.Dst.As4(), zone}, arrives.CallID}]
}
