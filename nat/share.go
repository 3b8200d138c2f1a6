package nat

import "fmt"

// What all clients share (control connections, calls, the Call IDs of a public
// address towards one server) is given to whoever comes until an eighth is left.
// Of that a client gets something only as long as it has less than a sixteenth
// of what is left, or nothing at all. So a client that takes what it can, from however many addresses,
// leaves room for one that has little.
const (
	lastPart  = 8
	fairShare = 16
	// minShared is from which size on this holds: a small limit is meant as it
	// stands.
	minShared = 1024
)

// scarce reports whether a client that has mine of a limit, of which used are
// taken, has to leave the rest to others.
func scarce(mine, used, limit int) bool {
	left := limit - used
	return limit >= minShared && left <= limit/lastPart && mine >= max(left/fairShare, 1)
}

// shareIDs returns an error when the Call IDs of the domain in which the side's
// ID is told are nearly all taken and the client has many.
func (c *Connection) shareIDs(side Side) error {
	t := c.table
	d := arrivalKey(&Mapping{Path: &c.Path, Side: side}).domain
	size := int(t.pool.last) - int(t.pool.first) + 1
	if have := int(t.of(c.client()).held); scarce(have, t.pool.used[d], size) {
		return fmt.Errorf("%w for client %v, which has %d calls, ended ones included: of %d Call IDs only %d are left for others",
			ErrExhausted, c.client(), have, size, size-t.pool.used[d])
	}
	return nil
}
