package daemon

import (
	"runtime/debug"
	"time"

	"pptp-alg/nat"
)

// A heap that has grown takes twice what is in it, and more after a burst. Where it
// is quiet again, the rest goes back to the system: a router has little.
const (
	lullTime     = time.Minute // without a segment: longer than calls take to be looked at, see watchGRE
	lullSegments = 1000        // less than so many were no burst
)

// startGrowth is how much the heap may grow, in percent, between two collections while calls are taken over, when
// nearly all that is new stays: to look through it again and again is a fifth of a start with many calls.
const startGrowth = 400

// grow lets the heap grow so, until done is called.
func grow() (done func()) {
	before := debug.SetGCPercent(startGrowth)
	return func() { debug.SetGCPercent(before) }
}

// giveBack collects garbage and returns what is free to the system.
var giveBack = debug.FreeOSMemory

// lull waits for the end of a burst.
type lull struct {
	end      nat.Deadline
	waiting  bool
	segments int
	last     time.Time
}

// busy notes segments, or what takes as much memory.
func (d *daemon) busy(now time.Time, segments int) {
	l := &d.lull
	l.segments += segments
	l.last = now
	if !l.waiting && l.segments >= lullSegments {
		l.waiting = true
		d.table.Schedule(&l.end, now.Add(lullTime), d.quiet)
	}
}

// quiet gives memory back, unless there were segments of late.
func (d *daemon) quiet(now time.Time) {
	l := &d.lull
	if end := l.last.Add(lullTime); end.After(now) {
		d.table.Schedule(&l.end, end, d.quiet)
		return
	}
	l.waiting, l.segments = false, 0
	d.alg.Shrink()
	go giveBack() // the owner need not wait for it
}
