package nat

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// idle is a data plane that does nothing.
type idle struct{}

func (idle) Open(*Mapping) error  { return nil }
func (idle) Renew(*Mapping) error { return nil }
func (idle) Close(*Mapping)       {}
func (idle) Free(*Mapping)        {}

func benchTable() *Table {
	cfg := testConfig()
	cfg.Limits = Limits{CallsPerClient: 4096, CallsPerConnection: 4096, Calls: 100000, ConnectionsPerClient: 1024, Connections: 100000}
	cfg.Timeouts.Renew = 4 * time.Hour
	return NewTable(cfg, idle{}, rand.New(rand.NewPCG(1, 2)))
}

// fill makes calls of as many clients, all with the client's Call ID 5, to one
// server.
func fill(b testing.TB, t *Table, n int) {
	for i := range n {
		c, err := t.Connect(client(i + 1))
		if err != nil {
			b.Fatal(err)
		}
		call := c.Request(epoch, Client, Outgoing, 5, nil)
		if call.Refused {
			b.Fatalf("call %d: %s", i, call.Reason)
		}
		m, err := c.Announce(epoch, Server, uint16(i+1), nil)
		if err != nil {
			b.Fatal(err)
		}
		c.Answer(epoch, call, m)
	}
}

// A whole call while others with equal IDs are live in the same domain.
func BenchmarkCall(b *testing.B) {
	for _, n := range []int{1, 50000} {
		b.Run(fmt.Sprint("live=", n), func(b *testing.B) {
			t := benchTable()
			fill(b, t, n)
			c, _ := t.Connect(client(1 << 20))
			now := epoch
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				// Calls do not overlap, and the IDs of the last few hundred rest.
				now = now.Add(300 * time.Millisecond)
				call := c.Request(now, Client, Outgoing, 5, nil)
				m, err := c.Announce(now, Server, 60000, nil)
				if err != nil {
					b.Fatal(err)
				}
				c.Answer(now, call, m)
				c.End(now, call, "over")
				t.Expire(now)
			}
		})
	}
}

// A request that is refused because the domain is full.
func BenchmarkExhausted(b *testing.B) {
	t := benchTable()
	fill(b, t, 65534)
	c, _ := t.Connect(client(1 << 20))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		call := c.Request(epoch, Client, Outgoing, 5, nil)
		c.End(epoch, call, "answered")
	}
}

// What one live call takes, with a connection of its own.
func BenchmarkMemory(b *testing.B) {
	const n = 50000
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		t := benchTable()
		fill(b, t, n)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/call")
		b.ReportMetric(float64(after.HeapObjects-before.HeapObjects)/n, "objects/call")
		runtime.KeepAlive(t)
	}
}
