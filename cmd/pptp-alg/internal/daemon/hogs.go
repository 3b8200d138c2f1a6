package daemon

import (
	"os"
	"runtime"
	"time"
)

// The daemon runs on one thread (see main): as long as that has work, the Go runtime looks
// for segments that came in every 10 ms only. A client that keeps the owner busy would so
// delay each segment of the others by that much, before they are in any line. While there
// is such a client, a second thread receives.

const (
	hogWindow = 20 * time.Millisecond // in which use is added up
	hogCalm   = time.Second           // without a hog, until one thread is enough again

	// hogSegment is what one segment counts at most: the clock goes on while other programs
	// have the processor, and no single segment makes its sender a hog.
	hogSegment = hogWindow / 4
)

// hogs finds clients that keep the owner busy: it works for more than half of a window,
// and more than half of that for one client, while there are others. Many clients that do
// so together are served best by one thread, which is cheaper, and so is one that is alone.
type hogs struct {
	window uint64
	begun  time.Time     // the window
	worked time.Duration // by the owner, in it
	most   time.Duration // of that for one client
	wide   bool
	last   time.Time // that there was one
}

// add says what a segment of a client has cost.
func (h *hogs) add(l *line, cost time.Duration) {
	if l.window != h.window {
		l.window, l.recent = h.window, 0
	}
	cost = min(cost, hogSegment)
	l.recent += cost
	h.worked += cost
	h.most = max(h.most, l.recent)
}

// look judges when a window is over, and reports a change.
func (h *hogs) look(now time.Time) (wide, changed bool) {
	long := now.Sub(h.begun)
	if long < hogWindow {
		return h.wide, false
	}
	was := h.wide
	if h.worked > long/2 && h.most > h.worked/2 && h.most < h.worked {
		h.wide, h.last = true, now
	} else if now.Sub(h.last) > hogCalm {
		h.wide = false
	}
	h.window++
	h.begun, h.worked, h.most = now, 0, 0
	return h.wide, h.wide != was
}

// widen has a second thread receive, or not any more, unless the user says how many threads there are to be.
func widen(wide bool) {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	threads := 1
	if wide {
		threads = 2
	}
	runtime.GOMAXPROCS(threads)
}
