package nat

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// One domain with up to thousands of IDs, in which blocks fill up, against a
// set. The histories of TestModel are too short for that.
func TestPoolModel(t *testing.T) {
	n := 16
	if testing.Short() {
		n = 4
	}
	start := rand.Uint64() >> 1
	for i := range n {
		seed := start + uint64(i)
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { poolHistory(t, seed) }) {
			return
		}
	}
}

func poolHistory(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	setRange := func() (first, last uint16) {
		first = uint16(1 + rng.IntN(1000))
		if rng.IntN(10) == 0 {
			first = 64000
		}
		return first, first + uint16(rng.IntN(1500))
	}
	first, last := setRange()
	p := newPool(first, last, rng)
	path := testPaths[rng.IntN(len(testPaths))]
	side := Side(rng.IntN(2))
	taken := map[uint16]*Mapping{}
	var all []*Mapping
	d := arrivalKey(&Mapping{Path: &path, Side: side}).domain
	var spare *Mapping

	free := func(id uint16) bool {
		return id >= first && id <= last && taken[id] == nil && (spare == nil || spare.Told != id)
	}
	count := func(block int) (n, used int) {
		for id := first; ; id++ {
			if block == noBlock || int(id>>8) == block {
				if free(id) {
					n++
				}
				if taken[id] != nil {
					used++
				}
			}
			if id == last {
				return
			}
		}
	}
	grow := 60
	for step := range 4000 {
		if step%400 == 0 {
			grow = 30 + rng.IntN(60)
		}
		switch op := rng.IntN(100); {
		case op == 0 && rng.IntN(10) == 0:
			first, last = setRange()
			p.setRange(first, last)
		case op == 1 && spare == nil:
			m := &Mapping{Path: &path, Side: side}
			n, _ := count(noBlock)
			p.refuse(m)
			if m.Told == 0 || taken[m.Told] != nil || n > 0 && !free(m.Told) {
				t.Fatalf("spare ID %d", m.Told)
			}
			spare = m
		case op == 2 && spare != nil:
			if p.forgive(spare) == nil {
				t.Fatal("the last use is not the last")
			}
			delete(p.spare, d)
			spare = nil
		case op < 3:
		case op < grow:
			real := first + uint16(rng.IntN(3))
			if rng.IntN(4) == 0 {
				real = uint16(rng.IntN(65536))
			}
			block := noBlock
			if rng.IntN(5) == 0 {
				block = int(real>>8) + rng.IntN(2)
			}
			id, ok := p.pick(d, real, block)
			// The last one in the whole range is kept, if no spare one is chosen.
			_, used := count(noBlock)
			room := used+2 <= int(last-first)+1
			n, _ := count(block)
			if ok != (room && n > 0) {
				t.Fatalf("pick: %v, with room %v and %d free", ok, room, n)
			}
			if !ok {
				continue
			}
			own := free(real) && (block == noBlock || int(real>>8) == block)
			inBlock, _ := count(int(real >> 8))
			switch {
			case !free(id):
				t.Fatalf("pick of %d, which is not free", id)
			case own != (id == real):
				t.Fatalf("pick of %d for %d, own %v", id, real, own)
			case block != noBlock && int(id>>8) != block:
				t.Fatalf("pick of %d outside block %d", id, block)
			case block == noBlock && inBlock > 0 && id>>8 != real>>8:
				t.Fatalf("pick of %d for %d, though its block has room", id, real)
			}
			m := &Mapping{Path: &path, Side: side, Real: real, Told: id}
			p.take(m)
			taken[id] = m
			all = append(all, m)
		case len(all) > 0:
			i := rng.IntN(len(all))
			m := all[i]
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
			p.release(m)
			p.release(m) // again: no harm
			delete(taken, m.Told)
		}
		if len(p.owner) != len(taken) {
			t.Fatalf("%d owners, want %d", len(p.owner), len(taken))
		}
		if c := p.crowded[d]; c != nil {
			block := rng.IntN(blocks)
			if _, used := count(block); int(c[block]) != used {
				t.Fatalf("block %d: %d, want %d", block, c[block], used)
			}
		}
	}
	for _, m := range all {
		p.release(m)
	}
	if len(p.owner)+len(p.used)+len(p.crowded) != 0 {
		t.Fatalf("left behind: %d %d %d", len(p.owner), len(p.used), len(p.crowded))
	}
}
