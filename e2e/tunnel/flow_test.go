package tunnel

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"pptp-alg/e2e/wire"
)

var epoch = time.Unix(0, 0)

func number(i uint32) []byte { return binary.BigEndian.AppendUint32(nil, i) }

// Two ends over a link that loses, copies and delays. Whatever arrives arrives
// in order and once; what comes too late for its turn is lost.
func TestFlowOverBadLink(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		loss, copies, late := random.IntN(20), random.IntN(20), random.IntN(40)
		ends := [2]*Flow{NewFlow(FlowConfig{Queue: 5000, SendWindow: 1 + random.IntN(64)}), NewFlow(FlowConfig{Queue: 5000})}
		ends[0].next, ends[1].expected = ^uint32(0)-50, ^uint32(0)-50 // through the end of the numbers
		ends[0].acked = ends[0].next
		type flying struct {
			to int
			at time.Time
			g  wire.GRE
		}
		var air []flying
		var got [2][]uint32
		now := epoch
		most := uint32(0)
		collect := func(from int) {
			packets, payloads := ends[from].Take()
			for _, p := range payloads {
				got[from] = append(got[from], binary.BigEndian.Uint32(p))
			}
			for _, g := range packets {
				if random.IntN(100) < loss {
					continue
				}
				for again := true; again; again = random.IntN(100) < copies {
					at := now.Add(5 * time.Millisecond)
					if random.IntN(100) < late {
						at = at.Add(time.Duration(random.IntN(150)) * time.Millisecond)
					}
					air = append(air, flying{1 - from, at, g})
				}
			}
		}
		const count = 2000
		sent := 0
		for steps := 0; ; steps++ {
			if steps > 200_000 {
				t.Fatalf("seed %d: it does not end: %+v", seed, ends[0].Stats())
			}
			if sent < count && random.IntN(3) == 0 {
				ends[0].Send(now, number(uint32(sent)))
				if random.IntN(2) == 0 {
					ends[1].Send(now, number(uint32(sent)))
				}
				sent++
				collect(0)
				collect(1)
			}
			next := -1
			for i := range air {
				if next < 0 || air[i].at.Before(air[next].at) {
					next = i
				}
			}
			deadline := earliest(ends[0].Deadline(), ends[1].Deadline())
			if next < 0 && deadline.IsZero() && sent == count {
				break
			}
			if next >= 0 && (deadline.IsZero() || !air[next].at.After(deadline)) {
				f := air[next]
				air = append(air[:next], air[next+1:]...)
				now = f.at
				ends[f.to].Receive(now, f.g)
			} else if !deadline.IsZero() {
				now = deadline
			} else {
				now = now.Add(time.Millisecond)
			}
			for i := range ends {
				ends[i].Tick(now)
				collect(i)
			}
			most = max(most, ends[0].next-ends[0].acked)
		}
		for i := range got {
			for j := 1; j < len(got[i]); j++ {
				if got[i][j] <= got[i][j-1] {
					t.Fatalf("seed %d: %d came after %d", seed, got[i][j], got[i][j-1])
				}
			}
		}
		if want := count * (100 - loss) / 100 * 6 / 10; len(got[1]) < want {
			t.Errorf("seed %d (loss %d, late %d): %d of %d arrived, %+v", seed, loss, late, len(got[1]), count, ends[1].Stats())
		}
		if s := ends[0].Stats(); s.Sent != count || s.Foreign != 0 || s.Overflow != 0 || most > uint32(ends[0].cfg.SendWindow) {
			t.Errorf("seed %d: %+v, %d in the window at once", seed, s, most)
		}
		if s := ends[1].Stats(); loss == 0 && late == 0 && (s.Lost != 0 || s.Reordered != 0) {
			t.Errorf("seed %d: %+v on a good link", seed, s)
		}
	}
}

func TestFlowOrder(t *testing.T) {
	f := NewFlow(FlowConfig{ReceiveWindow: 4})
	give := func(n uint32) string {
		f.Receive(epoch, wire.GRE{HasSeq: true, Sequence: n, Payload: number(n)})
		_, payloads := f.Take()
		s := ""
		for _, p := range payloads {
			s += string(rune('0' + p[3]))
		}
		return s
	}
	for i, c := range []struct {
		n    uint32
		want string
	}{{0, "0"}, {2, ""}, {2, ""}, {1, "12"}, {1, ""}, {4, ""}, {5, ""}, {6, ""}, {7, "4567"}, {3, ""}, {8, "8"}} {
		if got := give(c.n); got != c.want {
			t.Errorf("step %d: packet %d releases %q instead of %q", i, c.n, got, c.want)
		}
	}
	if s := f.Stats(); s.Lost != 1 || s.Late != 3 {
		t.Errorf("%+v", s)
	}
}

// The receiver's acknowledgements, and a sender whose window is full.
func TestFlowAcknowledges(t *testing.T) {
	a, b := NewFlow(FlowConfig{SendWindow: 4}), NewFlow(FlowConfig{})
	for i := range uint32(5) {
		a.Send(epoch, number(i))
	}
	packets, _ := a.Take()
	if len(packets) != 2 { // the window begins at half
		t.Fatalf("%d packets at once", len(packets))
	}
	for _, g := range packets {
		b.Receive(epoch, g)
	}
	if d := b.Deadline(); !d.Equal(epoch.Add(20 * time.Millisecond)) {
		t.Errorf("the acknowledgement is due at %v", d.Sub(epoch))
	}
	b.Tick(b.Deadline())
	acks, payloads := b.Take()
	if len(acks) != 1 || !acks[0].HasAck || acks[0].Ack != 1 || acks[0].HasSeq || len(payloads) != 2 {
		t.Fatalf("%v", acks)
	}
	a.Receive(epoch.Add(30*time.Millisecond), acks[0])
	if packets, _ = a.Take(); len(packets) != 3 { // it has grown
		t.Errorf("%d packets after the acknowledgement", len(packets))
	}
	a.Tick(a.Deadline()) // nobody acknowledges these
	a.Receive(epoch, wire.GRE{HasAck: true, Ack: 99})
	if s := a.Stats(); s.Timeouts != 1 || s.Foreign != 1 || s.Acks != 2 {
		t.Errorf("%+v", s)
	}
	if a.window != 1 {
		t.Errorf("window %d after a time-out", a.window)
	}
}
