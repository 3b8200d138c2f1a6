//go:build !nofastpath

package fastpath

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Path is the programs in the kernel, with their maps. Put, Take, Await, Forget and what attaches programs are for one
// goroutine; Traffic and All are for any; Sights is for one that may be another.
type Path struct {
	calls, ports, watched, state, programs int // descriptors of maps
	places                                 *places
	code                                   map[string]int
	news                                   *ring
	old                                    *clsact // nil: the kernel has tcx

	attached map[point]attached
	mu       sync.RWMutex // held for writing while the maps are closed
	closed   bool
}

// Options of Open.
type Options struct {
	// Entries is how many tuples can be carried and how many awaited. Memory is taken for those that are awaited, and some 100 bytes
	// for each of these.
	Entries int
	// Clsact has programs attached to a clsact queueing discipline also where the kernel has tcx.
	Clsact bool
}

// placed are the programs that the stubs call, in the order of the array where they find them.
var placed = [...]string{"ethernet", "bare", "watch", "port"}

// Open loads the programs. It needs Linux 5.10, CAP_BPF and CAP_NET_ADMIN; what a Path does afterwards needs CAP_NET_ADMIN
// only, where [Path.NeedsBPF] does not say otherwise. Nothing is attached yet, and the generation is 0: closed.
func Open(o Options) (*Path, error) {
	p := &Path{calls: -1, ports: -1, watched: -1, state: -1, programs: -1, code: map[string]int{}, attached: map[point]attached{}}
	if err := p.open(o); err != nil {
		return nil, errors.Join(fmt.Errorf("no fast path: %w", err), p.Close())
	}
	return p, nil
}

func (p *Path) open(o Options) (err error) {
	object, err := parseObject(objectFile)
	if err != nil {
		return err
	}
	entries := uint32(o.Entries)
	if p.places, err = openPlaces(o.Entries); err != nil {
		return err
	}
	if p.calls, err = makeMap("calls", unix.BPF_MAP_TYPE_HASH, tupleSize, otherSize, entries, unix.BPF_F_NO_PREALLOC); err != nil {
		return err
	}
	if p.watched, err = makeMap("watched", unix.BPF_MAP_TYPE_HASH, tupleSize, 4, entries, unix.BPF_F_NO_PREALLOC); err != nil {
		return err
	}
	if p.ports, err = makeMap("ports", unix.BPF_MAP_TYPE_HASH, 4, bridgeSize, mostPorts, unix.BPF_F_NO_PREALLOC); err != nil {
		return err
	}
	if p.state, err = makeMap("state", unix.BPF_MAP_TYPE_ARRAY, 4, stateSize, 1, 0); err != nil {
		return err
	}
	if p.programs, err = makeMap("programs", unix.BPF_MAP_TYPE_PROG_ARRAY, 4, 4, uint32(len(placed)), 0); err != nil {
		return err
	}
	if p.news, err = openRing(); err != nil {
		return err
	}
	maps := p.maps()
	for label := range object.programs {
		instructions, err := object.link(label, maps)
		if err != nil {
			return err
		}
		if p.code[label], err = load(label, instructions, 0); err != nil {
			return err
		}
	}
	if o.Clsact || !hasTCX(p.code["watch"]) {
		err = p.openClsact()
	}
	return err
}

// maps are the descriptors of the maps by their names in the programs.
func (p *Path) maps() map[string]int {
	return map[string]int{"places": p.places.fd, "calls": p.calls, "ports": p.ports, "watched": p.watched, "state": p.state, "programs": p.programs, "sights": p.news.fd}
}

// Halt closes the fast path at once: what is put, and what is seen to leave, counts no more. Packets take the ordinary path.
func (p *Path) Halt() error { return p.setGeneration(0) }

// Begin begins a generation. Nothing is carried in it before it is put into it.
func (p *Path) Begin(generation uint32) error { return p.setGeneration(generation) }

func (p *Path) setGeneration(g uint32) error {
	var zero uint32
	if err := element(unix.BPF_MAP_UPDATE_ELEM, p.state, &zero, &stateValue{g, p.places.mask()}); err != nil {
		return fmt.Errorf("set the fast path's generation: %w", err)
	}
	return nil
}

// Put has packets that arrive as t carried as c says, as long as c.Generation is the Path's. What the tuple counted
// before goes on being counted.
func (p *Path) Put(t Tuple, c Call) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := c.encode(t)
	k := v.is()
	place, there := p.places.of[t]
	short := v.Hop6 == [16]byte{} // places have no room for a next hop of IPv6
	if place == nil && short {    // also for one in the table: a place may be free by now
		if place = p.places.free(k, time.Now()); place != nil && there {
			last, err := p.outOfTable(t)
			if err != nil {
				return err
			}
			place.Packets, place.Bytes = last.Packets, last.Bytes
		}
	}
	if place != nil && short {
		place.set(v.callValue)
		p.places.of[t] = place
		return nil
	}
	var last Traffic
	switch {
	case place != nil: // its own until it is in the table
		place.stop()
		last = place.traffic()
	case there:
		last = p.inTable(t)
	}
	v.Packets, v.Bytes = last.Packets, last.Bytes
	if err := element(unix.BPF_MAP_UPDATE_ELEM, p.calls, &k, &v); err != nil {
		return fmt.Errorf("put %v into the fast path: %w", t, err)
	}
	if place != nil {
		p.places.take(place, time.Now())
	}
	p.places.of[t] = nil
	return nil
}

// Move has packets that arrive as t be taken at these places from now on, which are a Call's Arrives and Port. It is not an error when
// nothing was put.
func (p *Path) Move(t Tuple, arrives, port int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	place, there := p.places.of[t]
	switch {
	case !there:
		return nil
	case place != nil:
		place.move(arrives, port)
		return nil
	}
	k := t.encode()
	var v otherValue
	err := element(unix.BPF_MAP_LOOKUP_ELEM, p.calls, &k, &v)
	if v.Arrives, v.Port = uint32(arrives), uint32(port); err == nil {
		err = element(unix.BPF_MAP_UPDATE_ELEM, p.calls, &k, &v)
	}
	if err != nil {
		return fmt.Errorf("have %v taken elsewhere: %w", t, err)
	}
	return nil
}

// notSupported is the kernel's ENOTSUPP, which is not for user space but gets there.
const notSupported = syscall.Errno(524)

// Take ends what Put began and returns what was carried. It is not an error when there was nothing.
func (p *Path) Take(t Tuple) (Traffic, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	place, there := p.places.of[t]
	delete(p.places.of, t)
	switch {
	case !there:
		return Traffic{}, nil
	case place != nil:
		return p.places.take(place, time.Now()), nil
	}
	return p.outOfTable(t)
}

// outOfTable is Take for a tuple in the hash table.
func (p *Path) outOfTable(t Tuple) (Traffic, error) {
	k := t.encode()
	var v otherValue
	err := element(unix.BPF_MAP_LOOKUP_AND_DELETE_ELEM, p.calls, &k, &v)
	if errors.Is(err, notSupported) || errors.Is(err, unix.EINVAL) { // before Linux 5.14
		if err = element(unix.BPF_MAP_LOOKUP_ELEM, p.calls, &k, &v); err == nil {
			err = element(unix.BPF_MAP_DELETE_ELEM, p.calls, &k, &v)
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return Traffic{}, fmt.Errorf("take %v from the fast path: %w", t, err)
	}
	return Traffic{v.Packets, v.Bytes}, nil
}

// Traffic returns what packets that arrive as t were carried; nothing for what was not put.
func (p *Path) Traffic(t Tuple) Traffic {
	p.mu.RLock()
	defer p.mu.RUnlock()
	place, there := p.places.of[t]
	switch {
	case p.closed || !there:
		return Traffic{}
	case place != nil:
		return place.traffic()
	}
	return p.inTable(t)
}

// inTable is Traffic for a tuple in the hash table.
func (p *Path) inTable(t Tuple) Traffic {
	k := t.encode()
	var v otherValue
	if element(unix.BPF_MAP_LOOKUP_ELEM, p.calls, &k, &v) != nil {
		return Traffic{}
	}
	return Traffic{v.Packets, v.Bytes}
}

// All returns the traffic of all that was put.
func (p *Path) All() (map[Tuple]Traffic, error) {
	all, err := p.allInTable()
	if err != nil {
		return nil, err
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return all, nil
	}
	for t, place := range p.places.of { // what came from there into the array since has counted on here
		if place != nil {
			all[t] = place.traffic()
		} else if _, counted := all[t]; !counted {
			all[t] = p.inTable(t)
		}
	}
	return all, nil
}

// allInTable returns the traffic of what is in the hash table.
func (p *Path) allInTable() (map[Tuple]Traffic, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	all := make(map[Tuple]Traffic, len(p.places.of))
	if p.closed {
		return all, nil
	}
	const some = 4096
	keys, values := make([]tupleKey, some), make([]otherValue, some)
	var next [2]uint32 // where the kernel goes on: a bucket's number
	for first := true; ; first = false {
		a := batchAttr{Out: at(&next[0]), Keys: at(&keys[0]), Values: at(&values[0]), Count: some, Map: uint32(p.calls)}
		if !first {
			a.In = at(&next[1])
		}
		_, err := call(unix.BPF_MAP_LOOKUP_BATCH, &a)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("read the fast path's counters: %w", err)
		}
		for i := range a.Count {
			all[keys[i].decode()] = Traffic{values[i].Packets, values[i].Bytes}
		}
		if err != nil {
			return all, nil
		}
		next[1] = next[0]
	}
}

// Await has Sights tell when a packet leaves as t, once in every generation, by a link that is watched.
func (p *Path) Await(t Tuple) error {
	k := t.encode()
	var never uint32
	if err := element(unix.BPF_MAP_UPDATE_ELEM, p.watched, &k, &never); err != nil {
		return fmt.Errorf("watch for %v: %w", t, err)
	}
	return nil
}

// Forget ends what Await began.
func (p *Path) Forget(t Tuple) error {
	k := t.encode()
	if err := element[tupleKey, uint32](unix.BPF_MAP_DELETE_ELEM, p.watched, &k, nil); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("no longer watch for %v: %w", t, err)
	}
	return nil
}

// Sights waits until packets have left that were awaited, and says which. After Close it returns os.ErrClosed.
func (p *Path) Sights() ([]Sight, error) { return p.news.receive() }

// Port is the netlink port from which queueing disciplines and filters are changed; 0: none are.
func (p *Path) Port() uint32 {
	if p.old == nil {
		return 0
	}
	return p.old.conn.PID()
}

// Close takes the programs away from the devices and out of the kernel.
func (p *Path) Close() error {
	var errs []error
	for at := range p.attached {
		errs = append(errs, p.detach(at))
	}
	if p.old != nil {
		errs = append(errs, p.old.close())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.Join(errs...)
	}
	p.closed = true
	if p.news != nil {
		errs = append(errs, p.news.close())
	}
	for _, fd := range p.code {
		errs = append(errs, unix.Close(fd))
	}
	if p.places != nil {
		errs = append(errs, p.places.close())
	}
	for _, fd := range []int{p.calls, p.ports, p.watched, p.state, p.programs} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
