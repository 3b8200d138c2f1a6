package nat

import "math/rand/v2"

// domain is the scope in which a told Call ID has to be unique: the source
// and destination with which GRE arrives.
type domain struct {
	src, dst [4]byte
	zone     uint16
}

// key is a Call ID within its domain.
type key struct {
	domain
	id uint16
}

func arrivalKey(m *Mapping) key {
	t := m.Arrives()
	return key{domain{t.Src.As4(), t.Dst.As4(), m.Path.Zone.from(m.Side.Other())}, t.CallID}
}

func departureKey(m *Mapping) key {
	t := m.Leaves()
	return key{domain{t.Src.As4(), t.Dst.As4(), m.Path.Zone.from(m.Side)}, t.CallID}
}

// A block is the 256 Call IDs with the same high byte.
const (
	blockSize = 256
	blocks    = 256
	noBlock   = -1 // leaves the high byte of a told Call ID to the pool
)

// pool hands out told Call IDs. An ID that has an owner is not free, whether
// its GRE flows, does not flow yet, or has ended and rests.
type pool struct {
	first, last uint16 // the range to give from, inclusive; first is at least 1
	owner       map[key]*Mapping
	used        map[domain]int            // how many IDs of the range have an owner
	crowded     map[domain]*[blocks]int32 // the same by block, for domains in which a block can be full
	spare       map[domain]*spareID       // see refuse
	rng         *rand.Rand
}

// spareID is a Call ID that is told for refused calls and never mapped.
type spareID struct {
	id    uint16
	uses  int
	until Deadline // the end of its rest after the last use
}

func newPool(first, last uint16, rng *rand.Rand) *pool {
	return &pool{
		first: max(first, 1), last: last,
		owner: map[key]*Mapping{}, used: map[domain]int{},
		crowded: map[domain]*[blocks]int32{}, spare: map[domain]*spareID{},
		rng: rng,
	}
}

// setRange changes the range for IDs to come.
func (p *pool) setRange(first, last uint16) {
	p.first, p.last = max(first, 1), last
	clear(p.used)
	clear(p.crowded)
	for k := range p.owner {
		if p.inRange(k.id) {
			p.used[k.domain]++
		}
	}
}

func (p *pool) inRange(id uint16) bool { return id >= p.first && id <= p.last }

// unused reports whether nobody was told the ID, in the range or not.
func (p *pool) unused(d domain, id uint16) bool {
	if s, ok := p.spare[d]; ok && s.id == id {
		return false
	}
	_, taken := p.owner[key{d, id}]
	return !taken && id != 0
}

func (p *pool) free(d domain, id uint16) bool { return p.inRange(id) && p.unused(d, id) }

// take makes m the owner of its told ID, in the place of one that it has.
func (p *pool) take(m *Mapping) {
	k := arrivalKey(m)
	if p.owner[k] == nil {
		p.count(k, 1)
	}
	p.owner[k] = m
}

// release makes m's told ID free.
func (p *pool) release(m *Mapping) {
	if k := arrivalKey(m); p.owner[k] == m {
		delete(p.owner, k)
		p.count(k, -1)
	}
}

func (p *pool) count(k key, by int) {
	if !p.inRange(k.id) {
		return
	}
	p.used[k.domain] += by
	if c := p.crowded[k.domain]; c != nil {
		c[k.id>>8] += int32(by)
	}
	if p.used[k.domain] < blockSize/2 {
		delete(p.crowded, k.domain)
	}
	if p.used[k.domain] == 0 {
		delete(p.used, k.domain)
	}
}

// survey counts a domain's IDs by block as soon as one can be full, so that
// looking for a free ID passes over full blocks.
func (p *pool) survey(d domain) {
	if p.used[d] < blockSize || p.crowded[d] != nil {
		return
	}
	c := new([blocks]int32)
	for id := int(p.first); id <= int(p.last); id++ {
		if p.owner[key{d, uint16(id)}] != nil {
			c[id>>8]++
		}
	}
	p.crowded[d] = c
}

// pick chooses a free told ID for the real one: the real ID itself where it is
// free, else a random one. Random ones come from the same block where that has
// room, so that a message cut inside the Call ID can go on: its high byte stays
// what it was. With a block other than noBlock the ID is chosen from that block
// alone.
//
// The last free ID of a domain is not given away: refused calls are told it.
func (p *pool) pick(d domain, real uint16, block int) (uint16, bool) {
	if !p.room(d) {
		return 0, false
	}
	if (block == noBlock || int(real>>8) == block) && p.free(d, real) {
		return real, true
	}
	p.survey(d)
	if block != noBlock {
		return p.pickIn(d, block)
	}
	if id, ok := p.pickIn(d, int(real>>8)); ok {
		return id, true
	}
	return p.pickAny(d)
}

// pickAny chooses a free ID of the range.
func (p *pool) pickAny(d domain) (uint16, bool) {
	low, n := int(p.first>>8), int(p.last>>8)-int(p.first>>8)+1
	for i, start := 0, p.rng.IntN(n); i < n; i++ {
		if id, ok := p.pickIn(d, low+(start+i)%n); ok {
			return id, true
		}
	}
	return 0, false
}

// pickIn chooses a free ID of a block.
func (p *pool) pickIn(d domain, block int) (uint16, bool) {
	low, high := max(block*blockSize, int(p.first)), min(block*blockSize+blockSize-1, int(p.last))
	n := high - low + 1
	if c := p.crowded[d]; n <= 0 || c != nil && int(c[block]) >= n {
		return 0, false
	}
	for i, start := 0, p.rng.IntN(n); i < n; i++ {
		if id := uint16(low + (start+i)%n); p.free(d, id) {
			return id, true
		}
	}
	return 0, false
}

// room reports whether the domain has an ID to give beside the spare one.
func (p *pool) room(d domain) bool {
	given := p.used[d] + 1 // the spare one, chosen or not
	return given <= int(p.last)-int(p.first)
}

// refuse gives m the domain's spare Call ID. A call that is refused here has
// to be told to the other side all the same, since a message cannot be taken
// out of a TCP stream; the spare ID makes sure that it is nobody else's.
func (p *pool) refuse(m *Mapping) {
	d := arrivalKey(m).domain
	s := p.spare[d]
	if s == nil {
		s = &spareID{id: p.chooseSpare(d)}
		p.spare[d] = s
	}
	s.uses++
	s.until.Clear()
	m.Told, m.spare = s.id, true
}

func (p *pool) chooseSpare(d domain) uint16 {
	p.survey(d)
	if id, ok := p.pickAny(d); ok {
		return id
	}
	// The range was narrowed to IDs that are all taken.
	for id := uint16(65535); id > 0; id-- {
		if p.unused(d, id) {
			return id
		}
	}
	return p.last
}

// forgive ends m's use of the spare Call ID. It returns that ID when this was
// the last use; then it has to rest.
func (p *pool) forgive(m *Mapping) *spareID {
	s := p.spare[arrivalKey(m).domain]
	if s.uses--; s.uses > 0 {
		return nil
	}
	return s
}
