package alg_test

import (
	"runtime"
	"testing"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// What limits are multiplied by to say how much memory they allow (docs/reliability.md), without what the
// collector leaves: so many bytes for a control connection that has everything it may keep, and for a call.
const (
	connectionTakes = 10_000
	callTakes       = 1_000
)

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A connection with half a message, as many unacknowledged bytes as an idle one may keep, and as many translated
// ones as are remembered; then calls, as many as fit.
func TestMemoryOfAConnectionAndACall(t *testing.T) {
	const connections, each = 200, 20
	r := newRig(t, nat.Config{})
	var all []*conn
	before := heap()
	for n := range connections {
		c := r.dialFrom(byte(n), uint16(1000+n))
		// Nearly all clients choose the same Call ID: all but one are told another.
		own := id(c.send(client, message(ocrq, 7, -1)), 12)
		c.acked[client] = c.top[client]
		c.send(server, message(ocrp, n, own))
		for range 300 {
			c.send(server, message(wanError, own, -1))
			c.acked[server] = c.top[server]
			c.at(client, c.top[client], nil, alg.ACK)
		}
		for _, side := range []nat.Side{client, server} {
			for c.top[side]-c.acked[side] < alg.KeepHistory {
				c.send(side, message(echoRequest, -1, -1))
			}
			c.send(side, message(echoRequest, -1, -1)[:15])
		}
		all = append(all, c)
	}
	one := (heap() - before) / connections
	runtime.KeepAlive(all)
	one += 256*8 - callTakes // the client's translated bytes are wanting, and there is a call
	if t.Logf("a connection takes %d bytes", one); one > connectionTakes {
		t.Errorf("a connection takes %d bytes", one)
	}

	all, r = nil, newRig(t, nat.Config{})
	before = heap()
	for n := range connections {
		c := r.dialFrom(byte(n), uint16(1000+n))
		for i := range each {
			own := id(c.send(client, message(ocrq, i, -1)), 12)
			c.acked[client] = c.top[client]
			c.send(server, message(ocrp, each*n+i, own))
			c.acked[server] = c.top[server]
		}
		all = append(all, c)
	}
	per := (heap() - before) / (connections * each)
	if t.Logf("a call takes %d bytes, with a twentieth of a connection", per); per > callTakes+connectionTakes/each {
		t.Errorf("a call takes %d bytes", per)
	}
	if n := r.table.Len(); n != connections*each {
		t.Errorf("%d calls", n)
	}
	runtime.KeepAlive(all)
}
