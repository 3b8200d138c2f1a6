package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"pptp-alg/e2e/peer"
)

// controlKinds take part in the control plane. Without anything that knows PPTP,
// calls are set up as well: that they carry nothing does not show there.
var controlKinds = []Kind{Masq, Helper, ALG}

// Names of messages in Control.
const (
	messageEcho = "Echo-Request and its reply"
	messageCall = "Outgoing-Call-Request and its reply"
)

// controlPlane measures how fast calls are set up, and how long a message takes.
// Every round has labs of its own, as nothing of an earlier one may be in the way.
func (r *run) controlPlane(ctx context.Context) (*Control, error) {
	c := &Control{Machine: r.machine()}
	type figures struct {
		alone, crowd *Setup
		echo, call   *Percentile
	}
	all := map[Kind]*figures{}
	var kinds []Kind
	for _, k := range controlKinds {
		all[k] = &figures{
			alone: &Setup{Kind: k, Clients: 1, Calls: r.plan.Alone}, crowd: &Setup{Kind: k, Clients: clientCount, Calls: r.plan.Crowd},
			echo: &Percentile{What: messageEcho, Kind: k, Count: r.plan.Echoes}, call: &Percentile{What: messageCall, Kind: k, Count: r.plan.Alone},
		}
		kinds = append(kinds, k)
	}
	for round := range r.plan.ControlRounds + 1 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, k := range kinds {
			f := all[k]
			if round == 0 { // to warm up
				f = &figures{&Setup{Calls: f.alone.Calls}, &Setup{Calls: f.crowd.Calls}, &Percentile{Count: f.echo.Count}, &Percentile{}}
			}
			err := r.controlRound(ctx, k, f.alone, f.crowd, f.echo, f.call)
			if errors.Is(err, errNoHelper) {
				r.say("%v: not compared with", err)
				delete(all, k)
				continue
			}
			if err != nil {
				return nil, err
			}
		}
	}
	for _, k := range kinds {
		f := all[k]
		if f == nil {
			continue
		}
		for _, s := range []*Setup{f.alone, f.crowd} {
			r.say("%-18s %2d clients at once: %6.0f calls a second ±%.0f %%, %.0f us of CPU for one, the daemon's part %.0f us", k.Name(),
				s.Clients, s.Rate.Median(), 100*s.Rate.Spread(), s.All.Median(), s.Daemon.Median())
			c.Setup = append(c.Setup, *s)
		}
		for _, p := range []*Percentile{f.echo, f.call} {
			r.say("%-18s %s: %.0f us, 99 of 100 less than %.0f us", k.Name(), p.What, p.Median.Median(), p.P99.Median())
			c.Messages = append(c.Messages, *p)
		}
	}
	return c, nil
}

// controlRound measures one competitor once.
func (r *run) controlRound(ctx context.Context, k Kind, alone, crowd *Setup, echo, call *Percentile) (err error) {
	w, err := newWorld(ctx, k, r.options())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	to := netip.AddrPortFrom(wanServer, peer.Port)

	session, err := w.clients[0].Dial(ctx, to)
	if err != nil {
		return err
	}
	var times []time.Duration
	for range echo.Count {
		began := time.Now()
		if err := session.Ping(ctx); err != nil {
			return err
		}
		times = append(times, time.Since(began))
	}
	echo.add(times)

	times = nil
	err = w.timed(alone, func() error {
		for range alone.Calls {
			s, err := w.clients[0].Dial(ctx, to)
			if err != nil {
				return err
			}
			began := time.Now()
			if _, err := s.OutgoingCall(ctx); err != nil {
				return err
			}
			times = append(times, time.Since(began))
		}
		return nil
	})
	if err != nil {
		return err
	}
	call.add(times)
	return w.timed(crowd, func() error { return w.place(ctx, crowd.Calls, 1, manner{}) })
}

func (p *Percentile) add(times []time.Duration) {
	us := microseconds(times)
	p.Median.Rounds = append(p.Median.Rounds, quantile(us, 0.5))
	p.P99.Rounds = append(p.P99.Rounds, quantile(us, 0.99))
}

// timed has calls set up and notes how long it took.
func (w *world) timed(s *Setup, setUp func() error) error {
	before, err := w.daemonUse()
	if err != nil {
		return err
	}
	own, err := use(os.Getpid())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := setUp(); err != nil {
		return fmt.Errorf("%s: %w", w.kind.Name(), err)
	}
	s.Rate.Rounds = append(s.Rate.Rounds, float64(s.Calls)/time.Since(began).Seconds())
	after, err := w.daemonUse()
	if err != nil {
		return err
	}
	ownAfter, err := use(os.Getpid())
	if err != nil {
		return err
	}
	daemon := after.cpu - before.cpu
	for sample, cpu := range map[*Sample]time.Duration{&s.Daemon: daemon, &s.All: daemon + ownAfter.cpu - own.cpu} {
		sample.Rounds = append(sample.Rounds, float64(cpu)/float64(time.Microsecond)/float64(s.Calls))
	}
	return nil
}

// daemonUse is what the lab's daemon has used; nothing where there is none.
func (w *world) daemonUse() (usage, error) {
	if w.daemon == nil {
		return usage{}, nil
	}
	return use(w.daemon.PID())
}
