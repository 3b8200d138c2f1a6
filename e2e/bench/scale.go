package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"pptp-alg/e2e/lab"
)

// perConnection is how many calls a control connection has where there are more
// calls than a process may have sockets.
const perConnection = 10

// scale measures many calls at once.
func (r *run) scale(ctx context.Context) (*Scale, error) {
	s := &Scale{Machine: r.machine()}
	for _, calls := range r.plan.Scale {
		p, err := r.point(ctx, calls)
		if err != nil {
			return nil, err
		}
		s.Points = append(s.Points, p)
	}
	var err error
	s.Idle, err = r.idle(ctx)
	return s, err
}

// seconds is how long something took.
func seconds(f func() error) (float64, error) {
	began := time.Now()
	err := f()
	return time.Since(began).Seconds(), err
}

// point sets up calls, looks at them, restarts the daemon under them and clears
// them.
func (r *run) point(ctx context.Context, calls int) (p Point, err error) {
	w, err := newWorld(ctx, ALG, r.options())
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	p = Point{Calls: calls, Connections: (calls + perConnection - 1) / perConnection}
	before, err := w.daemonUse()
	if err != nil {
		return p, err
	}
	if p.SetupSeconds, err = seconds(func() error { return w.place(ctx, calls, perConnection, manner{}) }); err != nil {
		return p, err
	}
	after, err := w.daemonUse()
	if err != nil {
		return p, err
	}
	p.Resident = after.resident
	time.Sleep(r.plan.Rest)
	if after, err = w.daemonUse(); err != nil {
		return p, err
	}
	p.AtRest, p.PerCall = after.resident, float64(after.anon-before.anon)/float64(calls)
	r.say("%6d calls on %d control connections after %.1f s; %.1f MB resident, at rest %.1f MB, %.0f bytes a call", calls, p.Connections,
		p.SetupSeconds, float64(p.Resident)/1e6, float64(p.AtRest)/1e6, p.PerCall)
	if err := r.status(ctx, w, &p); err != nil {
		return p, err
	}
	if err := r.restart(ctx, w, &p); err != nil {
		return p, err
	}
	if p.Adopted < calls {
		return p, nil // what is not known cannot be cleared; the targets will say so
	}
	limit, cancel := context.WithTimeout(ctx, clearLimit)
	defer cancel()
	took, err := seconds(func() error { return w.clear(limit) })
	if err != nil {
		r.say("%6d calls were not cleared: %v", calls, err)
		return p, ctx.Err()
	}
	p.ClearSeconds = took
	r.say("%6d calls cleared in %.1f s", calls, p.ClearSeconds)
	return p, nil
}

// clearLimit is how long the clearing of all calls may take, to count at all.
const clearLimit = 3 * time.Minute

// status asks for all calls. The daemon gives up an answer that takes ten seconds,
// which on a busy machine it may: then it is asked again.
func (r *run) status(ctx context.Context, w *world, p *Point) (err error) {
	for range 5 {
		if p.StatusSeconds, err = seconds(func() error { _, err := w.daemon.StatusText(ctx); return err }); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	var s *lab.Status
	for range 5 {
		if p.StatusJSONSeconds, err = seconds(func() (err error) { s, err = w.daemon.Status(ctx); return err }); err == nil {
			break
		}
	}
	if err == nil && len(s.Up()) != p.Calls {
		err = fmt.Errorf("status shows %d calls that are up instead of %d", len(s.Up()), p.Calls)
	}
	r.say("%6d calls: status takes %.2f s, as JSON %.2f s", p.Calls, p.StatusSeconds, p.StatusJSONSeconds)
	return err
}

// restart stops the daemon, starts another, and looks whether the calls have
// survived.
func (r *run) restart(ctx context.Context, w *world, p *Point) (err error) {
	if p.StopSeconds, err = seconds(func() error { return w.daemon.Stop(ctx) }); err != nil {
		return err
	}
	if p.RestartSeconds, err = seconds(func() error { return w.startAndWait(r.options()) }); err != nil {
		return err
	}
	u, err := w.daemonUse()
	if err != nil {
		return err
	}
	p.RestartCPU = u.cpu.Seconds()
	var s *lab.Status
	for range 5 {
		if s, err = w.daemon.Status(ctx); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	p.Adopted = len(s.Up())
	if err := w.drain(); err != nil {
		return err
	}
	carried := w.flows(p.Calls)
	for _, d := range directions {
		if carried, err = w.check(d, carried); err != nil {
			return err
		}
	}
	p.Carried = len(carried)
	r.say("%6d calls: stopped in %.2f s, ready again in %.2f s with %d of them, %d carry packets", p.Calls, p.StopSeconds, p.RestartSeconds,
		p.Adopted, p.Carried)
	return w.undrain()
}

// clear hangs up all calls, as many at once as there are clients, and waits until
// the daemon knows of none.
func (w *world) clear(ctx context.Context) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	work := make(chan pair)
	for range clientCount {
		wg.Go(func() {
			for p := range work {
				if err := p.client.HangUp(ctx); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	for _, p := range w.pairs {
		work <- p
	}
	close(work)
	wg.Wait()
	if failed != nil {
		return failed
	}
	w.pairs = nil
	_, err := w.daemon.WaitStatus(ctx, func(s *lab.Status) error {
		if len(s.Calls) > 0 {
			return fmt.Errorf("%d calls are still there", len(s.Calls))
		}
		return nil
	})
	return err
}

// settling is how long a daemon gets to come to rest: calls are looked at once more
// half a minute after they came up, and garbage is collected.
const settling = 40 * time.Second

// idle looks at a daemon whose calls are up while nothing happens.
func (r *run) idle(ctx context.Context) (i Idle, err error) {
	w, err := newWorld(ctx, ALG, r.options())
	if err != nil {
		return i, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	// They carry packets: the daemon looks again at calls that never do.
	if err := w.place(ctx, r.plan.IdleCalls, perConnection, manner{echo: true}); err != nil {
		return i, err
	}
	time.Sleep(min(settling, r.plan.Idle))
	before, err := w.daemonUse()
	if err != nil {
		return i, err
	}
	began := time.Now()
	time.Sleep(r.plan.Idle)
	after, err := w.daemonUse()
	if err != nil {
		return i, err
	}
	length := time.Since(began)
	s, err := w.daemon.Status(ctx)
	if err != nil {
		return i, err
	}
	i = Idle{Calls: r.plan.IdleCalls, Seconds: length.Seconds(), CPU: float64(after.cpu-before.cpu) / float64(length),
		WakeupsPerHour: float64(after.wakeups-before.wakeups) / length.Hours(), CallsStillThere: len(s.Up())}
	r.say("%6d calls and nothing to do: %.4f %% of a core, %.0f wake-ups an hour", i.Calls, 100*i.CPU, i.WakeupsPerHour)
	return i, nil
}
