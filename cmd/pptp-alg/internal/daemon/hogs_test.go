package daemon

import (
	"testing"
	"time"
)

// A hog is a client alone that keeps the owner busy, and one is remembered for a second.
func TestHogs(t *testing.T) {
	for name, c := range map[string]struct {
		clients int
		cost    time.Duration // of a segment, of which each client has one every 10 ms
		want    bool
	}{
		"one client, busy":     {1, 6 * time.Millisecond, true},
		"one client, at times": {1, 4 * time.Millisecond, false},
		"many clients, busy":   {9, time.Millisecond, false},
	} {
		now := time.Unix(1e9, 0)
		h := hogs{begun: now}
		lines := make([]line, c.clients)
		run := func(long time.Duration, cost time.Duration) (ever, changes int) {
			for end := now.Add(long); now.Before(end); {
				for i := range lines {
					h.add(&lines[i], cost)
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
