package nat

import (
	"container/heap"
	"time"
)

// Deadline is a point in time at which something of the table is due. Whoever
// holds one sets it anew as often as it likes; only the last setting counts.
type Deadline struct {
	at  time.Time // zero: nothing is due
	due func(now time.Time)
	// queued is the earliest time at which the agenda will look at it.
	queued time.Time
}

// agenda is the queue of all deadlines. A deadline that was moved to later
// stays where it is queued and is put back when it comes up, so that moving
// one costs nothing.
type agenda struct{ items entries }

type entry struct {
	at time.Time
	d  *Deadline
}

type entries []entry

func (e entries) Len() int           { return len(e) }
func (e entries) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e entries) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *entries) Push(x any)        { *e = append(*e, x.(entry)) }
func (e *entries) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = entry{}
	*e = (*e)[:last]
	return x
}

// set makes due run at the given time, instead of what was set before.
func (a *agenda) set(d *Deadline, at time.Time, due func(now time.Time)) {
	d.at, d.due = at, due
	if d.queued.IsZero() || at.Before(d.queued) {
		d.queued = at
		heap.Push(&a.items, entry{at, d})
	}
}

// Clear takes back what was set.
func (d *Deadline) Clear() { d.at, d.due = time.Time{}, nil }

// next returns the earliest deadline.
func (a *agenda) next() (time.Time, bool) {
	for len(a.items) > 0 {
		e := a.items[0]
		switch {
		case e.at != e.d.queued: // queued again for earlier since
			heap.Pop(&a.items)
		case e.d.at.IsZero(): // taken back
			e.d.queued = time.Time{}
			heap.Pop(&a.items)
		case e.d.at.After(e.at): // moved to later
			e.d.queued = e.d.at
			a.items[0].at = e.d.at
			heap.Fix(&a.items, 0)
		default:
			return e.at, true
		}
	}
	return time.Time{}, false
}

// run carries out everything that is due.
func (a *agenda) run(now time.Time) {
	for {
		at, ok := a.next()
		if !ok || at.After(now) {
			return
		}
		d := heap.Pop(&a.items).(entry).d
		due := d.due
		d.queued = time.Time{}
		d.Clear()
		due(now)
	}
}
