package daemon

import "time"

const (
	firstRepair = 100 * time.Millisecond // pause after the first repair, doubled with each further one
	lastRepair  = 30 * time.Second       // at most this
	repairPeace = 5 * time.Second        // what stood for so long was not put back in vain: the pause is the first again
)

// repairs says when the table is put back. Who removes it again and again, as soon as it is there, does not want it:
// it is left away for longer and longer, so that two programs do not use up the router. Who removes it now and then,
// with a firewall that is loaded anew, say, finds it back at once.
type repairs struct {
	last   time.Time     // when it was put back
	broken time.Time     // when it was first seen damaged since then; zero: it is whole
	pause  time.Duration // how long it is left as it is after last
}

// due returns from when on damage that is seen now may be repaired.
func (r *repairs) due(now time.Time) time.Time {
	if r.broken.IsZero() {
		r.broken = now
		if now.Sub(r.last) > repairPeace {
			r.pause = 0
		}
	}
	return r.last.Add(r.pause)
}

// whole notes that there is no damage.
func (r *repairs) whole() { r.broken = time.Time{} }

// begin notes that the table is being put back.
func (r *repairs) begin(now time.Time) {
	r.last, r.broken = now, time.Time{}
	r.pause = min(max(2*r.pause, firstRepair), lastRepair)
}
