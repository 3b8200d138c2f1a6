package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/cmd/pptp-alg/internal/ways"
	"pptp-alg/nat"
)

// fastPath decides which calls' GRE the programs at the devices may carry. Nil: it is off, and nothing of it is there.
//
// A mapping is carried when GRE of its call has left the router by the ordinary path in both directions, so that the
// firewall lets it through, and when the kernel's route is the one that was taken. Whatever may change one or the
// other, in nftables, routes, devices, neighbours or addresses, closes all of it at once; after a pause a generation
// begins in which every call has to be seen again.
type fastPath struct {
	daemon *daemon
	path   *fastpath.Path
	ways   *ways.Ways
	seen   chan []fastpath.Sight

	lanes   map[*nat.Mapping]*lane
	leaving map[fastpath.Tuple]*lane // of those that are awaited

	generation uint32 // 0: closed
	last       uint32 // generation that was begun
	awaited    int    // lanes that are awaited and were not seen in this generation
	watching   bool
	blind      string                          // why it is not seen what leaves by some device
	trouble    string                          // why a generation could not begin
	links      map[int]ways.Link               // that can be used in this generation
	ports      []int                           // of bridges
	around     string                          // why calls would pass by something that is at the devices; empty: nothing is there
	arrivals   map[int]bool                    // links where carried packets are taken, ports not among them
	bridged    error                           // why calls would pass by something that is between a bridge and its ports
	stations   map[ways.Station]map[*lane]bool // whose packets are taken at a bridge's port in this generation, or could be
	movers     map[ways.Station]*mover         // that moved in this generation
	backlog    []*lane                         // of movers, that can be taken at ports again
	turn       time.Time                       // when those have theirs
	looking    bool                            // at what no news tell of: soon

	opened time.Time     // when the generation began
	pause  time.Duration // after which the next one does
	due    time.Time     // when it does
	again  nat.Deadline
	rest   nat.Deadline // when watching ends
	retry  nat.Deadline // when it is tried again
	second nat.Deadline // when there is a look at what no news tell of
	moves  nat.Deadline // when there is one at stations that moved
	over   string       // why there will be none

	counters fastCounters
}

// fastCounters count what the fast path did.
type fastCounters struct {
	entered uint64 // calls of which a direction came to be carried
	halts   uint64 // times that everything was closed
	errors  uint64 // requests that the kernel refused
}

// lane is what the fast path knows of a mapping that is open.
type lane struct {
	arrives, leaves fastpath.Tuple
	awaited         bool
	sight           fastpath.Sight // of its generation
	station         ways.Station   // who sends its packets to a bridge; zeros: that is not known
	put             bool           // something is in the path for it
	gone            bool           // the mapping is closed
	taken           entrance       // where it is carried
	passed          int            // the port by which it came first since it was seen; 0: that is not known
	carried         uint32         // the generation in which it is carried
	why             string         // it is not, when it was seen
}

const (
	firstHalt = 100 * time.Millisecond // pause after a change, doubled when the next one comes soon
	lastHalt  = 30 * time.Second       // at most this; and when watching is tried again that failed
	haltPeace = time.Minute            // without a change, it is the first again
	watchRest = time.Second            // for how long the watch at the egress stays when nothing is awaited

	sightsAtOnce = 64
)

// fastEntries is how many tuples the maps have room for, for so many calls at most: two each. Memory is taken for those
// that are awaited and, 96 to 192 bytes by all maps together, for all.
func fastEntries(calls int) int {
	const least, most = 1 << 10, 1 << 18
	if calls == 0 { // no limit
		return most
	}
	return min(max(2*calls, least), most)
}

// errNoFastPath is for programs without it.
var errNoFastPath = errors.New("fast_path is \"on\", but this program was built without it (build tag nofastpath): set it to \"off\" or use another build")

// openFastPath loads the programs, where they are wanted. A kernel that cannot is no reason not to start.
func (d *daemon) openFastPath(undo func(func() error)) error {
	switch n, err := fastpath.Sweep(); {
	case err != nil:
		d.log.Warn("what a daemon that was killed may have left at devices is still there: it does nothing", "error", err)
	case n > 0:
		d.log.Info("took away what a daemon that was killed had left at devices", "filters", n)
	}
	if d.config.FastPath != config.FastPathOn {
		return nil
	}
	if !fastpath.Built {
		return errNoFastPath
	}
	path, err := fastpath.Open(fastpath.Options{Entries: fastEntries(d.config.Limits.Calls)})
	if err != nil {
		d.cannot = err.Error()
		d.log.Warn("calls take the ordinary path: this kernel cannot do otherwise", "error", err)
		return nil
	}
	w, err := ways.Open()
	if err != nil {
		return errors.Join(err, path.Close())
	}
	w.Ours(path.Port())
	f := &fastPath{
		daemon: d, path: path, ways: w, seen: make(chan []fastpath.Sight),
		lanes: map[*nat.Mapping]*lane{}, leaving: map[fastpath.Tuple]*lane{},
	}
	undo(f.close)
	d.fast, d.plane.fast = f, f
	d.table.Mappings(func(m *nat.Mapping) {
		if m.Open() {
			f.open(m)
		}
	})
	f.begin(time.Now())
	return nil
}

// close gives every call back to the ordinary path, and what was carried to its counters.
func (f *fastPath) close() error {
	err := f.path.Halt()
	for m := range f.lanes {
		f.closed(m)
		f.daemon.journal.mappingChanged(m)
	}
	f.daemon.fast, f.daemon.plane.fast = nil, nil
	return errors.Join(err, f.path.Close(), f.ways.Close())
}

// watch hands over what the programs see, until they are closed.
func (f *fastPath) watch(ctx context.Context) {
	if f == nil {
		return
	}
	go func() {
		for {
			all, err := f.path.Sights()
			if err != nil {
				return
			}
			for some := range slices.Chunk(all, sightsAtOnce) {
				select {
				case f.seen <- some:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
}

// privileges are the capabilities that the fast path needs beyond CAP_NET_ADMIN: none on any recent kernel.
func (f *fastPath) privileges() []uintptr {
	if f == nil || !f.path.NeedsBPF() {
		return nil
	}
	return []uintptr{unix.CAP_BPF}
}

// sights is what the programs see.
func (f *fastPath) sights() <-chan []fastpath.Sight {
	if f == nil {
		return nil
	}
	return f.seen
}

// changes is news of routes and devices.
func (f *fastPath) changes() <-chan struct{} {
	if f == nil {
		return nil
	}
	return f.ways.Changes()
}

// moved is news of stations at bridges' ports.
func (f *fastPath) moved() <-chan struct{} {
	if f == nil {
		return nil
	}
	return f.ways.Moved()
}

// appeared is news of devices that can be used now.
func (f *fastPath) appeared() <-chan struct{} {
	if f == nil {
		return nil
	}
	return f.ways.Appeared()
}

func tupleOf(t nat.Tuple) fastpath.Tuple {
	return fastpath.Tuple{Src: t.Src, Dst: t.Dst, CallID: t.CallID}
}

// open takes up a mapping whose GRE flows by the ordinary path.
func (f *fastPath) open(m *nat.Mapping) {
	if f == nil {
		return
	}
	f.closed(m)
	l := &lane{arrives: tupleOf(m.Arrives()), leaves: tupleOf(m.Leaves())}
	f.lanes[m] = l
	switch {
	case m.Path.Zone.ID != 0:
		// Programs know tuples only, and every zone may have the same ones.
		l.why = fmt.Sprintf("its control connection is in conntrack zone %d", m.Path.Zone.ID)
		return
	case f.leaving[l.leaves] != nil:
		l.why = "another call leaves with the same addresses and Call ID"
		return
	}
	if err := f.path.Await(l.leaves); err != nil {
		f.failed(err)
		l.why = err.Error()
		return
	}
	l.awaited, f.leaving[l.leaves] = true, l
	f.awaited++
	f.look()
}

// closed forgets a mapping before its conntrack entry goes. What was carried of it is past.
func (f *fastPath) closed(m *nat.Mapping) {
	if f == nil || f.lanes[m] == nil {
		return
	}
	l := f.lanes[m]
	delete(f.lanes, m)
	l.gone = true
	f.forgetStation(l)
	if l.put {
		t, err := f.path.Take(l.arrives)
		if f.failed(err); err != nil { // its packets must not be carried any longer than its conntrack entry is there
			f.halt(time.Now(), "a call could not be taken from it")
		}
		m.Past.Packets += t.Packets
		m.Past.Bytes += t.Bytes
	}
	if !l.awaited {
		return
	}
	delete(f.leaving, l.leaves)
	f.failed(f.path.Forget(l.leaves))
	if !f.hasSeen(l) {
		f.awaited--
		f.look()
	}
}

func (f *fastPath) hasSeen(l *lane) bool {
	return f.generation != 0 && l.sight.Generation == f.generation
}

// carries reports whether the packets of a mapping need not take the ordinary path now.
func (f *fastPath) carries(l *lane) bool {
	return l != nil && f.generation != 0 && l.carried == f.generation
}

// takes is carries where they are taken anywhere at this moment: their sender has not just moved.
func (f *fastPath) takes(l *lane) bool { return f.carries(l) && l.taken != entrance{} }

// carriesTo is carries for what goes to one side of a call.
func (f *fastPath) carriesTo(c *nat.Call, side nat.Side) bool {
	m := c.Ends[side]
	return m != nil && f.takes(f.lanes[m])
}

// failed notes what the kernel refused.
func (f *fastPath) failed(err error) {
	if err != nil {
		f.counters.errors++
		f.daemon.limited("the fast path had a request refused", "error", err)
	}
}

// refused is failed, but for devices that are taken, which is no failure.
func (f *fastPath) refused(err error) {
	if !errors.Is(err, fastpath.ErrTaken) {
		f.failed(err)
	}
}

// look has the egress of devices watched while something is awaited.
func (f *fastPath) look() {
	switch {
	case f.generation == 0:
	case f.awaited > 0 && !f.watching:
		f.watching = true
		f.see()
	case f.awaited == 0 && f.watching:
		f.daemon.table.Schedule(&f.rest, time.Now().Add(watchRest), func(time.Time) {
			if f.awaited == 0 && f.watching {
				f.watching, f.blind = false, ""
				f.failed(f.path.Watch(nil))
			}
		})
	}
}

// see has the egress of all devices watched. Where that fails, calls that leave there stay on the ordinary path, and it
// is tried again.
func (f *fastPath) see() {
	err := f.path.Watch(slices.Collect(maps.Keys(f.links)))
	if f.blind = ""; err == nil {
		return
	}
	f.blind = "it is not seen what leaves by every device: " + err.Error()
	f.refused(err)
	f.daemon.table.Schedule(&f.retry, time.Now().Add(lastHalt), func(time.Time) {
		if f.generation != 0 && f.watching && f.blind != "" {
			f.see()
		}
	})
}

// begin begins a generation.
func (f *fastPath) begin(now time.Time) {
	d := f.daemon
	if f.over != "" {
		return
	}
	err := f.list()
	if err == nil {
		f.around, err = f.passedBy()
	}
	if err != nil {
		f.failed(err)
		f.trouble = "it could not be read what is at the devices: " + err.Error()
		f.pause = longer(f.pause)
		f.due = now.Add(f.pause)
		d.table.Schedule(&f.again, f.due, f.begin)
		return
	}
	f.trouble = ""
	if f.last++; f.last == 0 {
		f.last = 1
	}
	f.generation, f.opened = f.last, now
	f.awaited, f.watching, f.blind = len(f.leaving), false, ""
	f.arrivals, f.stations, f.movers = map[int]bool{}, map[ways.Station]map[*lane]bool{}, map[ways.Station]*mover{}
	f.backlog = nil
	f.failed(f.path.Keep(slices.AppendSeq(slices.Clone(f.ports), maps.Keys(f.links))))
	f.failed(f.path.Begin(f.generation))
	f.look()
	if !f.watching {
		f.failed(f.path.Watch(nil))
	}
	d.log.Debug("fast path: a generation begins", "generation", f.generation, "awaited", f.awaited)
}

// list notes the devices that can be used.
func (f *fastPath) list() error {
	links, err := f.ways.Links()
	if err != nil {
		return err
	}
	f.links = make(map[int]ways.Link, len(links))
	f.ports = nil
	for _, l := range links {
		if l.Port {
			f.ports = append(f.ports, l.Index)
		} else {
			f.links[l.Index] = l
		}
	}
	return nil
}

// devices is called when there are more of them: calls may leave by them.
func (f *fastPath) devices() {
	if f.generation == 0 {
		return // the next one begins with them
	}
	f.failed(f.list())
	if f.watching {
		f.see()
	}
}

// halt closes the fast path at once. The next generation begins after a pause, in which whatever passed the firewall or was
// routed before the change has left the router.
func (f *fastPath) halt(now time.Time, why string) {
	if f == nil {
		return
	}
	if f.generation != 0 {
		f.counters.halts++
		if err := f.path.Halt(); err != nil {
			// A kernel that lets nobody write to a map any more still lets go of programs.
			f.failed(errors.Join(err, f.path.Keep(nil)))
			f.over = "its programs can no longer be told anything: " + err.Error()
		}
		f.generation = 0
		if now.Sub(f.opened) > haltPeace {
			f.pause = 0
		}
		f.pause = longer(f.pause)
		f.due = now.Add(f.pause)
		f.daemon.log.Debug("fast path: closed", "because", why, "for", f.pause)
	}
	if soon := now.Add(firstHalt); f.due.Before(soon) {
		f.due = soon
	}
	f.daemon.table.Schedule(&f.again, f.due, f.begin)
}

// longer is the next pause after one.
func longer(pause time.Duration) time.Duration { return min(max(2*pause, firstHalt), lastHalt) }

// hold keeps a closed fast path closed until then: what changes before that is heard of late.
func (f *fastPath) hold(until time.Time) {
	if f == nil || f.generation != 0 || !f.due.Before(until) {
		return
	}
	f.due = until
	f.daemon.table.Schedule(&f.again, f.due, f.begin)
}

// end closes the fast path for good: it would not hear of changes.
func (f *fastPath) end(now time.Time, why string) {
	if f == nil {
		return
	}
	f.halt(now, why)
	f.over = why
}

// saw is called with what the programs saw leave.
func (f *fastPath) saw(sights []fastpath.Sight) {
	for _, s := range sights {
		l := f.leaving[s.Leaves]
		if l == nil || f.generation == 0 || s.Generation != f.generation || f.hasSeen(l) {
			continue
		}
		l.sight, l.taken, l.passed = s, entrance{}, 0
		f.awaited--
		if m := f.daemon.table.Find(nat.Tuple(l.arrives), 0); m != nil && f.lanes[m] == l && m.Call() != nil {
			f.enter(m.Call(), l)
		}
	}
	f.look()
}

// enter has a call carried, as far as that can be, once both of its directions were seen, of which one is fresh: just now.
func (f *fastPath) enter(c *nat.Call, fresh *lane) {
	var lanes [2]*lane
	for side, m := range c.Ends {
		if m != nil {
			lanes[side] = f.lanes[m]
		}
		if lanes[side] == nil || !f.hasSeen(lanes[side]) {
			return
		}
	}
	if !c.Live() {
		return
	}
	before := f.carriesTo(c, nat.Client) || f.carriesTo(c, nat.Server)
	for side, l := range lanes {
		f.stationOf(l, lanes[1-side])
	}
	for _, l := range lanes {
		if !f.carries(l) { // or else the other direction was brought back alone
			l.why = f.carry(l, l == fresh)
		}
	}
	if before {
		return
	}
	if f.carriesTo(c, nat.Client) || f.carriesTo(c, nat.Server) {
		f.counters.entered++
	}
}

// carry has a direction carried, or says why it can't be. It is fresh if it was seen just now, and so comes from where its station is.
func (f *fastPath) carry(l *lane, fresh bool) (why string) {
	in, known := f.links[l.sight.Arrived]
	switch {
	case f.around != "":
		return f.around
	case !known:
		return "it arrives by a device that is not up, or of another kind than Ethernet, PPP and tun"
	case l.sight.Arrived == l.sight.Link:
		return "it leaves by the device by which it arrives, " + in.Name
	}
	unsafe := (*ways.Unsafe)(nil)
	way, err := f.ways.Find(ways.Question{Src: l.arrives.Src, Dst: l.leaves.Dst, Mark: l.sight.Mark, Link: l.sight.Arrived})
	if errors.As(err, &unsafe) {
		return unsafe.Reason
	}
	if err != nil {
		f.failed(err)
		return err.Error()
	}
	if way.Link != l.sight.Link {
		return fmt.Sprintf("it leaves by %s, while its route is by %s", f.links[l.sight.Link].Name, way.Name)
	}
	if way.Ethernet {
		next, err := f.ways.Neighbour(way.Link, way.Gateway)
		if err != nil {
			f.failed(err)
			return err.Error()
		}
		if next != l.sight.Next {
			return fmt.Sprintf("it went to another Ethernet address than %v has, the next hop of its route by %s: that has changed, or the firewall gives it a mark when it is routed already", way.Gateway, way.Name)
		}
	}
	call := fastpath.Call{
		Generation: f.generation, Leaves: l.leaves, Link: way.Link, Bare: !way.Ethernet,
		Gateway: way.Gateway, MTU: way.MTU, Mark: l.sight.Mark,
	}
	e, err := f.entrance(in, l.station)
	if err == nil && f.elsewhere(l, e, fresh) {
		return f.seeAgain(l)
	}
	if err == nil {
		call.Arrives, call.Port = e.link, e.port
		l.comes(e)
		err = f.path.Put(l.arrives, call)
		l.put = true
	}
	if err != nil {
		if !errors.As(err, &unsafe) {
			f.refused(err)
		}
		return err.Error()
	}
	if l.carried = f.generation; !f.looking {
		f.secondLook(time.Now())
	}
	return ""
}
