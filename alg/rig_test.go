package alg_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

const (
	client = nat.Client
	server = nat.Server
)

// rig is one ALG with hand-made segments: for tests that go through cases one
// by one.
type rig struct {
	t      testing.TB
	now    time.Time
	plane  *openPlane
	table  *nat.Table
	alg    *alg.ALG
	given  int
	events []alg.Event
}

// openPlane opens everything that err does not forbid.
type openPlane struct {
	open map[nat.Tuple]*nat.Mapping
	err  func(*nat.Mapping) error
}

func (p *openPlane) Open(m *nat.Mapping) error {
	if p.err != nil {
		if err := p.err(m); err != nil {
			return err
		}
	}
	p.open[m.Arrives()] = m
	return nil
}
func (p *openPlane) Renew(*nat.Mapping) error { return nil }
func (p *openPlane) Close(m *nat.Mapping)     { delete(p.open, m.Arrives()) }
func (p *openPlane) Free(*nat.Mapping)        {}

var rigTimeouts = nat.Timeouts{HalfOpen: 75 * time.Second, Clearing: 15 * time.Second, Grace: 3 * time.Second, Rest: 60 * time.Second}

func newRig(t testing.TB, cfg nat.Config) *rig {
	r := &rig{t: t, now: epoch, plane: &openPlane{open: map[nat.Tuple]*nat.Mapping{}}}
	if cfg.Last == 0 {
		cfg.First, cfg.Last = 1, 65535
	}
	cfg.Timeouts, cfg.Remember = rigTimeouts, 10
	r.table = nat.NewTable(cfg, r.plane, rand.New(rand.NewPCG(7, 7)))
	r.alg = alg.New(alg.Config{
		Decide: func(s *alg.Segment, v alg.Verdict) { s.Packet.(*sent).decide(v) },
		Notify: func(e alg.Event) { r.events = append(r.events, e) },
	}, r.table)
	return r
}

// wait lets time pass.
func (r *rig) wait(d time.Duration) {
	for end := r.now.Add(d); r.now.Before(end); {
		next, ok := r.table.Next()
		if !ok || next.After(end) {
			next = end
		}
		r.now = next
		r.table.Expire(r.now)
	}
}

// conn is a control connection of a rig.
type conn struct {
	*rig
	*alg.Connection
	flow  alg.Flow
	isn   [2]uint32
	top   [2]int // how much of each stream was sent
	acked [2]int // what segments acknowledge of each stream
}

// sent is a segment that the ALG was given.
type sent struct {
	*alg.Segment
	c        *conn
	original []byte
	verdict  alg.Verdict
	decided  int
}

func (s *sent) decide(v alg.Verdict) {
	s.verdict = v
	s.decided++
	if sum := s.c.sum(s.Segment); sum != s.Checksum {
		s.c.t.Errorf("checksum %#04x, from scratch %#04x", s.Checksum, sum)
	}
	if s.decided > 1 {
		s.c.t.Errorf("a segment was decided %d times", s.decided)
	}
}

func (c *conn) sum(s *alg.Segment) uint16 {
	h := make([]byte, 20)
	be.PutUint32(h[4:], s.Seq)
	be.PutUint32(h[8:], s.Ack)
	h[12], h[13] = 0x50, byte(s.Flags)
	return naiveChecksum([]byte{10, 0, 0, 2, 203, 0, 113, 9, 0, 6}, h, s.Payload)
}

// host n's connection to the server, masqueraded.
func (r *rig) dial(n byte) *conn {
	addr := netip.AddrFrom4([4]byte{10, 0, 0, n})
	to := netip.AddrFrom4([4]byte{203, 0, 113, 9})
	c := &conn{rig: r, isn: [2]uint32{0xfffffff0, 0x7fffff00}}
	c.flow = alg.Flow{Client: netip.AddrPortFrom(addr, 40000), Server: netip.AddrPortFrom(to, 1723)}
	var err error
	c.Connection, err = r.alg.Open(r.now, c.flow, nat.Path{Hosts: [2]nat.Host{{Real: addr, Told: netip.AddrFrom4([4]byte{192, 0, 2, 1})}, {Real: to, Told: to}}})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// connect is dial and a handshake.
func (r *rig) connect(n byte) *conn {
	c := r.dial(n)
	c.at(server, 0, nil, alg.SYN|alg.ACK)
	return c
}

// at gives the ALG a segment with the payload at an offset of a side's stream.
func (c *conn) at(side nat.Side, off int, payload []byte, flags alg.Flags) *sent {
	s := &sent{c: c, original: append([]byte{}, payload...)}
	s.Segment = &alg.Segment{
		From: side, Seq: c.isn[side] + uint32(off), Ack: c.isn[side.Other()] + uint32(c.acked[side.Other()]),
		Flags: flags, Payload: append([]byte{}, payload...), Packet: s,
	}
	if flags&alg.SYN != 0 {
		s.Seq--
	}
	s.Checksum = c.sum(s.Segment)
	c.top[side] = max(c.top[side], off+len(payload))
	c.given++
	c.Segment(c.now, s.Segment)
	return s
}

// send gives the ALG the next bytes of a side's stream in one segment and
// returns them as they went on.
func (c *conn) send(side nat.Side, payload []byte) []byte {
	c.t.Helper()
	s := c.at(side, c.top[side], payload, alg.ACK)
	s.went(c.t)
	return s.Payload
}

// Segment hides the embedded ones.
func (c *conn) Segment(now time.Time, s *alg.Segment) { c.Connection.Segment(now, s) }

// went checks that the segment went on.
func (s *sent) went(t testing.TB) {
	t.Helper()
	if s.decided != 1 || s.verdict != alg.Accept {
		t.Fatalf("segment of %d bytes: decided %d times, verdict %d", len(s.original), s.decided, s.verdict)
	}
}

// message returns a message with noise in its body and the given Call IDs, -1
// for none.
func message(typ int, own, peer int) []byte {
	b := make([]byte, lengths[typ])
	for i := range b {
		b[i] = byte(i*7 + typ*31 + 1)
	}
	be.PutUint16(b, uint16(len(b)))
	be.PutUint16(b[2:], 1)
	be.PutUint32(b[4:], 0x1a2b3c4d)
	be.PutUint16(b[8:], uint16(typ))
	be.PutUint16(b[10:], 0)
	at := 12
	for _, id := range []int{own, peer} {
		if id >= 0 {
			be.PutUint16(b[at:], uint16(id))
			at += 2
		}
	}
	switch typ {
	case sccrp:
		b[14] = 1
	case ocrp, icrp:
		b[16], b[17] = 1, 0
	}
	return b
}

// with returns b with the 16-bit number at an offset replaced.
func with(b []byte, at int, v uint16) []byte {
	b = append([]byte{}, b...)
	be.PutUint16(b[at:], v)
	return b
}

func id(b []byte, at int) int { return int(be.Uint16(b[at:])) }

// same fails when got is not want.
func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if string(got) != string(want) {
		t.Fatalf("%s:\n got %x\nwant %x", what, got, want)
	}
}

// empty checks that nothing is left when the connections are gone and time
// has passed.
func (r *rig) empty() {
	r.t.Helper()
	r.alg.Connections(func(c *alg.Connection) { c.Lost(r.now) })
	r.wait(time.Hour)
	if r.alg.Len() != 0 || r.alg.Holding() != 0 || len(r.plane.open) != 0 {
		r.t.Errorf("left: %d connections, %d segments, %d mappings", r.alg.Len(), r.alg.Holding(), len(r.plane.open))
	}
	checkEmpty(r.t.Errorf, r.table)
}

var _ = fmt.Sprint
