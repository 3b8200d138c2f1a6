package daemon

import (
	"fmt"
	"slices"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/queue"
)

// ready tells the service manager that the daemon works.
func (d *daemon) ready() {
	d.tell(d.manager.Ready(fmt.Sprintf("Translating control connections on ports %v, queue %d", d.config.Ports, d.config.Queue)))
}

// tell notes that the service manager could not be told something.
func (d *daemon) tell(err error) {
	if err != nil {
		d.limited("cannot reach the service manager", "error", err)
	}
}

// pulse returns when to say that the daemon lives: never, where no watchdog
// wants to know.
func (d *daemon) pulse() (<-chan time.Time, func()) {
	every := d.manager.Pulse()
	if every <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(every)
	return t.C, t.Stop
}

// alive tells the watchdog that packets are handled: the owner, which calls
// this, gives the verdicts, and the kernel still has the queue. Where it has
// not, the watchdog's restart is what helps.
func (d *daemon) alive() {
	listeners, err := queue.Kernels()
	if err != nil || !slices.ContainsFunc(listeners, func(k queue.Kernel) bool { return k.Queue == d.config.Queue }) {
		d.limited("the kernel no longer has this daemon's queue", "queue", d.config.Queue, "error", err)
		return
	}
	d.tell(d.manager.Alive())
}
