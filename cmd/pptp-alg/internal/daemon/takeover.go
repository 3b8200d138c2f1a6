package daemon

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/state"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// A takeover goes on with the calls of the daemon before this one. Their GRE has flowed all the while,
// in the kernel; nothing of that is touched here. The journal says which calls these are, and the kernel
// what became of them:
//
//	mapping, entry there                  goes on
//	mapping, entry gone, call lives       the entry is made again
//	mapping of no call                    its message never went on: taken away;
//	                                      with a damaged journal, as an entry of no mapping
//	entry of no mapping                   left alone; its Call ID is nobody's until it has gone
//	connection, TCP entry established     goes on
//	connection, TCP entry closing         ends, with its calls
//	connection, TCP entry gone            ends unless it shows a sign of life
//	connection, its address removed       waits for the address, as under a running daemon
//
// It runs when the queue is bound and before the first packet is taken from it: the kernel keeps them meanwhile.
type takeover struct {
	*daemon
	now  time.Time
	boot time.Time

	last        numbers
	mappings    []nat.MappingRecord
	calls       []callState
	connections []connectionState

	entries map[place]found
	known   map[uint64]*nat.Connection

	refused, strangers int
	torn               bool // the end of the journal was missing or damaged
}

// found is an entry in the kernel, without what its place says.
type found struct {
	leaves    greKey
	zone      conntrack.Zone
	mark      uint32
	remaining time.Duration
}

func (f found) entry(p place) conntrack.Entry {
	return conntrack.Entry{Arrives: conntrack.GRE(p.nat()), Leaves: conntrack.GRE(f.leaves.nat()), Zone: f.zone, Mark: f.mark}
}

// readJournal opens the journal and reads what the last daemon has left in it.
func (d *daemon) readJournal() *takeover {
	now := time.Now()
	t := &takeover{
		daemon: d, now: now, boot: bootTime(),
		entries: map[place]found{}, known: map[uint64]*nat.Connection{},
	}
	path := d.config.StatePath()
	if path == "" {
		return t
	}
	identity, err := state.Identity()
	if err != nil {
		d.log.Warn("the state is not written down: a restart loses calls", "error", err)
		return t
	}
	report, err := state.Load(path, identity, t.take)
	switch {
	case errors.Is(err, state.ErrForeign):
		d.log.Warn("the state is not written down: a restart loses calls", "error", err)
		return t
	case err != nil:
		d.log.Warn("cannot read the state of the last daemon; its calls go on, but are not known", "error", err)
	case report.Damaged:
		t.torn = report.Torn > 0
		d.damaged(path, report)
	case report.Ignored != "":
		d.log.Info("the state of the last daemon is of no use", "file", path, "because", report.Ignored)
	}
	d.journal.file = state.New(path, identity)
	return t
}

// damaged says that the state was damaged, and keeps it for whoever wants to know by what.
func (d *daemon) damaged(path string, r state.Report) {
	kept, err := state.KeepAside(path)
	args := []any{"file", path, "kept as", kept}
	if err != nil {
		args = []any{"file", path, "not kept", err}
	}
	if r.Ignored != "" {
		d.log.Warn("the state of the last daemon is damaged: its calls go on, but are not known", append(args, "because", r.Ignored)...)
		return
	}
	d.log.Warn("the end of the state file is damaged: what was written there last is not known", append(args, "bytes", r.Torn, "records before it", r.Records)...)
}

// take takes one record.
func (t *takeover) take(key, value []byte) {
	c := &coder{b: value, reading: true, boot: t.boot}
	var kind byte
	if len(key) > 0 {
		kind = key[0]
	}
	switch kind {
	case keyNumbers:
		c.numbers(&t.last)
	case keyMapping:
		var r nat.MappingRecord
		if c.mapping(&r); c.done() {
			t.mappings = append(t.mappings, r)
		}
	case keyCall:
		var r callState
		if c.call(&r); c.done() {
			t.calls = append(t.calls, r)
		}
	case keyConnection:
		var r connectionState
		if c.connection(&r); c.done() {
			t.connections = append(t.connections, r)
		}
	default:
		c.fail()
	}
	if !c.done() {
		t.refuse(errors.New("not a record of this version"), "key", key)
	}
}

// refuse passes over a record.
func (t *takeover) refuse(err error, args ...any) {
	t.refused++
	t.counters.recordsRefused++
	t.limited("a record of the last daemon was passed over", append(args, "error", err)...)
}

// restore fills the table and the ALG. The kernel's tables are only read.
func (t *takeover) restore() error {
	t.entries = make(map[place]found, len(t.mappings))
	err := t.plane.ct.Each(func(e conntrack.Stored) {
		t.entries[placeOfEntry(e.Entry)] = found{greKeyOf(e.Leaves.Src, e.Leaves.Dst, e.Leaves.CallID), e.Zone, e.Mark, e.Remaining}
	})
	if err != nil {
		return err
	}
	t.fill()
	return t.restoreConnections()
}

// fill fills the table with what the records and the entries say.
func (t *takeover) fill() {
	t.table.Resume(t.last.call, t.last.connection)
	for _, r := range t.mappings {
		t.restoreMapping(r)
	}
	t.strange()
	slices.SortFunc(t.connections, func(a, b connectionState) int { return cmp.Compare(a.ID, b.ID) })
	t.connections = slices.DeleteFunc(t.connections, func(r connectionState) bool {
		if t.known[r.ID] != nil {
			t.refuse(errors.New("two control connections have its number"), "connection", r.ID)
			return true
		}
		c, err := t.table.RestoreConnection(r.ID, r.Path, r.State == alg.Closed)
		if err != nil {
			t.refuse(err)
			return true
		}
		t.known[r.ID] = c
		return false
	})
	slices.SortFunc(t.calls, func(a, b callState) int { return cmp.Compare(a.ID, b.ID) })
	for _, r := range t.calls {
		t.restoreCall(r)
	}
}

// placeOfEntry is placeOf for an entry.
func placeOfEntry(e conntrack.Entry) place {
	p := placeAt(nat.Tuple(e.Arrives), e.Zone.ID)
	if e.Zone.Direction == conntrack.ReplyOnly {
		p.zone = 0
	}
	return p
}

func (t *takeover) restoreMapping(r nat.MappingRecord) {
	if !r.Resting {
		// An entry is renewed so long before its end.
		r.Due = time.Time{}
		if e, there := t.entries[placeAt(arrives(r), zoneOf(r))]; there {
			r.Due = t.now.Add(max(0, e.remaining-(entryLife-entryRenew)))
		}
	}
	if _, err := t.table.RestoreMapping(t.now, r); err != nil {
		t.refuse(err)
	}
}

func arrives(r nat.MappingRecord) nat.Tuple {
	m := nat.Mapping{Path: &r.Path, Side: r.Side, Told: r.Told}
	return m.Arrives()
}

func zoneOf(r nat.MappingRecord) uint16 {
	m := nat.Mapping{Path: &r.Path, Side: r.Side}
	return m.ArrivalZone()
}

// strange keeps the Call IDs of entries that no record names out of use until the entries are gone. They may
// carry calls whose connection this router knows nothing of.
func (t *takeover) strange() {
	for p, f := range t.entries {
		if t.table.Find(p.nat(), p.zone) != nil {
			continue
		}
		e := f.entry(p)
		r := nat.MappingRecord{
			// GRE towards the server travels like the connection's original packets, in the same zone.
			Path: nat.Path{
				Hosts: [2]nat.Host{
					nat.Client: {Real: e.Arrives.Src, Told: e.Leaves.Src},
					nat.Server: {Real: e.Leaves.Dst, Told: e.Arrives.Dst},
				},
				Zone: nat.Zone{ID: e.Zone.ID, Direction: nat.ZoneDirection(e.Zone.Direction)},
				Mark: e.Mark,
			},
			Side: nat.Server, Real: e.Leaves.CallID, Told: e.Arrives.CallID,
			Resting: true, Due: t.now.Add(f.remaining),
		}
		if _, err := t.table.RestoreMapping(t.now, r); err != nil {
			t.refuse(err)
			continue
		}
		t.strangers++
	}
}

func (t *takeover) restoreCall(r callState) {
	c := t.known[r.connection]
	if c == nil {
		// Only the Call IDs of ended calls outlive their connection.
		if r.State != nat.Ended {
			t.refuse(errors.New("its control connection has no record"), "call", r.ID)
		}
		return
	}
	call, err := c.Restore(t.now, r.CallRecord)
	if err != nil {
		t.refuse(err)
		return
	}
	switch {
	case !call.Live():
		s := t.call(t.now, call, past)
		call.Note = &s
	case call.State == nat.Established && call.Up.Add(t.config.Timeouts.Silence).After(t.now):
		t.watchGRE(call.Up, call)
	}
}

// restoreConnections has the ALG know the connections, and finds out what became of them.
func (t *takeover) restoreConnections() error {
	if len(t.known) == 0 {
		return nil
	}
	restored := t.restoreStreams()
	t.addressesGone()
	var others []*alg.Connection
	for _, c := range restored {
		if c.State == alg.Closed || t.standsStill(c) {
			continue
		}
		// A question for each costs a few microseconds; a look through a table that is large, as here, many milliseconds.
		switch state, err := t.plane.ct.StateOf(t.entryOfConnection(c)); {
		case errors.Is(err, conntrack.ErrNotFound):
			others = append(others, c)
		case err != nil:
			return err
		default:
			t.goesOn(c, state)
		}
	}
	return t.notAsTheyWere(others)
}

// goesOn is called for a connection that conntrack has as it was.
func (t *takeover) goesOn(c *alg.Connection, state conntrack.TCPState) {
	if state > conntrack.TCPEstablished && c.State != alg.Closing {
		c.Close(t.now, "control connection was closed while the daemon was away")
	}
}

// notAsTheyWere finds out what became of connections that conntrack does not have as they were.
func (t *takeover) notAsTheyWere(all []*alg.Connection) error {
	if len(all) == 0 {
		return nil
	}
	ways, states, err := t.inKernel()
	if err != nil {
		return err
	}
	flushed := t.flushed()
	for _, c := range all {
		path := c.Path()
		w, there := ways[c.Flow]
		switch {
		case !there && lives(c):
			// Somebody flushed everything, or it is over: then the calls' entries are still there.
			if flushed[c.Calls().ID] {
				t.reconnect(c)
			}
			c.Lost(t.now)
		case !there:
		case w.path.Hosts != path.Hosts || w.path.Zone != path.Zone:
			c.Close(t.now, "control connection was replaced while the daemon was away")
		default:
			t.goesOn(c, states[c.Flow])
		}
	}
	return nil
}

// restoreStreams has the ALG know the connections that the table knows.
func (t *takeover) restoreStreams() (restored []*alg.Connection) {
	for _, r := range t.connections {
		calls := t.known[r.ID]
		c, err := t.alg.Restore(t.now, r.Record, calls)
		if err != nil {
			t.refuse(err)
			calls.Close(t.now, "its record could not be used")
			continue
		}
		c.Note = &note{ends: [2]end{{r.Flow.Client, r.told[nat.Client]}, {r.Flow.Server, r.told[nat.Server]}}}
		restored = append(restored, c)
	}
	return restored
}

// addressesGone stops what uses addresses that this router had, and has no more.
func (t *takeover) addressesGone() {
	for _, r := range t.connections {
		for i, a := range addressesOf(&r.Path) {
			if r.local&(1<<i) != 0 && !t.keeper.ours(a) {
				t.addressGone(t.now, a)
			}
		}
	}
}

// flushed finds the connections that have calls, and of these calls no entry any more.
func (t *takeover) flushed() map[uint64]bool {
	flushed := map[uint64]bool{}
	t.table.Mappings(func(m *nat.Mapping) {
		c := m.Call()
		if !m.Open() || c == nil {
			return
		}
		id := c.Connection.ID
		all, seen := flushed[id]
		_, there := t.entries[placeOf(m)]
		flushed[id] = !there && (all || !seen)
	})
	return flushed
}

// mend brings the kernel's tables in line. It comes when our nftables table is there.
func (t *takeover) mend() error {
	if err := t.unguard(); err != nil {
		return err
	}
	swept := 0
	if t.torn {
		t.strangers += t.table.Leave(t.gone)
	} else {
		swept = t.table.Sweep()
	}
	made := 0
	t.table.Mappings(func(m *nat.Mapping) {
		p := placeOf(m)
		e, there := t.entries[p]
		switch {
		case !m.Open() && there && m.Call() != nil:
			_ = t.plane.ct.Delete(e.entry(p)) // its end came in between
		case m.Open() && (!there || !e.entry(p).Equal(entryOf(m))) && m.Call() != nil && m.Call().Live() && !t.isAway(m.Path):
			if t.plane.revive(m) != nil {
				t.table.RenewSoon(t.now, m)
			}
			made++
		}
	})
	up := 0
	t.table.Calls(func(c *nat.Call) {
		if c.State == nat.Established || c.State == nat.Clearing {
			up++
		}
	})
	t.counters.callsTakenOver = uint64(t.table.Len())
	t.counters.entriesRevived, t.counters.entriesSwept = uint64(made), uint64(swept)
	if len(t.mappings)+len(t.connections)+t.strangers == 0 {
		return nil
	}
	t.busy(t.now, lullSegments) // however few: the heap was let grow
	t.log.Info("took over the calls of the last daemon", "calls", t.table.Len(), "up", up, "control connections", t.alg.Len(),
		"entries made again", made, "entries dropped", swept, "entries of unknown calls", t.strangers,
		"records passed over", t.refused, "took", time.Since(t.now).Round(time.Millisecond))
	return nil
}

// gone returns when the entry of a mapping will have gone.
func (t *takeover) gone(m *nat.Mapping) time.Time {
	e, there := t.entries[placeOf(m)]
	if !there {
		return t.now
	}
	return t.now.Add(e.remaining)
}

// unguard takes from the guard what no mapping has, and control connections that are over from those that are known: what a
// daemon has left there that did not stop in order.
func (t *takeover) unguard() error {
	if t.plane.rules.Fresh() {
		return nil
	}
	wanted := t.elements()
	if err := unneeded(wanted.Calls, t.plane.rules.Calls, t.plane.rules.Delete); err != nil {
		return err
	}
	return unneeded(wanted.Flows, t.plane.rules.Flows, t.plane.rules.DeleteFlows)
}

// unneeded deletes the elements that are there and not wanted.
func unneeded[E comparable](wanted []E, list func() ([]E, error), remove func(...E) error) error {
	there, err := list()
	if err != nil {
		return err
	}
	known := make(map[E]bool, len(wanted))
	for _, e := range wanted {
		known[e] = true
	}
	there = slices.DeleteFunc(there, func(e E) bool { return known[e] })
	if len(there) == 0 {
		return nil
	}
	return remove(there...)
}
