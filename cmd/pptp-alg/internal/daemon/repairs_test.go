package daemon

import (
	"testing"
	"time"
)

// Who removes the table at once has to wait longer and longer; who does it every few seconds does not, however
// often that is.
func TestRepairs(t *testing.T) {
	now := time.Now()
	var r repairs
	remove := func(after time.Duration) (waited time.Duration) {
		now = now.Add(after)
		due := r.due(now)
		if later := r.due(now.Add(10 * repairPeace)); !later.Equal(due) {
			t.Errorf("damage that is seen again is due at %v, not at %v", later, due)
		}
		if due.After(now) {
			waited = due.Sub(now)
			now = due
		}
		r.begin(now)
		return waited
	}
	if w := remove(0); w != 0 {
		t.Errorf("the first repair waits for %v", w)
	}
	last := time.Duration(0)
	for range 20 {
		w := remove(time.Millisecond)
		if w < last || w > lastRepair {
			t.Errorf("a program that removes it at once waits for %v, after %v", w, last)
		}
		last = w
	}
	if last < lastRepair-time.Second {
		t.Errorf("a program that removes it at once waits for %v in the end", last)
	}
	for i := range 20 {
		if w := remove(repairPeace + time.Second); w > 0 {
			t.Errorf("removal %d after a time of peace waits for %v", i, w)
		}
	}
	// One that lets it be for a moment, and is not seen to do damage, begins anew too.
	remove(time.Millisecond)
	r.due(now)
	r.whole()
	if w := remove(repairPeace + time.Second); w > 0 {
		t.Errorf("what was whole again waits for %v", w)
	}
}
