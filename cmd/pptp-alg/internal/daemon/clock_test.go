package daemon

import (
	"testing"
	"time"
	"unsafe"

	"pptp-alg/nat"
)

// set returns the time as it is when the clock was set by that much in between: the
// monotonic reading is the same. A time.Time that has one begins with a word in which
// the seconds of the clock are above 30 bits of nanoseconds.
func set(t time.Time, by time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(by/time.Second) << 30
	return t
}

func TestClockSet(t *testing.T) {
	now := time.Now()
	for _, by := range []time.Duration{0, time.Hour, -time.Hour, 400 * 24 * time.Hour, -400 * 24 * time.Hour} {
		later := set(now.Add(90*time.Second), by)
		if d := later.Round(0).Sub(now.Round(0)); d != 90*time.Second+by {
			t.Fatalf("the clock was not set by %v: %v", by, d)
		}
		// What somebody computes who has the text only.
		age := later.Round(0).Sub(wall(later, now).Round(0))
		if age != 90*time.Second {
			t.Errorf("clock set by %v: an age of 90 s looks like %v", by, age)
		}
		if !wall(later, time.Time{}).IsZero() {
			t.Error("never has become some time")
		}
	}
}

// Calls live as long as they do, whatever the clock is set to meanwhile.
func TestDeadlinesIgnoreTheClock(t *testing.T) {
	inKernel(t, func(d *daemon) {
		for _, by := range []time.Duration{time.Hour, -time.Hour} {
			now := time.Now()
			c := connected(t, d)
			if c == nil {
				return
			}
			call := c.Request(now, nat.Client, nat.Outgoing, 5, nil) // half open
			half := d.config.Timeouts.HalfOpen
			d.table.Expire(set(now.Add(half/2), by))
			if !call.Live() {
				t.Errorf("clock set by %v: the call ended early: %s", by, call.Reason)
			}
			if next, ok := d.table.Next(); !ok || next.Sub(set(now.Add(half/2), by)) != half-half/2 {
				t.Errorf("clock set by %v: due in %v", by, next.Sub(set(now, by)))
			}
			d.table.Expire(set(now.Add(half), by))
			if call.Live() {
				t.Errorf("clock set by %v: the call did not end", by)
			}
			c.Close(now.Add(half), "test")
			d.table.Expire(now.Add(24 * time.Hour)) // a machine that slept: all at once
			if list, err := d.plane.ct.List(); err != nil || len(list) != 0 {
				t.Errorf("%d entries are left, %v", len(list), err)
			}
		}
	})
}
