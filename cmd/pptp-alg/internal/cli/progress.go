package cli

import (
	"fmt"
	"io"
	"time"
)

// progressEvery is how often the progress of something long is drawn anew.
const progressEvery = 200 * time.Millisecond

// progress shows on a terminal how far something long has come. On anything
// else it shows nothing.
type progress struct {
	w     io.Writer // nil: no terminal, or nothing to measure by
	total int64     // bytes
	calls int
	drawn time.Time
	shown bool
}

func newProgress(w io.Writer, total int64) *progress {
	p := &progress{total: total, drawn: time.Now()}
	if columns, _ := terminalSize(w); total > 0 && columns > 0 {
		p.w = w
	}
	return p
}

// at draws how far it has come, if that was not done a moment ago.
func (p *progress) at(done int64) {
	// The clock costs more than a packet: look at it now and then.
	if p.calls++; p.w == nil || p.calls%256 != 0 || time.Since(p.drawn) < progressEvery {
		return
	}
	p.drawn, p.shown = time.Now(), true
	fmt.Fprintf(p.w, "\r\x1b[K%3d%% of %.1f MB", done*100/p.total, float64(p.total)/1e6)
}

// clear takes the line away.
func (p *progress) clear() {
	if p.shown {
		p.shown = false
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// before returns a writer that clears the line before it writes: both may be on
// one terminal.
func (p *progress) before(w io.Writer) io.Writer { return clearing{p, w} }

type clearing struct {
	p *progress
	w io.Writer
}

func (c clearing) Write(b []byte) (int, error) {
	c.p.clear()
	return c.w.Write(b)
}
