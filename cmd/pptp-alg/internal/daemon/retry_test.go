package daemon

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// What could not be guarded is tried again by itself: no packet, no news and no question comes that the loop would have turned for.
func TestGuardTriedAgain(t *testing.T) {
	inKernel(t, func(half *daemon) {
		// A whole one in the place of the half, in the same namespace.
		if err := half.plane.rules.Remove(); err != nil {
			t.Error(err)
			return
		}
		d := &daemon{
			log: slog.New(slog.DiscardHandler), config: half.config, ports: half.config.Ports, started: time.Now(),
			volumes: map[string]*volume{}, dropped: map[*alg.Connection]farewell{}, unheard: map[*alg.Connection]heard{},
			requests: make(chan func()), removals: make(chan removals, 16),
		}
		d.config.State = ""
		closers, err := d.start()
		defer func() {
			for i := len(closers) - 1; i >= 0; i-- {
				_ = closers[i]()
			}
		}()
		if err != nil {
			t.Error(err)
			return
		}
		looks, err := rules.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer looks.Close()
		broken, err := rules.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		_ = broken.Close()
		works := d.plane.rules
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		go func() {
			defer stop()
			d.requests <- func() {
				if c := connected(t, d); c != nil && c.Request(time.Now(), nat.Client, nat.Outgoing, 5, nil).Refused {
					t.Error("the call was refused")
				}
				d.plane.rules = broken
			}
			d.requests <- func() {
				if d.plane.errors == 0 || len(d.plane.unguarded) != 1 {
					t.Errorf("%d errors, %d calls to be guarded", d.plane.errors, len(d.plane.unguarded))
				}
				d.plane.rules = works
			}
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				list, err := looks.Calls()
				if err != nil || time.Now().After(deadline) {
					t.Errorf("never guarded: %v", err)
				}
				if err != nil || len(list) == 1 || t.Failed() {
					return
				}
			}
		}()
		if err := d.loop(ctx, nil); err != nil {
			t.Error(err)
		}
	})
}
