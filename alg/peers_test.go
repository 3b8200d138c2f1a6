package alg_test

import (
	"net/netip"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// This file holds the endpoints of the world: PNS and PAC with a codec of
// their own. What they believe about a message's call comes from stamps in
// fields that the router has no business with; Call IDs have to agree.

// Message types, RFC 2637 section 2, written out again.
const (
	sccrq = 1 + iota
	sccrp
	stopRequest
	stopReply
	echoRequest
	echoReply
	ocrq
	ocrp
	icrq
	icrp
	iccn
	clearRequest
	disconnectNotify
	wanError
	setLinkInfo
)

var lengths = [...]int{sccrq: 156, sccrp: 156, stopRequest: 16, stopReply: 16, echoRequest: 16, echoReply: 20,
	ocrq: 168, ocrp: 32, icrq: 220, icrp: 24, iccn: 28, clearRequest: 16, disconnectNotify: 148, wanError: 40, setLinkInfo: 24}

// stampAt says where an endpoint writes the number of the call.
var stampAt = [...]int{ocrq: 14, ocrp: 28, icrq: 14, icrp: 20, iccn: 16, clearRequest: 14, disconnectNotify: 20, wanError: 16, setLinkInfo: 16, 15 + 1: 0}

// call is a call as it should be.
type call struct {
	stamp    uint16
	l        *link
	incoming bool
	init     nat.Side
	ids      [2]uint16
	has      [2]bool
	told     [2]int // a side's Call ID as the other side read it
	up, over [2]bool
	result   byte
	refused  bool // by the router
	clear    bool // Call-Clear-Request was written
	notify   bool // Call-Disconnect-Notify was written
	alone    bool // without being asked to
}

func (c *call) pns() nat.Side {
	if c.incoming {
		return c.init.Other()
	}
	return c.init
}

func (c *call) pac() nat.Side { return c.pns().Other() }

// host has Call IDs.
type host struct {
	addr netip.Addr
	used map[netip.Addr]map[uint16]bool
}

// peer is one end of a link.
type peer struct {
	l     *link
	side  nat.Side
	host  *host
	accel bool // puts the receiver's ID into Call-Disconnect-Notify
	todo  []*call
	ready bool
}

func (p *peer) out() *stream { return p.l.streams[p.side] }

// idFor takes a Call ID of the host. They are few, so that many are equal.
func (p *peer) idFor(c *call) uint16 {
	few := [...]uint16{0, 0, 1, 1, 2, 3, 255, 256, 257, 0xff00, 65535}
	key := p.l.other(p.side)
	if p.host.used[key] == nil {
		p.host.used[key] = map[uint16]bool{}
	}
	id := few[p.l.w.rng.IntN(len(few))]
	for p.host.used[key][id] {
		id = uint16(p.l.w.rng.IntN(600))
	}
	p.host.used[key][id] = true
	c.ids[p.side], c.has[p.side] = id, true
	return id
}

// message returns a message full of noise with a right header.
func (p *peer) message(typ int) []byte {
	w := p.l.w
	n := 12 + w.rng.IntN(60)
	if typ < len(lengths) && typ > 0 {
		n = lengths[typ]
		if w.chance(8) && typ != icrp {
			n += w.rng.IntN(60)
		}
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	if n >= 40 && w.chance(4) {
		be.PutUint32(b[32+w.rng.IntN(n-36):], 0x1a2b3c4d)
	}
	be.PutUint16(b, uint16(n))
	be.PutUint16(b[2:], 1)
	be.PutUint32(b[4:], 0x1a2b3c4d)
	be.PutUint16(b[8:], uint16(typ))
	be.PutUint16(b[10:], 0)
	return b
}

func (p *peer) plain(typ int) { p.out().write(p.message(typ), nil, nil) }

// send writes a message about a call. own and peer are the values of its Call
// ID fields, -1 where it has none.
func (p *peer) send(typ int, c *call, own, other int, result byte) {
	b := p.message(typ)
	marks := map[int]field{}
	at := 12
	for _, id := range []int{own, other} {
		if id >= 0 {
			be.PutUint16(b[at:], uint16(id))
			marks[at], marks[at+1] = callIDField, callIDField
			at += 2
		}
	}
	be.PutUint16(b[stampAt[typ]:], c.stamp)
	var tells *ownID
	switch typ {
	case ocrp, icrp:
		b[16], b[17] = result, 0
		if result == 1 {
			marks[16], marks[17] = resultField, resultField
			tells = &ownID{at: 12, until: 16, call: c, id: uint16(own), side: p.side}
		}
	case ocrq, icrq:
		tells = &ownID{at: 12, until: 13, call: c, id: uint16(own), side: p.side}
	}
	if typ == icrp {
		switch p.l.icrp {
		case 1: // lies about its length
			be.PutUint16(b, 148)
		case 2: // is as long as that
			b = append(b, make([]byte, 148-24)...)
			for i := 24; i < 148; i++ {
				b[i] = byte(p.l.w.rng.Uint32())
			}
			b[28] = 0xee
			be.PutUint16(b, 148)
		}
	}
	p.l.w.note("link %d %v writes type %d about call %d at %d: own %d peer's %d result %d", p.l.n, p.side, typ, c.stamp, len(p.out().sent), own, other, result)
	p.out().write(b, marks, tells)
}

// request announces a call.
func (p *peer) request(incoming bool) {
	w := p.l.w
	c := &call{stamp: uint16(len(w.calls)), l: p.l, incoming: incoming, init: p.side, told: [2]int{-1, -1}}
	w.calls, p.l.calls = append(w.calls, c), append(p.l.calls, c)
	typ := ocrq
	if incoming {
		typ = icrq
	}
	p.send(typ, c, int(p.idFor(c)), -1, 0)
}

// answer answers a call that the other side announced.
func (p *peer) answer(c *call) {
	typ := ocrp
	if c.incoming {
		typ = icrp
	}
	c.result = 1
	if p.l.w.chance(6) {
		c.result = 3
	}
	other := c.told[c.init]
	if c.result != 1 {
		c.over[p.side] = true
		p.send(typ, c, int(p.l.w.rng.IntN(4)), other, c.result)
		return
	}
	c.up[p.side] = true
	p.send(typ, c, int(p.idFor(c)), other, 1)
}

// live returns a call of the link that the side may speak about, or nil.
func (p *peer) live() *call {
	var some []*call
	for _, c := range p.l.calls {
		switch {
		case c.over[p.side] || !c.up[p.side] || c.told[p.side.Other()] < 0 || c.notify || c.refused:
		case p.l.w.p.refuses() && !(c.up[0] && c.up[1]):
		default:
			some = append(some, c)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[p.l.w.rng.IntN(len(some))]
}

// clearCall writes a Call-Clear-Request, unless a Call-Disconnect-Notify on
// its way might then be understood in two ways.
func (p *peer) clearCall(c *call) {
	if c.clear || c.over[p.side] || c.pns() != p.side {
		return
	}
	for _, x := range p.l.calls {
		if x != c && x.notify && x.alone && !x.over[p.side] && (c.told[p.side] < 0 || c.told[p.side] == int(x.ids[x.pac()])) {
			return
		}
	}
	c.clear = true
	p.send(clearRequest, c, int(c.ids[p.side]), -1, 0)
}

// disconnect writes a Call-Disconnect-Notify.
func (p *peer) disconnect(c *call, alone bool) {
	rfc, theirs := int(c.ids[p.side]), c.told[c.pns()]
	id := rfc
	tieOwn, tiePeer := false, theirs < 0
	for _, x := range p.l.calls {
		if x == c {
			continue
		}
		if x.clear && !x.over[c.pns()] && (x.told[c.pns()] < 0 || x.told[c.pns()] == rfc) {
			tieOwn = true
		}
		if x.has[p.side] && !x.over[p.side] && int(x.ids[p.side]) == theirs {
			tiePeer = true
		}
	}
	if alone && tieOwn {
		return
	}
	if p.accel && !tiePeer {
		id = theirs
	}
	c.notify, c.alone, c.over[p.side] = true, alone, true
	p.send(disconnectNotify, c, id, -1, 0)
}

// act does something of its own accord.
func (p *peer) act() {
	w := p.l.w
	if !p.ready || p.out().fin || len(p.out().sent) > 20000 {
		return
	}
	if len(p.todo) > 0 && !w.chance(3) {
		i := w.rng.IntN(len(p.todo))
		c := p.todo[i]
		p.todo = append(p.todo[:i], p.todo[i+1:]...)
		p.answer(c)
		return
	}
	pns := p.l.pns() == p.side
	switch n := w.rng.IntN(20); {
	case n < 7 && len(p.l.calls) < 8:
		if pns {
			p.request(false)
			if w.chance(10) && !w.p.refuses() {
				p.clearCall(p.l.calls[len(p.l.calls)-1])
			}
		} else if w.p.compulsory {
			p.request(true)
		}
	case n < 10:
		p.plain(echoRequest)
	case n == 10:
		p.plain(16 + w.rng.IntN(100))
	case n == 11 && !p.l.gentle:
		b := p.message(0)
		be.PutUint16(b[2:], 2) // a management message
		p.out().write(b, nil, nil)
	default:
		c := p.live()
		switch {
		case c == nil:
		case pns && n < 16:
			p.send(setLinkInfo, c, -1, c.told[p.side.Other()], 0)
		case pns:
			p.clearCall(c)
		case n < 17:
			p.send(wanError, c, -1, c.told[p.side.Other()], 0)
		default:
			p.disconnect(c, true)
		}
	}
}

// pns is the side that is the PNS.
func (l *link) pns() nat.Side {
	if l.path.Mark == 1 {
		return nat.Server
	}
	return nat.Client
}

// shut closes a side's stream.
func (p *peer) shut() {
	if p.out().fin {
		return
	}
	if p.l.w.chance(2) {
		p.plain(stopRequest)
	}
	p.out().fin, p.l.w.shut = true, true
}

// read parses what has come.
func (p *peer) read(s *stream) {
	for s.prefix-s.parsed >= 12 {
		var head [12]byte
		for i := range head {
			head[i] = byte(s.got[s.parsed+i])
		}
		n := int(be.Uint16(head[:]))
		typ := int(be.Uint16(head[8:]))
		if typ == icrp && p.l.icrp == 1 {
			n = 24
		}
		if s.prefix-s.parsed < n {
			return
		}
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(s.got[s.parsed+i])
		}
		s.parsed += n
		if be.Uint16(b[2:]) == 1 {
			p.handle(typ, b)
		}
	}
}

// handle acts upon a message. It fails when Call IDs and stamp disagree.
func (p *peer) handle(typ int, b []byte) {
	w, me, they := p.l.w, p.side, p.side.Other()
	switch typ {
	case sccrq:
		if !p.out().fin {
			p.plain(sccrp)
		}
		p.ready = true
	case sccrp:
		p.ready = true
	case echoRequest:
		if !p.out().fin {
			p.plain(echoReply)
		}
	case stopRequest:
		if !p.out().fin {
			p.plain(stopReply)
		}
	}
	if typ < ocrq || typ > setLinkInfo {
		return
	}
	stamp := be.Uint16(b[stampAt[typ]:])
	if int(stamp) >= len(w.calls) {
		w.fail("stamp %d in a message of type %d", stamp, typ)
		return
	}
	c := w.calls[stamp]
	if c.l != p.l {
		w.fail("link %d got a message about a call of link %d", p.l.n, c.l.n)
		return
	}
	first, second := be.Uint16(b[12:]), be.Uint16(b[14:])
	w.note("link %d %v reads type %d about call %d: %d %d", p.l.n, me, typ, stamp, first, second)
	// A request that crosses the end of the connection may be refused.
	late := c.refused || p.l.closing() && !(c.up[0] && c.up[1])
	mine := func(id uint16) {
		if !late && (!c.has[me] || id != c.ids[me]) {
			w.fail("link %d: type %d about call %d has %d for the %v's own Call ID %d", p.l.n, typ, stamp, id, me, c.ids[me])
		}
	}
	theirs := func(id uint16) {
		if c.told[they] != int(id) && !late {
			w.fail("link %d: type %d about call %d has %d for the %v's Call ID, which was told as %d", p.l.n, typ, stamp, id, they, c.told[they])
		}
	}
	switch typ {
	case ocrq, icrq:
		c.told[they] = int(first)
		if !w.p.refuses() {
			p.unique(c, they)
		}
		if w.chance(3) || p.out().fin {
			p.todo = append(p.todo, c)
		} else {
			p.answer(c)
		}
	case ocrp, icrp:
		// Refused calls share the ID that the other side is told, and so
		// answers to two of them may be taken for each other.
		if !w.p.refuses() || b[16] == 1 {
			mine(second)
		}
		switch got := b[16]; {
		case c.result != 1 && got != c.result:
			w.fail("result %d became %d", c.result, got)
		case c.result != 1:
			c.over[me] = true
			return
		case c.over[me]:
			return
		case p.l.closing(): // over for the router, or soon
			c.told[they], c.refused = int(first), true
			return
		case got == 2 && b[17] == 4:
			w.refused++
			c.refused, c.over = true, [2]bool{true, true}
			if !w.p.refuses() {
				w.fail("link %d: call %d was refused", p.l.n, stamp)
			}
			return
		case got != 1:
			w.fail("result 1 became %d, %d", got, b[17])
		}
		c.told[they] = int(first)
		c.up[me] = true
		w.established++
		p.unique(c, they)
		p.unique(c, me)
		if w.p.refuses() && !c.clear {
			w.flows(c)
		}
		if typ == icrp && !p.out().fin {
			p.send(iccn, c, -1, c.told[they], 0)
		}
	case iccn, wanError, setLinkInfo:
		mine(first)
	case clearRequest:
		theirs(first)
		if !c.over[me] && !p.out().fin {
			for i, x := range p.todo {
				if x == c {
					p.todo = append(p.todo[:i], p.todo[i+1:]...)
					c.result, c.over[me] = 7, true
					p.send(ocrp, c, 0, c.told[they], 7)
					return
				}
			}
			p.disconnect(c, false)
		}
	case disconnectNotify:
		if c.has[me] && first == c.ids[me] {
			// what accel-ppp means
		} else if !p.l.closing() { // where all calls are over, it can't be told what is meant
			theirs(first)
		}
		c.over[me] = true
	}
}

// closing reports whether one of the sides closed its stream.
func (l *link) closing() bool { return l.streams[0].fin || l.streams[1].fin }

// unique checks a Call ID that was told.
func (p *peer) unique(c *call, owner nat.Side) {
	w, id := p.l.w, c.told[owner]
	if p.l.closing() || c.notify && c.told[owner] == int(c.ids[owner]) {
		return
	}
	if id == 0 {
		w.fail("link %d: call %d: the %v's Call ID was told as 0", p.l.n, c.stamp, owner)
	}
	key := p.l.arrives(owner, uint16(id))
	for _, l := range w.links {
		for _, x := range l.calls {
			for side := nat.Client; side <= nat.Server; side++ {
				if x == c && side == owner || x.told[side] < 0 || x.refused || x.over[side.Other()] || w.p.refuses() && !x.up[x.init] {
					continue
				}
				if l.path.Zone == p.l.path.Zone && l.arrives(side, uint16(x.told[side])) == key {
					w.fail("calls %d and %d are both told %v", c.stamp, x.stamp, key)
				}
			}
		}
	}
}

// flows checks that GRE of an established call flows to both sides.
func (w *world) flows(c *call) {
	for side := nat.Client; side <= nat.Server; side++ {
		m := w.plane.open[tuple{c.l.arrives(side, uint16(c.told[side])), c.l.path.Zone}]
		if m == nil || m.Real != c.ids[side] {
			w.fail("call %d is up, but no GRE flows to the %v", c.stamp, side)
		}
	}
}

// open begins a link's connection.
func (l *link) open() {
	w := l.w
	l.life++
	l.up, l.dead = true, false
	w.rng.IntN(2)
	for i := range l.pseudo {
		l.pseudo[i] = byte(w.rng.Uint32())
	}
	for i := range l.streams {
		isn := w.rng.Uint32()
		if w.chance(2) {
			isn = -uint32(w.rng.IntN(600))
		}
		// The router knows a connection whose beginning it did not see by its
		// sequence numbers alone.
		for old := l.streams[i]; old != nil && (isn == old.isn || !w.p.synSeen && isn-old.isn+1<<20 < 1<<21); {
			isn = w.rng.Uint32()
		}
		l.streams[i] = &stream{l: l, side: nat.Side(i), isn: isn, waiting: map[*seg]time.Time{}}
		l.peers[i].todo, l.peers[i].ready = nil, false
	}
	l.gentle = !w.p.synSeen
	if b := w.book; b != nil { // a SYN that is lost comes again; not here
		b.calm = true
		defer func() { b.calm = false }()
	}
	if !l.gentle {
		if w.chance(3) {
			syn := l.streams[nat.Client].emit(0, 0, alg.SYN)
			syn.flags = alg.SYN
			w.segment(syn)
		}
		w.segment(l.streams[nat.Server].emit(0, 0, alg.SYN))
		if w.chance(6) {
			s := l.streams[nat.Server]
			s.toRouter = append(s.toRouter, s.emit(0, 0, alg.SYN))
		}
	}
	l.peers[nat.Client].plain(sccrq)
}
