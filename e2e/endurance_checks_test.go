package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

type fault struct {
	name    string
	do      func(w *world) error
	entries bool // it takes conntrack entries, and leaves the rules
}

// soakFaults are what is done to the router. The first ones end the daemon.
var soakFaults = []fault{
	{"SIGKILL and start", func(w *world) error { err := w.daemon.Kill(); w.again(enduranceConfig); return err }, false},
	{"SIGTERM and start", func(w *world) error { err := w.daemon.Stop(w.ctx); w.again(enduranceConfig); return err }, false},
	{"conntrack -F", func(w *world) error { return w.Router.FlushConntrack() }, true},
	{"half of the calls' entries", func(w *world) error { return w.takeEntries(2) }, true},
	{"some entries of control connections", func(w *world) error { return w.takeConnections(3) }, true},
	{"nft flush ruleset", func(w *world) error {
		return errors.Join(w.Router.FlushRuleset(), w.Router.Firewall(strict()...))
	}, false},
	{"our table deleted", func(w *world) error { return w.Router.DeleteTable(table) }, false},
	{"our rules deleted", func(w *world) error { return w.Router.FlushChain(table, "prerouting") }, false},
	{"guard emptied", func(w *world) error { return w.Router.FlushSet(table, guardSet) }, false},
	{"SIGHUP", func(w *world) error { return w.daemon.Signal(syscall.SIGHUP) }, false},
}

// ends is how many faults end the daemon.
const ends = 2

// takeEntries and takeConnections remove one of n conntrack entries.
func (w *world) takeEntries(n int) error     { return w.take(47, n) }
func (w *world) takeConnections(n int) error { return w.take(tcp, n) }

func (w *world) take(protocol uint8, n int) error {
	flows, err := w.Router.Conntrack()
	i := 0
	for _, f := range flows {
		if f.Protocol != protocol {
			continue
		}
		if i++; i%n == 0 {
			if e := w.Router.DeleteFlow(f); !errors.Is(e, os.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	}
	return err
}

// rulesWhole wants the rules to be there that keep what is said in a gap, and to know the calls that stay. Who takes the rules
// away again and again finds them back later and later, and without them a server that speaks in the gap is reset.
func (k *soak) rulesWhole() error {
	text, err := k.Router.RulesetText(k.ctx)
	if err == nil && !strings.Contains(text, "jump strays") {
		err = errors.New("they are not there")
	}
	if err != nil {
		return err
	}
	elements, err := k.Router.Elements(table, connectionsSet)
	if want := 2 * len(k.sessions()); err == nil && len(elements) < want {
		err = fmt.Errorf("%d elements of connections instead of %d or more", len(elements), want)
	}
	return err
}

// sessions are the control connections of the calls that stay, at their clients.
func (k *soak) sessions() map[*peer.Session]bool {
	all := map[*peer.Session]bool{}
	for _, l := range k.legs {
		all[l.client.Session()] = true
	}
	return all
}

// speakAtOnce has both ends of every connection that stays say something, all at the same time.
func (k *soak) speakAtOnce() {
	k.Helper()
	var wg sync.WaitGroup
	for _, l := range k.legs {
		for _, s := range []*peer.Session{l.server.Session(), l.client.Session()} {
			wg.Go(func() { k.check(s.Ping(k.ctx)) })
		}
	}
	wg.Wait()
}

// allWell wants the calls that stay to carry GRE and their connections to carry messages. It returns how many
// packets it sent.
func (k *soak) allWell(after string) (asked int) {
	k.Helper()
	for i, l := range k.legs {
		k.eventually(fmt.Sprintf("call %d should carry GRE after: %s", i, after), func() error {
			asked += 2
			return errors.Join(l.client.EchoWithin(k.ctx, time.Second, 1, 100), l.server.EchoWithin(k.ctx, time.Second, 1, 100))
		})
		k.check(l.client.SetLinkInfo(), l.server.Session().Ping(k.ctx), l.client.Session().Ping(k.ctx))
		if k.Failed() {
			k.Fatalf("call %d, after: %s", i, after)
		}
	}
	return asked
}

// settle waits until so many calls are up. The kernel may take a minute to find out that an entry has expired.
func (w *world) settle(calls int) {
	w.Helper()
	for end := time.Now().Add(10 * patience); time.Now().Before(end); time.Sleep(time.Second) {
		if s, err := w.daemon.Status(w.ctx); err == nil && len(s.Up()) == calls {
			break
		}
	}
	w.status(calls)
}

// nothingLeft wants everything of calls gone, from the kernel and from the daemon.
func (k *soak) nothingLeft() {
	k.Helper()
	k.eventually("nothing should be left of calls", func() error {
		gre, err := k.Router.GRE()
		if err != nil {
			return err
		}
		for _, f := range gre {
			if f.Ours() {
				return fmt.Errorf("%d entries, one of them %v", len(gre), f)
			}
		}
		elements, err := k.Router.Elements(table, guardSet)
		if err != nil || len(elements) > 0 {
			return fmt.Errorf("%d elements of the guard, %w", len(elements), err)
		}
		if s := k.daemonStatus(); len(s.Calls) > 0 {
			return fmt.Errorf("%d calls are listed", len(s.Calls))
		}
		return nil
	})
}

// comeBack wants Call IDs that were told to be free: a call whose client chooses one
// is told as that. One that a server sends GRE for without being asked is not.
func (k *soak) comeBack(client *peer.Node) {
	k.Helper()
	ids := []uint16{1, 2}
	for id := range k.told {
		if len(ids) < 40 && id != 0 {
			ids = append(ids, id)
		}
	}
	k.clearKernels()
	time.Sleep(1500 * time.Millisecond) // quickConfig's rest
	for _, server := range k.servers {
		s := k.dial(client, server)
		for _, id := range ids {
			k.wanted.Store(uint32(id))
			l := k.up(k.call(s), server)
			if got := l.server.PeerID(); got != id {
				k.Errorf("Call ID %d is told as %d: who has it?", id, got)
			}
			k.check(l.client.HangUp(k.ctx), l.server.WaitEnd(k.ctx))
		}
		k.check(s.Stop(k.ctx))
	}
	k.wanted.Store(0)
}

// clearKernels removes the kernel's own entries of GRE that came while no daemon and no rules were there: of a server's
// to this router, which nobody translated, or of a client's. They are not translated, and end half a minute later.
func (w *world) clearKernels() {
	w.Helper()
	gre, err := w.Router.GRE()
	w.must(err)
	for _, f := range gre {
		if f.Ours() {
			continue
		}
		if f.Reply != (lab.Tuple{Src: f.Original.Dst, Dst: f.Original.Src, SrcPort: f.Original.DstPort, DstPort: f.Original.SrcPort}) {
			w.Errorf("an entry that nobody should have made: %v", f)
		}
		if err := w.Router.DeleteFlow(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.Error(err)
		}
	}
}

// measurement is what the last daemon has, from its start to its end.
type measurement struct {
	*soak
	files, threads int
	memory         []sample
	since          time.Time
	dialled        int
	stop, stopped  chan struct{}
}

type sample struct {
	after time.Duration
	kB    int
}

// process counts what the daemon has: file descriptors, threads, and kB of memory.
func (w *world) process() (files, threads, memory int, err error) {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.daemon.PID()))
	if err != nil {
		return 0, 0, 0, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.PID()))
	for line := range strings.Lines(string(b)) {
		_, _ = fmt.Sscanf(line, "Threads: %d", &threads)
		_, _ = fmt.Sscanf(line, "VmRSS: %d", &memory)
	}
	return len(list), threads, memory, err
}

// measure begins to measure the daemon that has just been started.
func (k *soak) measure() *measurement {
	k.Helper()
	m := &measurement{soak: k, since: time.Now(), stop: make(chan struct{}), stopped: make(chan struct{})}
	var err error
	m.files, m.threads, _, err = k.process()
	k.must(err)
	k.mu.Lock()
	m.dialled = k.dialled
	k.mu.Unlock()
	go func() {
		defer close(m.stopped)
		for {
			select {
			case <-m.stop:
				return
			case <-time.After(time.Second):
			}
			if _, _, kB, err := k.process(); err == nil {
				m.memory = append(m.memory, sample{time.Since(m.since), kB})
			}
		}
	}()
	return m
}

// Closed connections are remembered for 30 s, and connections whose end was not seen for two minutes: so it takes as
// long until memory no longer grows with calls that come and go.
const soakSettles = 2*time.Minute + 30*time.Second

// most is the most memory in a part of the time.
func (m *measurement) most(from, to time.Duration) (kB int) {
	for _, s := range m.memory {
		if s.after >= from && s.after < to {
			kB = max(kB, s.kB)
		}
	}
	return kB
}

// grown wants nothing to have grown.
func (m *measurement) grown(long time.Duration) {
	m.Helper()
	close(m.stop)
	<-m.stopped
	total := time.Since(m.since)
	files, threads, memory, err := m.process()
	m.must(err)
	m.eventually("file descriptors should not grow", func() error {
		if files, _, _, err = m.process(); err == nil && files > m.files {
			err = fmt.Errorf("%d after the start, %d now", m.files, files)
		}
		return err
	})
	if threads > m.threads+4 {
		m.Errorf("%d threads after the start, %d in the end", m.threads, threads)
	}
	m.Logf("the last daemon, after its start and in the end: %d and %d file descriptors, %d and %d threads; memory %d kB in the end",
		m.files, files, m.threads, threads, memory)
	// What docs/reliability.md says that connections take, though most of these have been forgotten.
	m.mu.Lock()
	bound := 24<<10 + (m.soak.dialled-m.dialled)*2*(10+5)
	m.mu.Unlock()
	if n := m.most(0, total); n > bound {
		m.Errorf("%d kB of memory, with %d connections dialled: more than %d", n, m.soak.dialled-m.dialled, bound)
	}
	journal, err := os.Stat(m.stateFile())
	m.must(err)
	m.Logf("the journal has %d bytes", journal.Size())
	if journal.Size() > 8<<20 {
		m.Errorf("the journal has %d bytes, and there are no calls", journal.Size())
	}
	if total < 4*soakSettles {
		return
	}
	middle := soakSettles + (total-soakSettles)/2
	early, late := m.most(soakSettles, middle), m.most(middle, total)
	m.Logf("memory when it had settled: at most %d kB in the first half of the time, %d kB in the second", early, late)
	if late > early+early/4 {
		m.Errorf("memory grows: at most %d kB in the first half of the time, %d kB in the second", early, late)
	}
	// A minute after the last segment what is free goes back to the system.
	least := slices.MinFunc(m.memory, func(a, b sample) int { return a.kB - b.kB }).kB
	end := time.Now().Add(4 * time.Minute)
	for {
		if _, _, memory, err = m.process(); err != nil || memory <= least+4<<10 || time.Now().After(end) {
			break
		}
		time.Sleep(time.Second)
	}
	m.Logf("memory without calls: %d kB; it was %d kB at least", memory, least)
	if memory > least+4<<10 {
		m.Errorf("%d kB of memory are left when there is nothing, %d kB were in use at least", memory, least)
	}
}
