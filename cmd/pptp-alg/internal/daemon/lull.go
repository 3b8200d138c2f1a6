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

// giveBack collects garbage and returns what is free to the system.
var giveBack = debug.FreeOSMemory

// lull waits for the end of a burst.
type lull struct {
	end      nat.Deadline
	waiting  bool
	segments int
	last     time.Time
}

// busy notes a segment.
func (d *daemon) busy(now time.Time) {
	l := &d.lull
	l.segments++
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
	go giveBack() // the owner need not wait for it
}
