package daemon

import (
	"testing"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// Of a connection that was ended from here, only what was said in its ends' names goes
// on, however TCP cuts it, and what carries nothing: what the ends themselves say has
// the same sequence numbers.
func TestFarewellPassesOnlyWhatWeSaid(t *testing.T) {
	f := farewell{
		nat.Client: {Seq: 0xfffffffe, Message: []byte("clear, stop")},
		nat.Server: {Seq: 100},
	}
	for _, c := range []struct {
		name string
		s    alg.Segment
		want alg.Verdict
	}{
		{"all", alg.Segment{Seq: 0xfffffffe, Payload: []byte("clear, stop")}, alg.Accept},
		{"a piece", alg.Segment{Seq: 5, Payload: []byte("stop")}, alg.Accept},
		{"other words", alg.Segment{Seq: 0xfffffffe, Payload: []byte("clear, go")}, alg.Drop},
		{"more", alg.Segment{Seq: 5, Payload: []byte("stop it")}, alg.Drop},
		{"what comes later", alg.Segment{Seq: 9, Payload: []byte("x")}, alg.Drop},
		{"what came before", alg.Segment{Seq: 0xfffffff0, Payload: []byte("echo")}, alg.Drop},
		{"our reset", alg.Segment{Seq: 9, Flags: alg.RST}, alg.Accept},
		{"where nothing was said", alg.Segment{From: nat.Server, Seq: 100, Payload: []byte("stop")}, alg.Drop},
		{"a reset there", alg.Segment{From: nat.Server, Seq: 100, Flags: alg.RST | alg.ACK}, alg.Accept},
	} {
		if got := f.verdict(&c.s); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.name, got, c.want)
		}
	}
}
