package ppp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// wire is a link between two ends in a time of its own. Its vices are chances
// in a hundred.
type wire struct {
	loss, copies, late int
	order              bool // frames never overtake each other
}

// flying is a frame on its way.
type flying struct {
	to    int
	at    time.Time
	frame []byte
}

type pair struct {
	testing.TB
	wire
	ends   [2]*Link
	got    [2][][]byte // datagrams
	phases [2][]Phase
	random *rand.Rand
	now    time.Time
	air    []flying
	latest [2]time.Time // arrival of the last frame towards an end
	tap    func(to int, frame []byte) []byte
}

var epoch = time.Unix(0, 0)

// randomReader makes a deterministic source for Config.Random.
type randomReader struct{ *rand.Rand }

func (r randomReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return len(b), nil
}

func newPair(t testing.TB, seed uint64, w wire, a, b Config) *pair {
	p := &pair{TB: t, wire: w, random: rand.New(rand.NewPCG(seed, 1)), now: epoch}
	for i, cfg := range []Config{a, b} {
		cfg.Random = randomReader{rand.New(rand.NewPCG(seed, uint64(2+i)))}
		p.ends[i] = New(cfg)
	}
	return p
}

func (p *pair) start() {
	for i := range p.ends {
		p.ends[i].Start(p.now)
		p.collect(i)
	}
}

func (p *pair) chance(percent int) bool { return percent > 0 && p.random.IntN(100) < percent }

// collect puts what an end said on the wire.
func (p *pair) collect(from int) {
	out := p.ends[from].Take()
	p.got[from] = append(p.got[from], out.Datagrams...)
	p.phases[from] = append(p.phases[from], out.Phases...)
	for _, f := range out.Frames {
		to := 1 - from
		if p.tap != nil {
			if f = p.tap(to, f); f == nil {
				continue
			}
		}
		if p.chance(p.loss) {
			continue
		}
		for again := true; again; again = p.chance(p.copies) {
			at := p.now.Add(10 * time.Millisecond)
			if p.chance(p.late) {
				at = at.Add(time.Duration(p.random.IntN(4000)) * time.Millisecond)
			}
			if p.order && at.Before(p.latest[to]) {
				at = p.latest[to]
			}
			p.latest[to] = at
			p.air = append(p.air, flying{to, at, bytes.Clone(f)})
		}
	}
}

// step lets the next thing happen; false: nothing is left to.
func (p *pair) step() bool {
	next := -1
	for i, f := range p.air {
		if next < 0 || f.at.Before(p.air[next].at) {
			next = i
		}
	}
	var at time.Time
	who := -1
	for i, l := range p.ends {
		if d := l.Deadline(); !d.IsZero() && (who < 0 || d.Before(at)) {
			at, who = d, i
		}
	}
	switch {
	case next < 0 && who < 0:
		return false
	case next >= 0 && (who < 0 || !p.air[next].at.After(at)):
		f := p.air[next]
		p.air = slices.Delete(p.air, next, next+1)
		p.now = f.at
		p.ends[f.to].Receive(p.now, f.frame)
		p.collect(f.to)
	default:
		if at.After(p.now) {
			p.now = at
		}
		p.ends[who].Tick(p.now)
		p.collect(who)
	}
	return true
}

// until lets things happen until the condition holds.
func (p *pair) until(what string, condition func() bool) {
	p.Helper()
	end := p.now.Add(10 * time.Minute)
	for steps := 0; !condition(); steps++ {
		if p.now.After(end) || steps > 100_000 || !p.step() {
			p.Fatalf("%s: never, at %v: %v", what, p.now.Sub(epoch), p)
		}
	}
}

// settle lets happen what is on its way, without waiting for timers.
func (p *pair) settle() {
	for len(p.air) > 0 {
		p.step()
	}
}

func (p *pair) String() string {
	s := ""
	for i, l := range p.ends {
		s += fmt.Sprintf("\n  end %d: %v, error %v, LCP %d CCP %d IPCP %d, %+v", i, l.Phase(), l.Err(), l.lcp.state, l.ccp.state, l.ipcp.state, l.Stats())
	}
	return s
}

func (p *pair) up() {
	p.Helper()
	p.until("both ends are up", func() bool { return p.ends[0].Phase() == Up && p.ends[1].Phase() == Up })
}

func (p *pair) dead() {
	p.Helper()
	p.until("both ends are dead", func() bool { return p.ends[0].Phase() == Dead && p.ends[1].Phase() == Dead })
}

// send sends a datagram from one end; the other should get it if nothing is lost.
func (p *pair) send(from int, b []byte) {
	p.Helper()
	if err := p.ends[from].Send(b); err != nil {
		p.Fatalf("end %d sends: %v", from, err)
	}
	p.collect(from)
}
