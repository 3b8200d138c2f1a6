//go:build !nofastpath

package fastpath

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Where there is no place for a call in the array it is carried out of the hash table, and counted there.
func TestCrowdedPlaces(t *testing.T) {
	l := newLab(t)
	p := l.open(Options{Entries: 64})
	var tuples []Tuple
	l.router.do(func() error {
		err := errors.Join(p.Carry(l.in, false), p.Begin(1))
		for i := range uint16(40) {
			tuples = append(tuples, Tuple{innerAddr, outerAddr, 100 + i})
			call := l.call()
			call.Leaves.CallID = 500 + i
			err = errors.Join(err, p.Put(tuples[i], call))
		}
		return err
	})
	var placed, other int
	want := map[Tuple]Traffic{}
	for i, tuple := range tuples {
		if p.places.of[tuple] != nil {
			placed++
		} else {
			other++
		}
		for n := range i%3 + 1 {
			sent := packet(tuple, 64, n, nil)
			l.inner.send(sent)
			same(t, l.outer.receive(long), sent, Tuple{routerAddr, outerAddr, 500 + uint16(i)})
			want[tuple] = Traffic{want[tuple].Packets + 1, want[tuple].Bytes + uint64(len(sent))}
		}
	}
	if placed == 0 || other == 0 {
		t.Errorf("%d calls are in places, %d in the hash table", placed, other)
	}
	all, err := p.All()
	if err != nil || len(all) != len(want) {
		t.Errorf("all counters: %d of %d, %v", len(all), len(want), err)
	}
	for tuple, n := range want {
		taken, err := p.Take(tuple)
		if all[tuple] != n || taken != n || err != nil {
			t.Errorf("%v: counted %+v, taken with %+v, %v; %+v were carried", tuple, all[tuple], taken, err, n)
		}
	}
	if all, err := p.All(); err != nil || len(all) != 0 {
		t.Errorf("left are %v, %v", all, err)
	}
}

// A place that a call has left is no other one's before it has rested.
func TestPlacesRest(t *testing.T) {
	l := newLab(t)
	p := l.carry(Options{})
	sent := packet(arrives, 64, 10, nil)
	l.inner.send(sent) // which the next one in its place has not carried
	same(t, l.outer.receive(long), sent, leaves)
	old := p.places.of[arrives]
	l.router.do(func() error {
		if _, err := p.Take(arrives); err != nil {
			return err
		}
		if err := p.Put(arrives, l.call()); err != nil {
			return err
		}
		if now := p.places.of[arrives]; now == nil || now == old {
			t.Errorf("in the place %p after %p", now, old)
		}
		if _, err := p.Take(arrives); err != nil {
			return err
		}
		if err := p.Put(arrives, l.call()); err != nil {
			return err
		}
		if p.places.of[arrives] != nil {
			t.Error("both places should have been resting")
		}
		for i := range p.places.rest {
			p.places.rest[i].until = time.Now()
		}
		_, err := p.Take(arrives)
		return errors.Join(err, p.Put(arrives, l.call()))
	})
	if p.places.of[arrives] == nil {
		t.Error("no place is free again")
	}
	l.inner.send(sent)
	same(t, l.outer.receive(long), sent, leaves)
	if got := p.Traffic(arrives); got != (Traffic{1, uint64(len(sent))}) {
		t.Errorf("counted %+v", got)
	}
}

// A route may have a next hop of IPv6 for packets of IPv4 (RFC 5549).
func TestNextHopOfIPv6(t *testing.T) {
	l := newLab(t)
	gateway := netip.MustParseAddr("fd00::2")
	var there net.HardwareAddr
	l.outer.do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			there = link.Attrs().HardwareAddr
		}
		return err
	})
	l.router.do(func() error {
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: l.out, Family: netlink.FAMILY_V6, State: netlink.NUD_PERMANENT, IP: gateway.AsSlice(), HardwareAddr: there})
	})
	p := l.carry(Options{})
	for i, gateway := range []netip.Addr{outerAddr, gateway, outerAddr} {
		call := l.call()
		call.Gateway = gateway
		l.router.do(func() error { return p.Put(arrives, call) })
		sent := packet(arrives, 64, 10, nil)
		l.inner.send(sent)
		same(t, l.outer.receive(long), sent, leaves)
		if got := p.Traffic(arrives).Packets; got != uint64(i+1) {
			t.Errorf("by %v: counted %d packets, not %d", gateway, got, i+1)
		}
	}
}

// A program may be at a place that is taken away. Until the rest is over it finds there what it found before; what it counts then
// is not counted for the next call.
func TestPlaceUnderAProgram(t *testing.T) {
	p := newLab(t).open(Options{})
	now := time.Now()
	v := Call{Generation: 1, Arrives: 2, Leaves: leaves, Link: 3, Gateway: outerAddr, MTU: 1500, Mark: 4}.encode(arrives).callValue
	place := p.places.free(v.is(), now)
	place.set(v)
	place.Packets, place.Bytes = 5, 600
	if got := p.places.take(place, now); got != (Traffic{5, 600}) {
		t.Errorf("taken with %+v", got)
	}
	want := v
	want.Generation, want.Packets, want.Bytes = 0, 5, 600
	if *place != want {
		t.Errorf("the program finds\n%+v, not\n%+v", *place, want)
	}
	place.Packets, place.Bytes = 6, 700
	for p.places.free(v.is(), now) != nil {
		p.places.free(v.is(), now).set(v)
	}
	if got := p.places.free(v.is(), now.Add(placeRest)); got != place || *got != (callValue{}) {
		t.Errorf("the next call in the place %p begins in %p with %+v", place, got, got)
	}
}

// A call that could not get into the hash table still has its place, and what it counted there.
func TestNoRoomInTable(t *testing.T) {
	l := newLab(t)
	p := l.carry(Options{})
	sent := packet(arrives, 64, 10, nil)
	l.inner.send(sent)
	same(t, l.outer.receive(long), sent, leaves)
	place, table := p.places.of[arrives], p.calls
	moved := l.call()
	moved.Gateway = netip.MustParseAddr("fd00::2")
	p.calls = -1
	if err := p.Put(arrives, moved); err == nil {
		t.Error("there is no table, and nobody complains")
	}
	p.calls = table
	if p.places.of[arrives] != place || len(p.places.rest) != 0 || place.Generation != 0 {
		t.Errorf("in the place %p, not %p: %+v; %d rest", p.places.of[arrives], place, *place, len(p.places.rest))
	}
	if got, err := p.Take(arrives); err != nil || got != (Traffic{1, uint64(len(sent))}) {
		t.Errorf("taken with %+v, %v", got, err)
	}
}

// kernelSide is a kernel whose values are seen in the memory, and that sees what is written to it, or not.
type kernelSide struct {
	pairs            [][2]callValue // what it has
	hears, tells, ok bool
	memory           [][2]callValue
}

func (k *kernelSide) lookup(i uint32, v *[2]callValue) error {
	if k.hears {
		k.pairs[i] = k.memory[i]
	}
	*v = k.pairs[i]
	return nil
}

func (k *kernelSide) update(i uint32, v *[2]callValue) error {
	if !k.ok {
		return errors.New("refused")
	}
	if k.pairs[i] = *v; k.tells {
		k.memory[i] = *v
	}
	return nil
}

// Memory that is the kernel's as well is told from such as each side has a cached copy of, in either direction.
func TestSharedMemory(t *testing.T) {
	for _, n := range []int{1, 2, 64, 1024} {
		for _, k := range []kernelSide{{hears: true, tells: true, ok: true}, {hears: true, ok: true}, {tells: true, ok: true}, {ok: true}, {hears: true, tells: true}} {
			k.pairs, k.memory = make([][2]callValue, n), make([][2]callValue, n)
			want := k.hears && k.tells && k.ok
			if got := shared(k.memory, k.lookup, k.update); got != want {
				t.Errorf("%d pairs, hears %v, tells %v, ok %v: shared %v", n, k.hears, k.tells, k.ok, got)
			}
			for i, pair := range k.memory {
				if want && pair != ([2]callValue{}) || pair[0].Generation != 0 || pair[1].Generation != 0 {
					t.Errorf("%d pairs: pair %d is left as %+v", n, i, pair)
				}
			}
		}
	}
}

// Where memory is not shared, calls are carried out of the hash table.
func TestNoSharedMemory(t *testing.T) {
	l := newLab(t)
	p := l.open(Options{})
	if p.places.apart {
		t.Error("memory is not shared here, it is said")
	}
	p.places.apart = true
	l.router.do(func() error { return errors.Join(p.Carry(l.in, false), p.Put(arrives, l.call()), p.Begin(1)) })
	if place, there := p.places.of[arrives]; !there || place != nil {
		t.Errorf("in the place %p, %v", place, there)
	}
	sent := packet(arrives, 64, 10, nil)
	l.inner.send(sent)
	same(t, l.outer.receive(long), sent, leaves)
	if got, err := p.Take(arrives); err != nil || got != (Traffic{1, uint64(len(sent))}) {
		t.Errorf("taken with %+v, %v", got, err)
	}
}

// Halves of a counter that are not of the same time make no number that it never had.
func TestSteady(t *testing.T) {
	const small, large, before, after = 7, 1<<32 - 5, 3 << 32, 4 << 32
	for _, c := range []struct {
		name  string
		loads []uint64
		want  uint64
	}{
		{"nothing happens", []uint64{before | small, before | small}, before | small},
		{"it grows", []uint64{before | small, before | large}, before | large},
		{"the next higher half", []uint64{before | large, after | small, after | small}, after | small},
		{"first an old higher half", []uint64{before | small, after | small, after | small}, after | small},
		{"then an old higher half", []uint64{before | large, before | small, after | small, after | small}, after | small},
		{"first an old lower half", []uint64{after | large, after | small, after | small}, after | small},
		{"then an old lower half", []uint64{before | large, after | large, after | small, after | small}, after | small},
	} {
		i := -1
		if got := steady(func() uint64 { i++; return c.loads[i] }); got != c.want {
			t.Errorf("%s: %#x, not %#x", c.name, got, c.want)
		}
	}
}

// An element of the hash table is used for the tuple that is in it only: its memory may have become another call's right after the
// program found it.
func TestAnothersElement(t *testing.T) {
	l := newLab(t)
	p := l.open(Options{})
	p.places.apart = true
	another := arrives
	another.CallID++
	l.router.do(func() error { return errors.Join(p.Carry(l.in, false), p.Put(another, l.call()), p.Begin(1)) })
	k, v := arrives.encode(), l.call().encode(another)
	l.router.do(func() error { return element(unix.BPF_MAP_UPDATE_ELEM, p.calls, &k, &v) })
	sent := packet(another, 64, 20, nil)
	l.inner.send(packet(arrives, 64, 10, nil))
	l.inner.send(sent)
	same(t, l.outer.receive(long), sent, leaves) // the router forwards nothing: the other one did not come
	if got := p.inTable(arrives); got != (Traffic{}) {
		t.Errorf("counted %+v", got)
	}
}
