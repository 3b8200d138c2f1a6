package alg

import (
	"net/netip"

	"pptp-alg/nat"
)

// What all connections together may make the ALG keep. Within it, nobody can
// take what others need.
const (
	// maxHeldTotal bounds the segments that wait, but for those of clients that
	// have no other: as many again. The kernel's queue holds 4,096 packets.
	maxHeldTotal = 512
	// heldShare: a client may have a quarter of what is left of them, and one in
	// any case.
	heldShare = 4

	// maxHistoryTotal bounds the forwarded bytes that are remembered. When it is
	// reached, a direction that has more than keepHistory unacknowledged has to
	// wait for an acknowledgement: what it sends is dropped, and TCP sends it
	// again. Control connections have a message or two under way.
	maxHistoryTotal = 8 << 20
)

// budget is what is kept of that.
type budget struct {
	held       int
	heldBy     map[netip.Addr]int // by client; those that have some
	remembered int                // bytes in histories
}

func (d *direction) client() netip.Addr { return d.conn.calls.Path.Hosts[nat.Client].Real }

// holding counts segments that begin to wait, or no longer do.
func (d *direction) holding(n int) {
	b, c := &d.conn.alg.budget, d.client()
	b.held += n
	if b.heldBy[c] += n; b.heldBy[c] == 0 {
		delete(b.heldBy, c)
	}
}

// holdsTooMuch reports whether the direction has to let go of a segment.
func (d *direction) holdsTooMuch() bool {
	if len(d.held) == 0 {
		return false
	}
	b := &d.conn.alg.budget
	share := max((maxHeldTotal-b.held)/heldShare, 1)
	return len(d.held) > maxHeld || d.heldBytes > maxHeldBytes || b.held > 2*maxHeldTotal || b.heldBy[d.client()] > share
}

// remember counts what the history has more, or less, than before.
func (d *direction) remember(before int) {
	d.conn.alg.budget.remembered += len(d.past.buf) - before
}

// mustWait reports whether so many more bytes may not be forwarded for now.
func (d *direction) mustWait(n int) bool {
	return len(d.past.buf) > keepHistory && d.conn.alg.budget.remembered+n > maxHistoryTotal
}
