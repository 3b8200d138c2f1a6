package daemon

import "time"

// Everything that is due is so by the monotonic clock, which a time.Time of
// time.Now carries along: a clock that is set, as on a router that learns the time
// some seconds after its start, changes nothing. It stands still while the machine
// sleeps, and so do conntrack's timeouts.

// wall returns a time of before by the clock as it is set now: what leaves the
// process has no monotonic reading, and whoever subtracts it from the present
// would count the clock's jumps.
func wall(now, t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return now.Add(t.Sub(now))
}
