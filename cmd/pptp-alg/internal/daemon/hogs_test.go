package daemon

import (
	"testing"
	"time"
)

// A hog is a client that alone keeps the owner busy, while there are others, and one is remembered for a second.
func TestHogs(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		clients, segments int           // of the first client every 10 ms; each other one has one
		cost              time.Duration // of each
		want              bool
	}{
		"one of two, busy":     {2, 6, ms, true},
		"one of two, at times": {2, 3, ms, false},
		"one alone, busy":      {1, 6, ms, false},
		"many clients, busy":   {9, 1, ms, false},
	} {
		now := time.Unix(1e9, 0)
		h := hogs{begun: now}
		lines := make([]line, c.clients)
		run := func(long time.Duration, cost time.Duration) (ever, changes int) {
			for end := now.Add(long); now.Before(end); {
				for range c.segments {
					h.add(&lines[0], cost)
				}
				for i := range lines[1:] {
					h.add(&lines[1+i], min(cost, ms))
				}
				now = now.Add(10 * time.Millisecond)
				wide, changed := h.look(now)
				if wide {
					ever++
				}
				if changed {
					changes++
				}
			}
			return ever, changes
		}
		if ever, changes := run(time.Second, c.cost); (ever > 0) != c.want || c.want && changes != 1 {
			t.Errorf("%s: a hog %d times, %d changes", name, ever, changes)
		}
		if run(hogCalm, 0); h.wide != c.want {
			t.Errorf("%s: soon after, a hog: %v", name, h.wide)
		}
		if run(2*hogWindow, 0); h.wide {
			t.Errorf("%s: still wide when it is calm", name)
		}
	}
}

// While the owner had one segment, another program had the processor: that makes nobody a hog.
func TestInterruptedIsNoHog(t *testing.T) {
	now := time.Unix(1e9, 0)
	h := hogs{begun: now}
	var interrupted, other line
	h.add(&interrupted, 18*time.Millisecond)
	h.add(&other, time.Millisecond)
	if wide, _ := h.look(now.Add(hogWindow)); wide {
		t.Error("a hog for one segment")
	}
}
