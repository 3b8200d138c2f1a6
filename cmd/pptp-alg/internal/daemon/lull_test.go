package daemon

import (
	"math/rand/v2"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// Memory is given back once, a minute after the last segment of a burst, and not
// after a few segments.
func TestLull(t *testing.T) {
	given := make(chan struct{}, 10)
	defer func(f func()) { giveBack = f }(giveBack)
	giveBack = func() { given <- struct{}{} }
	table := nat.NewTable(nat.Config{First: 1, Last: 65535}, nil, rand.New(rand.NewPCG(1, 2)))
	d := &daemon{table: table, alg: alg.New(alg.Config{}, table)}
	now := time.Now()
	expire := func(after time.Duration, want bool) {
		t.Helper()
		now = now.Add(after)
		d.table.Expire(now)
		_, more := d.table.Next()
		if more == want {
			t.Errorf("memory given back: %v, want %v", !more, want)
		}
		if want {
			<-given
		}
	}
	for range lullSegments - 1 {
		d.busy(now, 1)
	}
	if _, waiting := d.table.Next(); waiting {
		t.Error("a few segments are taken for a burst")
	}
	d.busy(now, 1)
	expire(lullTime-time.Second, false)
	d.busy(now, 1)
	expire(time.Second, false)
	expire(lullTime-time.Second, true)
	d.busy(now, 1)
	if _, waiting := d.table.Next(); waiting {
		t.Error("segments before the lull count for the next burst")
	}
	for range lullSegments {
		d.busy(now, 1)
	}
	expire(lullTime, true)
	d.busy(now, lullSegments) // as much as that at once
	expire(lullTime, true)
}
