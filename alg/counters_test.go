package alg_test

import (
	"testing"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// What goes wrong is counted for the side that sent it.
func TestCountersBySide(t *testing.T) {
	type by = alg.BySide
	for _, c := range []struct {
		name string
		play func(c *conn)
		want alg.Counters
	}{
		{"split", func(c *conn) {
			m := message(ocrq, 5, -1)
			c.send(client, m[:20])
			c.send(client, m[20:30])
			c.send(client, append(m[30:], message(clearRequest, 5, -1)...))
		}, alg.Counters{Messages: 2, Split: by{1, 0}}},
		{"split in its header", func(c *conn) {
			m := message(echoReply, -1, -1)
			c.send(server, m[:3])
			c.send(server, m[3:])
		}, alg.Counters{Messages: 1, Split: by{0, 1}}},
		{"short", func(c *conn) { c.send(server, with(message(echoReply, -1, -1), 0, 16)) },
			alg.Counters{Short: by{0, 1}, Unparsed: 1}},
		{"no length", func(c *conn) { c.send(client, with(message(ocrq, 5, -1), 0, 4)) },
			alg.Counters{Short: by{1, 0}, Unparsed: 1}},
		{"not PPTP", func(c *conn) { c.send(client, make([]byte, 12)) }, alg.Counters{Unparsed: 1}},
		{"again", func(c *conn) {
			m := message(echoReply, -1, -1)
			c.send(server, m)
			c.at(server, 0, m, alg.ACK).went(c.t)
		}, alg.Counters{Messages: 1, Retransmitted: by{0, 1}}},
		{"unknown, its own", func(c *conn) { c.send(client, message(clearRequest, 5, -1)) },
			alg.Counters{Messages: 1, UnknownCallID: by{1, 0}}},
		{"unknown, the peer's", func(c *conn) { c.send(server, message(wanError, -1, 5)) },
			alg.Counters{Messages: 1, UnknownCallID: by{0, 1}}},
	} {
		r := newRig(t, nat.Config{})
		c.play(r.connect(2))
		c.want.Connections = 1
		if got := r.alg.Counters; got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
