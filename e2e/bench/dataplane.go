package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// competitor is a lab in a stage, with generators for both directions.
type competitor struct {
	*world
	calls      int
	generators map[Direction]*generator
	flowing    []flow
}

// stageKinds says who takes part at a number of calls. One call of pptp-alg is
// measured in every stage: what many calls cost is then a ratio within a round.
func stageKinds(calls int) []entrant {
	all := []entrant{{Plain, calls, routed}, {Helper, calls, routed}, {ALG, calls, routed}}
	if calls == 1 {
		return append(all, entrant{Masq, 1, routed}, entrant{Entries, 1, routed})
	}
	return append(all, entrant{ALG, 1, routed})
}

type entrant struct {
	kind   Kind
	calls  int
	inside inside
}

// dataPlane measures all stages.
func (r *run) dataPlane(ctx context.Context) (*Data, error) {
	d := &Data{Machine: r.machine(), Payload: r.plan.Payload, Large: r.plan.Large}
	for _, calls := range r.plan.Calls {
		if err := r.stage(ctx, d, calls, stageKinds(calls), r.plan.detailed(calls)); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// stage measures all competitors with a number of calls, in turn.
func (r *run) stage(ctx context.Context, d *Data, calls int, entrants []entrant, detailed bool) (err error) {
	var all []*competitor
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.close())
		}
	}()
	for _, e := range entrants {
		if e.kind == Helper && calls > r.plan.Helper {
			continue
		}
		c, err := r.compete(ctx, e)
		if errors.Is(err, errNoHelper) {
			r.say("%v: not compared with", err)
			continue
		}
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	if err := r.rates(ctx, all, calls, d.Payload, &d.Rates); err != nil {
		return err
	}
	if !detailed {
		return nil
	}
	if err := r.latency(all, calls, &d.Latency); err != nil {
		return err
	}
	return r.rates(ctx, all, calls, d.Large, &d.Throughput)
}

// compete makes a competitor and its calls, and sees that every one of them
// arrives as it should.
func (r *run) compete(ctx context.Context, e entrant) (c *competitor, err error) {
	began := time.Now()
	o := r.options()
	o.inside = e.inside
	w, err := newWorld(ctx, e.kind, o)
	if err != nil {
		return nil, err
	}
	c = &competitor{world: w, calls: e.calls}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if e.kind == Helper || e.kind.ours() {
		if err := w.place(ctx, e.calls, 1, manner{echo: true, vanish: true}); err != nil {
			if e.kind.ours() {
				return c, err
			}
			r.say("%v", err)
		}
	}
	if e.kind == Entries {
		if err := w.bare(); err != nil {
			return c, err
		}
	}
	if c.flowing = w.flows(e.calls); len(c.flowing) == 0 {
		return c, fmt.Errorf("%s carries no call at all", e.kind.Name())
	}
	if err := w.drain(); err != nil {
		return c, err
	}
	for _, d := range directions {
		good, err := w.check(d, c.flowing)
		if err != nil && (e.kind != Helper || len(good) == 0) {
			return c, err
		}
		w.failures += len(c.flowing) - len(good)
		c.flowing = good
	}
	if e.kind == Fast {
		if err := w.quicken(ctx, c.flowing); err != nil {
			return c, err
		}
	}
	r.say("%s carries %d calls, ready after %v", e.kind.Name(), len(c.flowing), time.Since(began).Round(10*time.Millisecond))
	return c, nil
}

// load makes the generators anew, with another payload.
func (c *competitor) load(payload int) error {
	c.unload()
	c.generators = map[Direction]*generator{}
	for _, d := range directions {
		g, err := c.generator(d, c.flowing, payload)
		if err != nil {
			return err
		}
		c.generators[d] = g
	}
	return nil
}

func (c *competitor) unload() {
	for _, g := range c.generators {
		g.close()
	}
	c.generators = nil
}

func (c *competitor) close() error {
	c.unload()
	return c.world.close()
}

// rates has the competitors send in turn, both directions each.
func (r *run) rates(ctx context.Context, all []*competitor, calls, payload int, to *[]Rate) error {
	var rates []*Rate
	for _, c := range all {
		if err := c.load(payload); err != nil {
			return err
		}
		for _, d := range directions {
			rates = append(rates, &Rate{Kind: c.kind, Stage: calls, Calls: len(c.flowing), Failed: c.failures, Direction: d})
		}
	}
	for round := range r.plan.Rounds + 1 {
		if err := ctx.Err(); err != nil {
			return err
		}
		for i, rate := range rates {
			t, err := all[i/len(directions)].generators[rate.Direction].run(r.plan.Turn)
			if err != nil {
				return err
			}
			if round == 0 {
				continue // to warm up
			}
			rate.Sent, rate.Delivered = rate.Sent+t.Sent, rate.Delivered+t.Delivered
			rate.CPU.Rounds = append(rate.CPU.Rounds, float64(t.Delivered)/t.CPU.Seconds())
			rate.Wall.Rounds = append(rate.Wall.Rounds, float64(t.Delivered)/t.Wall.Seconds())
		}
	}
	for _, rate := range rates {
		r.say("%6d calls, %4d bytes, %-18s %-3s %8.0f packets a second of a core ±%.0f %% (%d of %d arrived)", rate.Stage, payload,
			rate.Kind.Name(), rate.Direction, rate.CPU.Median(), 100*rate.CPU.Spread(), rate.Delivered, rate.Sent)
		*to = append(*to, *rate)
	}
	return nil
}

// probe sends single packets and receives them at the other end.
type probe struct {
	out, in int // packet sockets
	route
}

func (w *world) probe(d Direction) (p *probe, err error) {
	p = &probe{route: w.route(d)}
	if p.out, err = packetSocket(p.from, p.device, 0); err != nil {
		return nil, err
	}
	// Everything: a socket for IPv4 alone would see nothing of what the sink drops.
	if p.in, err = packetSocket(p.to, p.sink, unix.ETH_P_ALL); err != nil {
		_ = unix.Close(p.out)
		return nil, err
	}
	return p, nil
}

func (p *probe) close() {
	_ = unix.Close(p.out)
	_ = unix.Close(p.in)
}

// patience is how long a packet may take that is carried within a system call.
const patience = 5 * time.Second

// pass sends a frame and waits for the next GRE packet at the other end. It says
// how long that took and what came.
func (p *probe) pass(frame, buffer []byte) (time.Duration, tuple, error) {
	began := time.Now()
	if _, err := unix.Write(p.out, frame); err != nil {
		return 0, tuple{}, fmt.Errorf("send a packet: %w", err)
	}
	for {
		n, _, err := unix.Recvfrom(p.in, buffer, unix.MSG_DONTWAIT)
		took := time.Since(began)
		if err == nil {
			if t, ok := parse(buffer[:n]); ok {
				return took, t, nil
			}
			continue
		}
		if took > patience {
			return 0, tuple{}, fmt.Errorf("no packet arrived at %s: %w", p.to.Name(), err)
		}
	}
}

// check sends a packet of every flow and compares what arrives. It returns the
// flows that are carried as they should, and what was wrong with the last other.
func (w *world) check(d Direction, flows []flow) (good []flow, wrong error) {
	p, err := w.probe(d)
	if err != nil {
		return nil, err
	}
	defer p.close()
	buffer := make([]byte, 2048)
	for i, f := range flows {
		_, got, err := p.pass(frame(p.src, p.dst, f.sent[d], 1, 100), buffer)
		switch {
		case err != nil:
			wrong = fmt.Errorf("%s, a packet %v: %w%s", w.kind.Name(), f.sent[d], err, w.ended(f))
		case got != f.arrives[d]:
			wrong = fmt.Errorf("%s: a packet %v arrived as %v instead of %v", w.kind.Name(), f.sent[d], got, f.arrives[d])
		default:
			good = append(good, f)
		}
		if i-len(good) > mostFailures {
			return good, wrong
		}
	}
	return good, wrong
}

// ended says what the daemon knows of the end of a flow's call.
func (w *world) ended(f flow) string {
	if w.daemon == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := w.daemon.Status(ctx)
	if err != nil {
		return fmt.Sprintf(" (%v)", err)
	}
	for _, c := range s.Ended {
		if c.Client.Address == f.sent[Out].src && c.Client.CallID == f.arrives[In].callID {
			return fmt.Sprintf(" (the call has ended: %s)", c.Reason)
		}
	}
	return fmt.Sprintf(" (%d calls are up)", len(s.Up()))
}

// latency measures single packets.
func (r *run) latency(all []*competitor, calls int, to *[]Percentile) error {
	var points []*Percentile
	for _, c := range all {
		for _, d := range directions {
			points = append(points, &Percentile{Kind: c.kind, Calls: len(c.flowing), Direction: d, Count: r.plan.Packets})
		}
	}
	buffer := make([]byte, 2048)
	for range r.plan.Rounds {
		for i, point := range points {
			c := all[i/len(directions)]
			p, err := c.probe(point.Direction)
			if err != nil {
				return err
			}
			g := c.generators[point.Direction]
			var times []time.Duration
			for n := range r.plan.Packets {
				took, _, err := p.pass(g.frames[n%len(g.frames)], buffer)
				if err != nil {
					p.close()
					return err
				}
				times = append(times, took)
			}
			p.close()
			us := microseconds(times)
			point.Median.Rounds = append(point.Median.Rounds, quantile(us, 0.5))
			point.P99.Rounds = append(point.P99.Rounds, quantile(us, 0.99))
		}
	}
	for _, point := range points {
		r.say("%6d calls, %-18s %-3s one packet takes %.2f us, 99 of 100 less than %.2f us", calls, point.Kind.Name(), point.Direction,
			point.Median.Median(), point.P99.Median())
		*to = append(*to, *point)
	}
	return nil
}
