package nat

import "math/rand/v2"

// domain is the scope in which a told Call ID has to be unique: the source
// and destination with which GRE arrives.
type domain struct {
	src, dst [4]byte
	zone     Zone
}

// key is a Call ID within its domain.
type key struct {
	domain
	id uint16
}

func arrivalKey(m *Mapping) key {
	t := m.Arrives()
	return key{domain{t.Src.As4(), t.Dst.As4(), m.Path.Zone}, t.CallID}
}

func departureKey(m *Mapping) key {
	t := m.Leaves()
	return key{domain{t.Src.As4(), t.Dst.As4(), m.Path.Zone}, t.CallID}
}

// noBlock leaves the high byte of a told Call ID to the pool.
const noBlock = -1

// pool hands out told Call IDs. An ID that has an owner is not free, whether
// its GRE flows, does not flow yet, or has ended and rests.
type pool struct {
	first, last uint16 // the range to give from, inclusive; first is at least 1
	owner       map[key]*Mapping
	used        map[domain]int
	spare       map[domain]*spareID // see refuse
	rng         *rand.Rand
}

// spareID is a Call ID that is told for refused calls and never mapped.
type spareID struct {
	id   uint16
	uses int
}

func newPool(first, last uint16, rng *rand.Rand) *pool {
	return &pool{
		first: max(first, 1), last: last,
		owner: map[key]*Mapping{}, used: map[domain]int{}, spare: map[domain]*spareID{},
		rng: rng,
	}
}

func (p *pool) free(d domain, id uint16) bool {
	if id < p.first || id > p.last {
		return false
	}
	if s, ok := p.spare[d]; ok && s.id == id {
		return false
	}
	_, taken := p.owner[key{d, id}]
	return !taken
}

// take makes m the owner of its told ID.
func (p *pool) take(m *Mapping) {
	k := arrivalKey(m)
	p.owner[k] = m
	p.used[k.domain]++
}

// release makes m's told ID free.
func (p *pool) release(m *Mapping) {
	k := arrivalKey(m)
	if p.owner[k] != m {
		return
	}
	delete(p.owner, k)
	if p.used[k.domain]--; p.used[k.domain] == 0 {
		delete(p.used, k.domain)
	}
}

// pick chooses a free told ID for the real one: the real ID itself where it is
// free, else a random one. Random ones come from the same block of 256 where
// that has room, so that a message cut inside the Call ID can go on: its high
// byte stays what it was. With a block other than noBlock the ID is chosen
// from that block alone.
//
// The last free ID of a domain is not given away: refused calls are told it.
func (p *pool) pick(d domain, real uint16, block int) (uint16, bool) {
	if !p.room(d) {
		return 0, false
	}
	if (block == noBlock || int(real>>8) == block) && p.free(d, real) {
		return real, true
	}
	if block != noBlock {
		return p.pickIn(d, block)
	}
	if id, ok := p.pickIn(d, int(real>>8)); ok {
		return id, true
	}
	span := int(p.last-p.first) + 1
	for range 32 {
		if id := p.first + uint16(p.rng.IntN(span)); p.free(d, id) {
			return id, true
		}
	}
	for i, start := 0, p.rng.IntN(span); i < span; i++ {
		if id := p.first + uint16((start+i)%span); p.free(d, id) {
			return id, true
		}
	}
	return 0, false
}

func (p *pool) pickIn(d domain, block int) (uint16, bool) {
	if block<<8 > int(p.last) || block<<8|0xff < int(p.first) {
		return 0, false
	}
	for i, start := 0, p.rng.IntN(256); i < 256; i++ {
		if id := uint16(block<<8 | (start+i)&0xff); p.free(d, id) {
			return id, true
		}
	}
	return 0, false
}

// room reports whether the domain has an ID to give beside the spare one.
func (p *pool) room(d domain) bool {
	given := p.used[d] + 1 // the spare one, chosen or not
	return given <= int(p.last-p.first)
}

// refuse gives m the domain's spare Call ID. A call that is refused here has
// to be told to the other side all the same, since a message cannot be taken
// out of a TCP stream; the spare ID makes sure that it is nobody else's.
func (p *pool) refuse(m *Mapping) {
	d := arrivalKey(m).domain
	s := p.spare[d]
	if s == nil {
		s = &spareID{id: p.last}
		span := int(p.last-p.first) + 1
		for i, start := 0, p.rng.IntN(span); i < span; i++ {
			if id := p.first + uint16((start+i)%span); p.free(d, id) {
				s.id = id
				break
			}
		}
		p.spare[d] = s
	}
	s.uses++
	m.Told = s.id
}

// forgive ends m's use of the spare Call ID.
func (p *pool) forgive(m *Mapping) {
	d := arrivalKey(m).domain
	if s := p.spare[d]; s != nil {
		if s.uses--; s.uses == 0 {
			delete(p.spare, d)
		}
	}
}
