package alg_test

import (
	"bytes"
	"testing"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// TestIgnore: of a connection that somebody else translates nothing is changed, no call arises, and no segment waits;
// from the first segment on or in the middle, in whichever order. Its end is its end.
func TestIgnore(t *testing.T) {
	for _, when := range []string{"before", "after the handshake", "midstream"} {
		r := newRig(t, nat.Config{First: 500, Last: 600})
		c := r.dial(2)
		const reason = "somebody else's"
		if when == "after the handshake" {
			c.at(server, 0, nil, alg.SYN|alg.ACK)
		}
		c.Ignore(r.now, reason)
		if when == "before" {
			c.at(server, 0, nil, alg.SYN|alg.ACK)
		}
		var stream []byte
		for _, typ := range []int{sccrq, ocrq, setLinkInfo} {
			stream = append(stream, message(typ, 1, 2)...)
		}
		for _, side := range []nat.Side{client, server} {
			for i, part := range [][2]int{{0, 150}, {200, len(stream)}, {150, 200}, {100, 300}} {
				s := c.at(side, part[0], stream[part[0]:part[1]], alg.ACK)
				if s.decided != 1 || s.verdict != alg.Accept || !bytes.Equal(s.Payload, s.original) {
					t.Errorf("%s: piece %d from the %v: decided %d times, %v", when, i, side, s.decided, s.verdict)
				}
			}
		}
		if c.Unparsed != reason || r.table.Len() != 0 || r.alg.Counters.Unparsed != 0 || r.alg.Counters.Messages != 0 {
			t.Errorf("%s: unparsed %q, %d calls, counted %+v", when, c.Unparsed, r.table.Len(), r.alg.Counters)
		}
		for _, side := range []nat.Side{client, server} {
			c.at(side, len(stream), nil, alg.FIN|alg.ACK)
		}
		if c.State != alg.Closed {
			t.Errorf("%s: %v after both sides' end", when, c.State)
		}
		r.empty()
	}
}

// TestIgnoreGivesUpWhatWaits: a segment that waited goes on at once, as it is.
func TestIgnoreGivesUpWhatWaits(t *testing.T) {
	r := newRig(t, nat.Config{First: 500, Last: 600})
	c := r.connect(2)
	waits := c.at(client, 1000, []byte("waits"), alg.ACK)
	if waits.decided != 0 {
		t.Fatal("it does not wait")
	}
	c.Ignore(r.now, "somebody else's")
	waits.went(t)
	r.empty()
}
