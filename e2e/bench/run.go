package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"pptp-alg/e2e/lab"
)

// Config of Run.
type Config struct {
	Program string    // path of pptp-alg
	Version string    // of the program, as it says itself
	Results string    // directory for the JSON files
	Only    string    // one part: data, fast, control, scale, size; empty: all
	Plan    Plan      // Full or Once
	Out     io.Writer // says what is being done
}

// Plan is how much is measured.
type Plan struct {
	Calls   []int         // stages of the data plane
	Helper  int           // the last stage that the kernel's helper takes part in
	Rounds  int           // of the data plane
	Turn    time.Duration // how long one competitor sends at a time
	Payload int           // bytes in a packet; a small one shows what a packet costs
	Large   int           // bytes in a packet for throughput and latency
	Details []int         // stages with latency and throughput
	Packets int           // single packets in a round of the latency
	Fast    []int         // stages of the fast path
	Watched []int         // and those of them with a firewall at the bridge's port

	ControlRounds int
	Alone, Crowd  int // calls in a round: one after the other; with all clients
	Echoes        int // in a round

	Scale     []int         // calls at once
	Rest      time.Duration // until the daemon is at rest and has given memory back
	IdleCalls int
	Idle      time.Duration

	Starts int // of a daemon
	Builds int // how many architectures
}

// Full is the whole measurement, some twenty minutes on a quiet machine.
func Full() Plan {
	return Plan{
		Calls: []int{1, 10, 100, 1_000, 4_000, 10_000, 50_000}, Helper: 10_000, Rounds: 15, Turn: 100 * time.Millisecond, Payload: 100, Large: 1400,
		Details: []int{1, 10_000}, Packets: 2_000, Fast: []int{1, 4_000, 50_000}, Watched: []int{1, 4_000},
		ControlRounds: 7, Alone: 300, Crowd: 1_280, Echoes: 2_000,
		Scale: []int{10_000, 50_000}, Rest: 75 * time.Second, IdleCalls: 10_000, Idle: 2 * time.Minute,
		Starts: 11, Builds: len(architectures),
	}
}

// Once runs everything with small numbers, to see that it works.
func Once() Plan {
	return Plan{
		Calls: []int{1, 100}, Helper: 100, Rounds: 1, Turn: 10 * time.Millisecond, Payload: 100, Large: 1400, Details: []int{1}, Packets: 100, Fast: []int{1, 100}, Watched: []int{1},
		ControlRounds: 1, Alone: 10, Crowd: 128, Echoes: 20,
		Scale: []int{200}, IdleCalls: 100, Idle: 200 * time.Millisecond,
		Starts: 1, Builds: 1,
	}
}

func (p Plan) detailed(calls int) bool {
	for _, d := range p.Details {
		if d == calls {
			return true
		}
	}
	return false
}

// run is one run of the measurements.
type run struct {
	Config
	plan  Plan
	began time.Time
}

// Parts are the names for Config.Only, in the order in which they are measured.
var Parts = []string{"data", "fast", "control", "scale", "size"}

// Run measures and writes the results.
func Run(ctx context.Context, c Config) error {
	if err := lab.Check(ctx); err != nil {
		return err
	}
	r := &run{Config: c, plan: c.Plan, began: time.Now()}
	measure := map[string]func() (any, error){
		"data":    func() (any, error) { return r.dataPlane(ctx) },
		"fast":    func() (any, error) { return r.fastPath(ctx) },
		"control": func() (any, error) { return r.controlPlane(ctx) },
		"scale":   func() (any, error) { return r.scale(ctx) },
		"size":    func() (any, error) { return r.size(ctx) },
	}
	if c.Only != "" && measure[c.Only] == nil {
		return fmt.Errorf("there is no part %q; there are %v", c.Only, Parts)
	}
	for _, name := range Parts {
		if c.Only != "" && c.Only != name {
			continue
		}
		r.say("--- %s", name)
		part, err := measure[name]()
		if err == nil {
			err = save(c.Results, name+".json", part)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("measure %s: %w", name, err), ctx.Err())
		}
	}
	return nil
}

// say writes a line, with the time since the beginning.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.Out, "%4.0fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

func (r *run) machine() Machine { return thisMachine(r.Version, r.plan.Rounds) }

func (r *run) options() options { return options{program: r.Program, config: limitsOff} }
