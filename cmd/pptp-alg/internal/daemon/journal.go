package daemon

import (
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/state"
	"pptp-alg/nat"
)

// journalPause is how long the journal is left alone after it could not be written.
const journalPause = time.Second

// journal writes down what another process needs to go on with the calls. What changes is collected,
// and written in one piece before the segment goes on that changed it: so the journal is always at a
// point between two segments, and a sender whose segment was not counted sends it again. The one
// exception is a mapping, which is written down before the kernel has it.
type journal struct {
	log   *slog.Logger
	file  *state.Journal // nil: nothing is written down
	table *nat.Table
	alg   *alg.ALG
	ours  func(netip.Addr) bool // whether this router has, or has just had, an address

	places      map[place]struct{}
	calls       map[*nat.Call]struct{}
	connections map[*alg.Connection]struct{}
	last        numbers
	buffer      []byte

	failures uint64    // of writing
	failed   time.Time // the last one; zero: the journal is being written
}

func newJournal(log *slog.Logger) *journal {
	j := &journal{log: log}
	j.forget()
	return j
}

// bootTime returns when the machine was started, on the clock of now: a time that was written down as a
// distance from it is right in another process too, suspended time and changes of the clock included.
func bootTime() time.Time {
	var best time.Time
	took := time.Duration(-1)
	for range 10 {
		var age unix.Timespec
		before := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &age); err != nil {
			return best
		}
		// Other processes may have had the processor between the two clocks.
		if d := time.Since(before); took < 0 || d < took {
			best, took = before.Add(-time.Duration(age.Nano())), d
		}
		if took < 100*time.Microsecond {
			break
		}
	}
	return best
}

func (j *journal) callChanged(c *nat.Call) { j.calls[c] = struct{}{} }

func (j *journal) connectionChanged(c *alg.Connection) { j.connections[c] = struct{}{} }

func (j *journal) mappingChanged(m *nat.Mapping) {
	if j != nil {
		j.places[placeOf(m)] = struct{}{}
	}
}

// opening writes a mapping down that the kernel is to have, and with it the mappings that were closed, some
// of which may have made way for it. Calls and connections are not written: a segment is being looked at.
func (j *journal) opening(m *nat.Mapping) {
	if j == nil || j.file == nil || !j.file.Writing() {
		return
	}
	now := time.Now()
	c := &coder{b: j.buffer, boot: bootTime()}
	j.putPlaces(c)
	r, _ := j.table.Record(m)
	c.b = c.b[:0]
	c.mapping(&r)
	j.file.Put(placeOf(m).key(), c.b)
	j.buffer = c.b
	j.wrote(now, j.file.Flush())
	j.mappingChanged(m) // should opening it fail, the record goes again
}

// putPlaces puts the mappings that have changed.
func (j *journal) putPlaces(c *coder) {
	for p := range j.places {
		if m := j.table.Find(p.nat(), p.zone); m == nil || !j.mapping(c, m, j.file.Put) {
			j.file.Delete(p.key())
		}
	}
	j.places = emptied(j.places)
}

// flush writes down everything that has changed.
func (j *journal) flush(now time.Time) {
	if j.file == nil {
		return
	}
	if len(j.places)+len(j.calls)+len(j.connections) == 0 {
		return
	}
	if !j.file.Writing() || j.file.Overgrown() {
		if now.Sub(j.failed) >= journalPause {
			j.rewrite(now)
		}
		j.forget()
		return
	}
	c := &coder{b: j.buffer, boot: bootTime()}
	if call, connection := j.table.Last(); j.last != (numbers{call, connection}) {
		j.last = numbers{call, connection}
		j.numbers(c, j.file.Put)
	}
	j.putPlaces(c)
	for call := range j.calls {
		if !call.Kept() {
			j.file.Delete(numberKey(keyCall, call.ID))
		} else {
			j.call(c, call, j.file.Put)
		}
	}
	for conn := range j.connections {
		if conn.Gone() {
			j.file.Delete(numberKey(keyConnection, conn.Calls().ID))
		} else {
			j.connection(c, conn, j.file.Put)
		}
	}
	j.buffer = c.b
	j.wrote(now, j.file.Flush())
	j.forget()
}

// forget forgets what has changed.
func (j *journal) forget() {
	j.places, j.calls, j.connections = emptied(j.places), emptied(j.calls), emptied(j.connections)
}

// emptied is the map without what is in it. One that has held much is let go: it keeps its size, and clearing it would cost
// that with every segment to come.
func emptied[K comparable](m map[K]struct{}) map[K]struct{} {
	const much = 256
	if m == nil || len(m) > much {
		return map[K]struct{}{}
	}
	clear(m)
	return m
}

// wrote takes note of what became of a write.
func (j *journal) wrote(now time.Time, err error) {
	if err == nil {
		return
	}
	j.failures++
	if j.failed.IsZero() {
		j.log.Warn("cannot write down the state: until that works again, a restart loses calls", "error", err)
	}
	j.failed = now
}

// rewrite begins the journal anew, with all that there is.
func (j *journal) rewrite(now time.Time) {
	err := j.file.Rewrite(func(put func(key, value []byte)) { j.all(bootTime(), put) })
	if err == nil && !j.failed.IsZero() {
		j.failed = time.Time{}
		j.log.Info("the state is written down again")
	}
	j.wrote(now, err)
}

// all puts everything, with times since the boot.
func (j *journal) all(boot time.Time, put func(key, value []byte)) {
	c := &coder{b: j.buffer, boot: boot}
	j.last.call, j.last.connection = j.table.Last()
	j.numbers(c, put)
	j.table.Mappings(func(m *nat.Mapping) { j.mapping(c, m, put) })
	j.table.Kept(func(call *nat.Call) { j.call(c, call, put) })
	j.alg.Connections(func(conn *alg.Connection) { j.connection(c, conn, put) })
	j.buffer = c.b
}

func (j *journal) numbers(c *coder, put func(key, value []byte)) {
	c.b = c.b[:0]
	c.numbers(&j.last)
	put([]byte{keyNumbers}, c.b)
}

func (j *journal) mapping(c *coder, m *nat.Mapping, put func(key, value []byte)) bool {
	r, known := j.table.Record(m)
	if !known {
		return false
	}
	c.b = c.b[:0]
	c.mapping(&r)
	put(placeOf(m).key(), c.b)
	return true
}

func (j *journal) call(c *coder, call *nat.Call, put func(key, value []byte)) {
	r := callState{call.Connection.ID, call.Record()}
	c.b = c.b[:0]
	c.call(&r)
	put(numberKey(keyCall, call.ID), c.b)
}

func (j *journal) connection(c *coder, conn *alg.Connection, put func(key, value []byte)) {
	r := connectionState{Record: conn.Record()}
	if n, ok := conn.Note.(*note); ok {
		r.told = [2]netip.AddrPort{n.ends[nat.Client].told, n.ends[nat.Server].told}
	} else {
		r.told = [2]netip.AddrPort{r.Flow.Client, r.Flow.Server}
	}
	r.local = owned(&r.Path, j.ours)
	c.b = c.b[:0]
	c.connection(&r)
	put(numberKey(keyConnection, r.ID), c.b)
}

// begin begins the journal, in the place of the last daemon's.
func (j *journal) begin(now time.Time) {
	if j.file != nil {
		j.rewrite(now)
	}
	j.forget()
}

// close ends the journal, which stays.
func (j *journal) close(now time.Time) {
	if j.file != nil {
		j.flush(now)
		j.file.Close()
	}
}
