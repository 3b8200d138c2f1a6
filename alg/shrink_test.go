package alg_test

import (
	"runtime"
	"testing"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// What idle connections give back is memory only: what was forwarded and may be sent again is repeated as before,
// translated where it was acknowledged and byte by byte where it was not, and what comes next is translated.
func TestShrink(t *testing.T) {
	const connections = 500
	r := newRig(t, nat.Config{})
	type repeated struct {
		c             *conn
		at            int
		request, went []byte
	}
	var all []repeated
	for n := range connections {
		c := r.dialFrom(byte(n), uint16(1000+n))
		for range 3 { // so that there is another Call ID than the real one, and lists have room to grow
			request, at := message(ocrq, 7, -1), c.top[client]
			went := c.send(client, request)
			if n%2 == 1 {
				request = with(request, 100, 0xdead) // which the server is not to see
			}
			all = append(all, repeated{c, at, request, went})
		}
		if n%2 == 0 {
			c.acked[client] = c.top[client]
			c.at(server, 0, nil, alg.ACK)
		}
	}
	before := heap()
	r.alg.Shrink()
	if saved := (before - heap()) / connections; saved < 200 {
		t.Errorf("%d bytes of a connection were given back", saved)
	}
	for _, s := range all {
		again := s.c.at(client, s.at, s.request, alg.ACK)
		again.went(t)
		same(t, "sent again", again.Payload, s.went)
	}
	for _, s := range all[:30] {
		if told := id(s.c.send(client, message(ocrq, 7, -1)), 12); told == id(s.went, 12) {
			t.Errorf("another call got the Call ID %d as well", told)
		}
	}
	runtime.KeepAlive(all)
}
