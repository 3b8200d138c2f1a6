package alg_test

import (
	"fmt"
	"testing"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// talk is a conversation with all 15 messages and two calls, both sides of
// both with Call IDs that have to be translated. say gives a message to the
// ALG, however it likes, and returns what went on.
//
// Every translated message is compared byte for byte.
func talk(t testing.TB, r *rig, say func(step int, side nat.Side, b []byte) []byte) {
	t.Helper()
	step := 0
	told := map[string]int{}
	// own and peer name the Call IDs; a name that comes for the first time is
	// learned.
	type ref struct {
		name string
		real int
	}
	speak := func(side nat.Side, typ int, own, peer *ref) {
		t.Helper()
		ids := [2]int{-1, -1}
		want := [2]int{-1, -1}
		if own != nil {
			ids[0] = own.real
			want[0] = told[own.name]
		}
		if peer != nil {
			ids[1] = told[peer.name]
			want[1] = peer.real
		}
		b := message(typ, ids[0], ids[1])
		got := say(step, side, b)
		step++
		if len(got) != len(b) {
			t.Fatalf("type %d: %d bytes went on of %d", typ, len(got), len(b))
		}
		if own != nil && want[0] == 0 {
			want[0] = id(got, 12)
			told[own.name] = want[0]
			if want[0] == 0 || want[0] == own.real {
				t.Fatalf("type %d: Call ID %d told as %d", typ, own.real, want[0])
			}
			found := false
			for _, m := range r.plane.open {
				found = found || m.Side == side && int(m.Real) == own.real && int(m.Told) == want[0]
			}
			if !found {
				t.Fatalf("type %d: no GRE flows for Call ID %d, told as %d", typ, own.real, want[0])
			}
		}
		same(t, fmt.Sprintf("type %d", typ), got, patched(b, want))
	}
	c1, s1 := &ref{"c1", 0}, &ref{"s1", 0}
	c2, s2 := &ref{"c2", 0xff00}, &ref{"s2", 0xfe01}
	speak(client, sccrq, nil, nil)
	speak(server, sccrp, nil, nil)
	speak(client, ocrq, c1, nil)
	speak(server, ocrp, s1, c1)
	speak(client, setLinkInfo, nil, s1)
	speak(server, wanError, nil, c1)
	speak(server, icrq, s2, nil)
	speak(client, icrp, c2, s2)
	speak(server, iccn, nil, c2)
	if n := r.table.Len(); n != 2 {
		t.Fatalf("%d calls", n)
	}
	r.table.Calls(func(c *nat.Call) {
		if c.State != nat.Established {
			t.Fatalf("an %v call is %v", c.Direction, c.State)
		}
	})
	speak(client, echoRequest, nil, nil)
	speak(server, echoReply, nil, nil)
	speak(client, clearRequest, c2, nil)
	speak(server, disconnectNotify, s2, nil)
	speak(client, clearRequest, c1, nil)
	speak(server, disconnectNotify, s1, nil)
	if n := r.table.Len(); n != 0 {
		t.Fatalf("%d calls after all were cleared", n)
	}
	speak(client, stopRequest, nil, nil)
	speak(server, stopReply, nil, nil)
}

// patched returns b with the Call ID fields replaced that want has.
func patched(b []byte, want [2]int) []byte {
	at := 12
	for _, v := range want {
		if v >= 0 {
			b = with(b, at, uint16(v))
			at += 2
		}
	}
	return b
}

// talkRange makes all Call IDs of talk change in both bytes.
var talkRange = nat.Config{First: 0x1280, Last: 0x12c0}

// talkRange2 spans two blocks, so that one half of a Call ID does not say
// what becomes of the other.
var talkRange2 = nat.Config{First: 0x12f0, Last: 0x1310}

const talkSteps = 17

func TestUncut(t *testing.T) {
	for _, cfg := range []nat.Config{talkRange, talkRange2} {
		r := newRig(t, cfg)
		c := r.connect(2)
		steps := 0
		talk(t, r, func(_ int, side nat.Side, b []byte) []byte { steps++; return c.send(side, b) })
		if steps != talkSteps {
			t.Errorf("%d steps", steps)
		}
		if r.alg.Counters.Messages != talkSteps || r.alg.Counters.UnknownCallID.Sum() != 0 {
			t.Errorf("%+v", r.alg.Counters)
		}
		r.empty()
	}
}

// cutTalk plays talk with one message cut in pieces.
func cutTalk(t testing.TB, cfg nat.Config, step int, cuts []int, backwards bool) {
	t.Helper()
	r := newRig(t, cfg)
	c := r.connect(2)
	talk(t, r, func(n int, side nat.Side, b []byte) []byte {
		if n != step {
			return c.send(side, b)
		}
		return c.pieces(side, b, cuts, backwards)
	})
	if t.Failed() {
		t.Fatalf("step %d, cut at %v, backwards %v", step, cuts, backwards)
	}
}

// pieces gives the ALG the next bytes of a stream in pieces.
func (c *conn) pieces(side nat.Side, b []byte, cuts []int, backwards bool) []byte {
	c.t.Helper()
	from := c.top[side]
	var parts []*sent
	ends := append(append([]int{}, cuts...), len(b))
	for i := range ends {
		if backwards {
			i = len(ends) - 1 - i
		}
		a := 0
		if i > 0 {
			a = ends[i-1]
		}
		s := c.at(side, from+a, b[a:ends[i]], alg.ACK)
		if backwards {
			parts = append([]*sent{s}, parts...)
		} else {
			parts = append(parts, s)
		}
	}
	var out []byte
	for _, s := range parts {
		s.went(c.t)
		out = append(out, s.Payload...)
	}
	return out
}

// TestEveryCut cuts each message of a conversation at each byte.
func TestEveryCut(t *testing.T) {
	for _, cfg := range []nat.Config{talkRange, talkRange2} {
		for step, n := range talkLengths(t) {
			for a := 1; a < n; a++ {
				cutTalk(t, cfg, step, []int{a}, false)
				cutTalk(t, cfg, step, []int{a}, true)
			}
		}
	}
}

// TestEveryTwoCuts cuts each message of a conversation at each two bytes.
func TestEveryTwoCuts(t *testing.T) {
	for step, n := range talkLengths(t) {
		if testing.Short() {
			n = min(n, 24)
		}
		for a := 1; a < n; a++ {
			for b := a + 1; b < n; b++ {
				cutTalk(t, talkRange, step, []int{a, b}, (a+b)%2 == 0)
			}
		}
	}
}

func talkLengths(t testing.TB) []int {
	r := newRig(t, talkRange)
	c := r.connect(2)
	var all []int
	talk(t, r, func(_ int, side nat.Side, b []byte) []byte { all = append(all, len(b)); return c.send(side, b) })
	return all
}

// TestByteByByte sends every byte in a segment of its own, in both ranges and
// in both modes of beginning.
func TestByteByByte(t *testing.T) {
	for _, cfg := range []nat.Config{talkRange, talkRange2} {
		for _, seen := range []bool{true, false} {
			r := newRig(t, cfg)
			c := r.dial(2)
			if seen {
				c.at(server, 0, nil, alg.SYN|alg.ACK)
			}
			talk(t, r, func(_ int, side nat.Side, b []byte) []byte {
				var cuts []int
				for i := 1; i < len(b); i++ {
					cuts = append(cuts, i)
				}
				return c.pieces(side, b, cuts, false)
			})
			if c.Midstream == seen {
				t.Errorf("midstream is %v", c.Midstream)
			}
			r.empty()
		}
	}
}

// TestMessagesInOneSegment: two and three messages in one segment, also when
// the last is cut.
func TestMessagesInOneSegment(t *testing.T) {
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	for cut := 0; cut < 168; cut++ {
		r := newRig(t, talkRange)
		c := r.connect(2)
		b := join(message(sccrq, -1, -1), message(ocrq, 1, -1), message(ocrq, 2, -1))
		var got []byte
		if cut == 0 {
			got = c.send(client, b)
		} else {
			got = c.pieces(client, b, []int{len(b) - cut}, false)
		}
		one, two := id(got, 156+12), id(got, 156+168+12)
		if one == two || one == 1 || two == 2 {
			t.Fatalf("told %d and %d", one, two)
		}
		same(t, "three messages", got, with(with(b, 156+12, uint16(one)), 156+168+12, uint16(two)))
		// The answers, in the other order, and an Echo-Request between.
		b = join(message(sccrp, -1, -1), message(ocrp, 8, two), message(echoRequest, -1, -1), message(ocrp, 9, one))
		got = c.send(server, b)
		eight, nine := id(got, 156+12), id(got, 156+32+16+12)
		same(t, "three answers", got, with(with(with(with(b, 156+12, uint16(eight)), 156+14, 2), 204+12, uint16(nine)), 204+14, 1))
		got = c.send(client, join(message(setLinkInfo, -1, nine), message(clearRequest, 2, -1), message(clearRequest, 1, -1)))
		if id(got, 12) != 9 || id(got, 24+12) != two || id(got, 40+12) != one {
			t.Fatalf("three messages about calls: %x", got)
		}
		got = c.send(server, join(message(disconnectNotify, 9, -1), message(disconnectNotify, 8, -1)))
		if id(got, 12) != nine || id(got, 148+12) != eight || r.table.Len() != 0 {
			t.Fatalf("two disconnections: %x, %d calls left", got, r.table.Len())
		}
		r.empty()
	}
}
