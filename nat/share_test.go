package nat

import (
	"errors"
	"testing"
)

// Greedy clients, one after the other, take all the connections they can. There is
// always one left for the next client, and one client alone gets nearly all.
func TestConnectionsAreShared(t *testing.T) {
	const limit = 2048
	w := newWorld(t, func(c *Config) { c.Limits.Connections = limit })
	for n := range 50 {
		got := 0
		for {
			if _, err := w.Connect(client(n)); err != nil {
				if !errors.Is(err, ErrLimit) {
					t.Fatal(err)
				}
				break
			}
			got++
		}
		if n == 0 && got < limit*7/8 {
			t.Errorf("a client alone got %d of %d", got, limit)
		}
		if got == 0 {
			t.Fatalf("nothing was left for client %d", n)
		}
	}
}

// The same with calls, and with the Call IDs of one address.
func TestCallIDsAreShared(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"calls in total":            func(c *Config) { c.Limits.Calls = 1024 },
		"calls, ended ones as well": func(c *Config) { c.Limits.Calls = 1024; c.Timeouts.Rest *= 100 },
		"Call IDs":                  func(c *Config) { c.First, c.Last = 1, 1024 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, change)
			ending := name == "calls, ended ones as well"
			for n := range 40 {
				c := w.connect(client(n))
				got := 0
				for {
					call := w.request(c, uint16(got))
					if call.Refused {
						break
					}
					if got++; ending {
						c.End(w.now, call, "test")
					}
				}
				if n == 0 && got < 1024*7/8 {
					t.Errorf("a client alone got %d", got)
				}
				if got == 0 {
					t.Fatalf("nothing was left for client %d", n)
				}
			}
		})
	}
}

// Small limits are meant as they stand.
func TestSmallLimitsAreNotShared(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Connections = 100 })
	for n := range 100 {
		if _, err := w.Connect(client(1)); err != nil {
			t.Fatalf("connection %d: %v", n+1, err)
		}
	}
}

// What is due is done in parts, and completely in the end.
func TestExpireSome(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect(client(1))
	const calls = 100
	for n := range uint16(calls) {
		w.call(c, n, 1000+n)
	}
	c.Close(w.now, "test")
	w.now = w.now.Add(testConfig().Timeouts.Grace)
	rounds := 0
	for w.ExpireSome(w.now, 16) {
		rounds++
		if open := len(w.plane.open); open != 2*(calls-16*rounds) {
			t.Fatalf("after %d rounds of 16, %d mappings of %d calls are open", rounds, open, calls)
		}
	}
	if rounds != calls/16 || len(w.plane.open) != 0 {
		t.Errorf("%d rounds, %d mappings are open", rounds, len(w.plane.open))
	}
}
