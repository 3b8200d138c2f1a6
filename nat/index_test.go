package nat

import (
	"math/rand/v2"
	"testing"
	"time"
)

// walk is find without an index.
func walk(c *Connection, k indexKey) *Call {
	var best *Call
	for _, call := range c.calls {
		m := call.Ends[k.side]
		if m == nil || !k.told && m.Real != k.id || k.told && m.Told != k.id {
			continue
		}
		if best == nil || call.rank() < best.rank() || call.rank() == 3 && best.rank() == 3 {
			best = call
		}
	}
	return best
}

// The index finds what a walk over all calls finds, while calls with few
// different IDs are announced, answered, cleared, ended, refused and forgotten.
func TestIndexFindsWhatAWalkFinds(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.CallsPerConnection = 150 })
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	c := w.connect(client(1))
	with, without := 0, 0
	for step := range 20000 {
		grow := step/2000%2 == 0 // fill up, empty, fill up
		switch n := rng.IntN(10); {
		case n < 5 && grow || n < 1:
			w.request(c, uint16(rng.IntN(40)))
		case n < 8 && len(c.calls) > 0:
			call := c.calls[rng.IntN(len(c.calls))]
			switch rng.IntN(5) {
			case 0, 1:
				if call.Ends[Server] == nil && call.Live() && !call.Refused {
					if m, err := c.Announce(w.now, Server, uint16(1000+rng.IntN(40)), nil); err == nil {
						c.Answer(w.now, call, m)
					}
				}
			case 2:
				c.Clear(w.now, call, "test")
			case 3:
				if !grow || rng.IntN(2) == 0 {
					c.End(w.now, call, "test")
				}
			case 4:
				c.Refuse(w.now, call, ErrExhausted)
			}
		default:
			w.pass(time.Duration(rng.IntN(2000)) * time.Millisecond)
			if !grow {
				w.pass(20 * time.Second)
			}
		}
		if c.index != nil {
			with++
		} else {
			without++
		}
		if (c.index != nil) != (len(c.calls) > indexFrom) && (len(c.calls) < indexUntil || len(c.calls) > indexFrom) {
			t.Fatalf("step %d: %d calls, and an index: %v", step, len(c.calls), c.index != nil)
		}
		for range 5 {
			k := indexKey{Side(rng.IntN(2)), rng.IntN(2) == 0, uint16(rng.IntN(40))}
			if len(c.calls) > 0 && rng.IntN(2) == 0 {
				if m := c.calls[rng.IntN(len(c.calls))].Ends[k.side]; m != nil {
					k = m.keys()[rng.IntN(2)]
				}
			}
			got := c.find(k, func(call *Call) bool {
				m := call.Ends[k.side]
				return m != nil && (k.told && m.Told == k.id || !k.told && m.Real == k.id)
			})
			if want := walk(c, k); got != want {
				t.Fatalf("step %d, %d calls: %+v finds %+v, want %+v", step, len(c.calls), k, got, want)
			}
		}
	}
	if with < 1000 || without < 1000 {
		t.Errorf("%d steps with an index and %d without: not both were tested", with, without)
	}
	c.EndAll(w.now, "over")
	w.pass(time.Hour) // their GRE ends
	w.pass(time.Hour) // and their IDs are free
	if len(c.calls) != 0 || c.index != nil {
		t.Errorf("%d calls and an index of %d are left", len(c.calls), len(c.index))
	}
}

// An index that is left behind by nothing is empty.
func TestIndexForgets(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(client(1))
	for n := range uint16(200) {
		w.call(c, n, 1000+n)
	}
	if len(c.index) != 800 {
		t.Errorf("%d entries for 200 calls with four different IDs each", len(c.index))
	}
	for _, call := range c.calls[40:] {
		c.End(w.now, call, "test")
	}
	w.pass(10 * time.Minute) // their GRE ends
	w.pass(10 * time.Minute) // and their IDs are free
	if len(c.calls) != 40 || len(c.index) != 160 {
		t.Errorf("%d calls with %d entries are left, want 40 with 160", len(c.calls), len(c.index))
	}
}

// More calls with one Call ID on one connection than any peer makes are refused.
func TestTooManyTwins(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(client(1))
	for n := range uint16(maxTwins) {
		w.call(c, 5, 1000+n)
	}
	w.refused(w.request(c, 5), "64 calls of one client")
	w.accepted(w.request(c, 6))
}
