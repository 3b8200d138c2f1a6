package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/control"
	"pptp-alg/cmd/pptp-alg/internal/evidence"
	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/cmd/pptp-alg/internal/notify"
	"pptp-alg/cmd/pptp-alg/internal/queue"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// Options of Run.
type Options struct {
	Config  config.Config
	Log     *slog.Logger
	Version string
	// Reload brings a new configuration, when the user asked for that.
	Reload <-chan config.Config
	// Manager is told how the daemon is; nil: nobody is.
	Manager *notify.Manager
}

// daemon is the owner's state. Only the owner touches it.
type daemon struct {
	log     *slog.Logger
	version string
	config  config.Config
	ports   []uint16
	started time.Time
	manager *notify.Manager

	alg      *alg.ALG
	table    *nat.Table
	plane    *plane
	queue    *queue.Queue
	events   *conntrack.Events
	ruleset  rules.Ruleset
	features rules.Features
	anchor   anchor
	keeper   keeper
	news     news.Bus
	evidence *evidence.Keeper // nil: nobody asked for it
	journal  *journal
	dropped  map[*alg.Connection]farewell // on request; see drop.go
	unheard  map[*alg.Connection]heard    // whose conntrack entries were put back; see unseen.go
	strays   strays
	fast     *fastPath // nil: off, or this kernel cannot
	cannot   string    // why there is no fast path, where it is wanted

	lostRecords atomic.Uint64 // of the call log
	counters    counters
	lull        lull
	again       nat.Deadline       // when calls are guarded that could not be
	overdone    atomic.Uint64      // segments dropped because their client had too many waiting
	tally       tally              // of what segments cost
	volumes     map[string]*volume // of messages about packets

	counting counting

	requests chan func()
	removals chan removals
}

// counters are the daemon's own; the parts have theirs.
type counters struct {
	lookups             uint64 // conntrack entries that did not come with the segment and were asked for
	untracked           uint64 // segments whose conntrack entry was not found
	failedCalls         uint64 // calls that ended without having been established, refused ones included
	refusedConnections  uint64 // segments of connections beyond the limits
	removedEntries      uint64 // GRE entries of ours that others removed
	reclaimed           uint64 // connections taken out of flow tables
	kernelHelped        uint64 // connections that have the kernel's own PPTP helper
	detached            uint64 // connections from which it was taken away
	removedConnections  uint64 // entries of control connections that went away
	restoredConnections uint64 // of these, put back
	eventsLost          uint64 // times that the event socket overflowed
	tableRestored       uint64 // times that our nftables table had to be put back
	callsTakenOver      uint64 // of the daemon before this one
	entriesRevived      uint64 // of these calls, entries that were gone
	entriesSwept        uint64 // entries that it had made for calls of which nobody was told
	recordsRefused      uint64 // records of its that were of no use
}

// Run is the daemon. It returns when ctx is done, or when it cannot go on.
func Run(ctx context.Context, o Options) (err error) {
	d := &daemon{
		log: o.Log, version: o.Version, config: o.Config.Clone(), ports: o.Config.Ports, started: time.Now(), manager: o.Manager,
		volumes: map[string]*volume{}, dropped: map[*alg.Connection]farewell{}, unheard: map[*alg.Connection]heard{},
		requests: make(chan func()), removals: make(chan removals, 16),
	}
	// The control socket comes first: it says whether a daemon runs already.
	server, err := control.Listen(control.Config{Path: o.Config.Socket, Log: o.Log})
	if err != nil {
		return err
	}
	defer server.Close()
	server.Stream("watch", d.tellEvents)
	server.Handle("status", func(ctx context.Context, _ json.RawMessage) (any, error) { return d.status(ctx) })
	server.Handle("drop", d.drop)

	closers, err := d.start()
	defer func() {
		for i := len(closers) - 1; i >= 0; i-- {
			if e := closers[i](); e != nil && err == nil {
				err = e
			}
		}
	}()
	if err != nil {
		return err
	}
	stopObserving, err := d.observe()
	if err != nil {
		return err
	}
	defer stopObserving()
	if err = d.dropPrivileges(); err != nil {
		return err
	}
	go server.Serve()
	d.log.Info("ready", "version", d.version, "queue", d.config.Queue, "ports", d.config.Ports, "socket", d.config.Socket,
		"control packets through", d.way(), "their conntrack entries", d.entries(), "anchor", d.anchor.String())
	d.report(news.Ready, "version %s", d.version)
	d.ready()
	err = d.loop(ctx, o.Reload)
	d.tell(d.manager.Stopping())
	d.stop(time.Now())
	d.news.Close()
	return err
}

// start brings up everything that touches the kernel, and returns what has to
// be undone, in order.
func (d *daemon) start() (closers []func() error, err error) {
	undo := func(f func() error) { closers = append(closers, f) }

	// Removals are reported only of entries made while somebody listened.
	if d.events, err = conntrack.Listen(d.ports); err != nil {
		return closers, err
	}
	undo(d.events.Close)
	ct, err := conntrack.Dial()
	if err != nil {
		return closers, err
	}
	undo(ct.Close)
	if err = d.events.Ignore(ct); err != nil {
		return closers, err
	}
	if err = ct.Probe(); err != nil {
		return closers, err
	}
	if d.counting.ct, err = conntrack.Dial(); err != nil {
		return closers, err
	}
	undo(d.counting.ct.Close)
	if on, e := conntrack.Accounting(); e == nil && !on {
		if e = conntrack.SetAccounting(true); e != nil {
			d.log.Warn("calls will have no packet counters: net.netfilter.nf_conntrack_acct is 0 and cannot be set", "error", e)
		} else {
			undo(func() error { return conntrack.SetAccounting(false) })
		}
	}
	kernel, err := rules.Dial()
	if err != nil {
		return closers, err
	}
	undo(kernel.Close)

	d.plane = &plane{
		ct: ct, rules: kernel, log: d.log, limited: d.limited,
		restore: d.restore,
		live: func(g conntrack.GRE, z conntrack.Zone) bool {
			m := d.mapping(g, z)
			return m != nil && m.Open()
		},
		away: d.isAway,
	}
	seed := [2]uint64{rand.Uint64(), rand.Uint64()}
	d.journal = newJournal(d.log)
	d.plane.journal = d.journal
	tc := tableConfig(d.config, d.callEvent)
	tc.Changed = d.journal.callChanged
	d.table = nat.NewTable(tc, d.plane, rand.New(rand.NewPCG(seed[0], seed[1])))
	d.alg = alg.New(alg.Config{Decide: d.settle, Notify: d.connectionEvent, Changed: d.connectionChanged}, d.table)
	d.journal.table, d.journal.alg, d.journal.ours = d.table, d.alg, d.keeper.ours

	if err = alone(kernel); err != nil {
		return closers, err
	}
	if err = d.openKeeper(undo); err != nil {
		return closers, err
	}
	// Until the queue is bound, control packets pass untranslated.
	if d.queue, err = queue.Open(queue.Config{Queue: d.config.Queue}); err != nil {
		return closers, err
	}
	undo(d.queue.Close)
	features, err := kernel.Features()
	if err != nil {
		return closers, err
	}
	if !features.Limit && d.config.SegmentsPerClient > 0 {
		d.log.Warn("limits.segments_per_client has no effect: this kernel has no nftables limits (CONFIG_NFT_LIMIT)")
	}
	d.features = features
	undo(d.unregister)
	d.chooseAnchor(d.config.Anchor)
	if d.ruleset, err = d.rulesFor(d.config); err != nil {
		return closers, err
	}
	// From here on the kernel keeps control packets for us: what is read now is not overtaken.
	defer grow()()
	last := d.readJournal()
	if err = last.restore(); err != nil {
		return closers, err
	}
	undo(func() error {
		d.journal.close(time.Now())
		return nil
	})
	if err = d.install(d.ruleset, d.elements()); err != nil {
		return closers, err
	}
	undo(func() error {
		if err := kernel.Remove(); err != nil {
			return fmt.Errorf("leave the table behind: %w", err)
		}
		return nil
	})
	if err = d.watchTables(kernel, undo); err != nil {
		return closers, err
	}
	d.reclaim()
	if err = last.mend(); err != nil {
		return closers, err
	}
	d.journal.begin(time.Now())
	return closers, d.openFastPath(undo)
}

// alone returns an error when another daemon lives in this network namespace,
// with a control socket and a queue of its own: its table would be replaced.
func alone(kernel *rules.Kernel) error {
	number, there, err := kernel.Queue()
	if err != nil || !there {
		return err
	}
	listeners, err := queue.Kernels()
	if err != nil {
		return err
	}
	for _, l := range listeners {
		if l.Queue == number {
			return fmt.Errorf("another pptp-alg is at work here: its table ip %s sends control packets to queue %d, "+
				"and somebody listens there; stop that one first", rules.TableName, number)
		}
	}
	return nil // left behind by one that was killed
}

// Remove takes away the table, the conntrack helper and the filters at devices that a daemon left behind
// when it was killed. It refuses while one is at work.
func Remove() error {
	kernel, err := rules.Dial()
	if err != nil {
		return err
	}
	defer kernel.Close()
	if err := alone(kernel); err != nil {
		return err
	}
	if err := kernel.Remove(); err != nil {
		return err
	}
	_, err = fastpath.Sweep()
	return errors.Join(err, removeHelper())
}

// way says how packets reach the daemon.
func (d *daemon) way() string {
	if d.ruleset.Config().Native {
		return "the nftables queue expression"
	}
	return "the xtables target NFQUEUE"
}

// entries says how the daemon learns of a control connection's NAT.
func (d *daemon) entries() string {
	if d.queue.HasConntrack() {
		return "come along"
	}
	return "are asked for"
}

// stop leaves the kernel with calls that are up and nothing else of ours. The
// table goes afterwards.
func (d *daemon) stop(now time.Time) {
	up := 0
	d.table.Calls(func(c *nat.Call) {
		if c.State == nat.Established || c.State == nat.Clearing {
			up++
		}
	})
	d.table.Settle(now)
	d.log.Info("stopped", "calls that stay up", up)
	d.report(news.Stopping, "%d calls stay up", up)
}

// tableConfig is the part of the configuration that the table of calls has.
func tableConfig(c config.Config, notify func(nat.Event)) nat.Config {
	return nat.Config{
		First: c.CallIDs.First, Last: c.CallIDs.Last,
		Limits: nat.Limits(c.Limits),
		Timeouts: nat.Timeouts{
			HalfOpen: c.Timeouts.HalfOpen, Clearing: c.Timeouts.Clearing,
			Grace: c.Timeouts.Grace, Rest: c.Timeouts.Rest, Renew: entryRenew,
		},
		Remember: c.Remember,
		Notify:   notify,
	}
}

// rulesConfig is the part of the configuration that the ruleset has.
func rulesConfig(c config.Config, has rules.Features) rules.Config {
	r := rules.Config{Queue: c.Queue, Ports: c.Ports, Guard: rules.Guard(c.Guard), Native: has.Queue}
	if has.Limit {
		r.Rate = c.SegmentsPerClient
	}
	return r
}

// rulesFor is the ruleset for a configuration in this kernel.
func (d *daemon) rulesFor(c config.Config) (rules.Ruleset, error) {
	r := rulesConfig(c, d.features)
	r.Anchor = d.anchor.helper
	return rules.New(r)
}

// errQueueClosed says that the kernel took the queue away.
var errQueueClosed = errors.New("the packet queue was closed")
