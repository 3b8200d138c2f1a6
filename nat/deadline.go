package nat

import (
	"container/heap"
	"time"
)

// Deadline is a point in time at which something of the table is due. Whoever
// holds one sets it anew as often as it likes; only the last setting counts.
type Deadline struct {
	at    time.Duration       // after agenda.origin: a third of a time.Time
	due   func(now time.Time) // nil: nothing is due
	place int                 // in the agenda, counted from 1; 0: not in it
}

// Clear takes back what was set. The deadline keeps its place in the agenda
// until it comes up, and is passed over then.
func (d *Deadline) Clear() { d.due = nil }

// agenda is the queue of all deadlines, the earliest first.
type agenda struct {
	origin time.Time // the first that was set
	items  deadlines
}

type deadlines []*Deadline

func (q deadlines) Len() int           { return len(q) }
func (q deadlines) Less(i, j int) bool { return q[i].at < q[j].at }
func (q deadlines) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

func (q *deadlines) Push(x any) {
	d := x.(*Deadline)
	*q = append(*q, d)
	d.place = len(*q)
}

func (q *deadlines) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	d.place = 0
	return d
}

// set makes due run at the given time, instead of what was set before.
func (a *agenda) set(d *Deadline, at time.Time, due func(now time.Time)) {
	if a.origin.IsZero() {
		a.origin = at
	}
	d.at, d.due = at.Sub(a.origin), due
	if d.place == 0 {
		heap.Push(&a.items, d)
	} else {
		heap.Fix(&a.items, d.place-1)
	}
}

// when returns what d is set to, or the zero time.
func (a *agenda) when(d *Deadline) time.Time {
	if d.due == nil {
		return time.Time{}
	}
	return a.origin.Add(d.at)
}

// next returns the earliest time at which something is due.
func (a *agenda) next() (time.Time, bool) {
	for len(a.items) > 0 {
		if d := a.items[0]; d.due != nil {
			return a.origin.Add(d.at), true
		}
		heap.Pop(&a.items)
	}
	return time.Time{}, false
}

// run carries out what is due, so many things at most, and reports whether there
// may be more.
func (a *agenda) run(now time.Time, most int) bool {
	for range most {
		at, ok := a.next()
		if !ok || at.After(now) {
			return false
		}
		d := heap.Pop(&a.items).(*Deadline)
		due := d.due
		d.due = nil
		due(now)
	}
	return true
}
