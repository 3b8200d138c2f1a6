package alg_test

import (
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// stage is a connection without anything around it that costs time.
type stage struct {
	*alg.Connection
	alg   *alg.ALG
	table *nat.Table
	now   time.Time
	seq   [2]uint32
	seg   alg.Segment
}

func newStage(tb testing.TB) *stage {
	r := newRig(tb, nat.Config{})
	s := &stage{table: r.table, now: r.now}
	s.alg = alg.New(alg.Config{Decide: func(*alg.Segment, alg.Verdict) {}}, r.table)
	c := r.dial(2)
	var err error
	if s.Connection, err = s.alg.Open(s.now, c.flow, c.Path()); err != nil {
		tb.Fatal(err)
	}
	s.seg = alg.Segment{From: server, Flags: alg.SYN | alg.ACK, Seq: ^uint32(0)}
	s.Segment(s.now, &s.seg)
	return s
}

// say sends b as the next segment of a side and acknowledges all of the other.
func (s *stage) say(side nat.Side, b []byte) {
	s.seg = alg.Segment{From: side, Seq: s.seq[side], Ack: s.seq[side.Other()], Flags: alg.ACK, Payload: b}
	s.seq[side] += uint32(len(b))
	s.Segment(s.now, &s.seg)
}

func (s *stage) keepalive(request, reply []byte) {
	s.say(client, request)
	s.say(server, reply)
}

// TestKeepalivesAllocateNothing: neither do retransmissions.
func TestKeepalivesAllocateNothing(t *testing.T) {
	s := newStage(t)
	request, reply := message(echoRequest, -1, -1), message(echoReply, -1, -1)
	if n := testing.AllocsPerRun(1000, func() { s.keepalive(request, reply) }); n != 0 {
		t.Errorf("%v allocations for an Echo-Request and its reply", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		s.seq[client] -= 16
		s.say(client, request)
	}); n != 0 {
		t.Errorf("%v allocations for a retransmission", n)
	}
	if c := s.alg.Counters; c.Messages < 2000 || c.Retransmitted.Sum() < 1000 || c.UnknownCallID.Sum() != 0 {
		t.Errorf("%+v", c)
	}
}

// BenchmarkEcho: one Echo-Request in a segment of its own.
func BenchmarkEcho(b *testing.B) {
	s := newStage(b)
	request, reply := message(echoRequest, -1, -1), message(echoReply, -1, -1)
	b.ReportAllocs()
	for range b.N / 2 {
		s.keepalive(request, reply)
	}
}

// BenchmarkRetransmission: an Outgoing-Call-Request that was seen before.
func BenchmarkRetransmission(b *testing.B) {
	s := newStage(b)
	request := message(ocrq, 0, -1)
	work := append([]byte{}, request...)
	s.say(client, work)
	b.ReportAllocs()
	for b.Loop() {
		copy(work, request)
		s.seq[client] -= uint32(len(work))
		s.say(client, work)
	}
}

// BenchmarkCall: the four segments of a call's life.
func BenchmarkCall(b *testing.B) {
	s := newStage(b)
	ask, answer := message(ocrq, 0, -1), message(ocrp, 0, -1)
	clear, gone := message(clearRequest, 0, -1), message(disconnectNotify, 0, -1)
	b.ReportAllocs()
	for b.Loop() {
		be.PutUint16(ask[12:], 0)
		s.say(client, ask)
		be.PutUint16(answer[12:], 0)
		be.PutUint16(answer[14:], be.Uint16(ask[12:]))
		s.say(server, answer)
		be.PutUint16(clear[12:], 0)
		s.say(client, clear)
		be.PutUint16(gone[12:], 0)
		s.say(server, gone)
		s.now = s.now.Add(2 * time.Second)
		s.table.Expire(s.now)
	}
	if s.table.Counters.CallsEstablished != uint64(b.N) || s.table.Counters.CallsEnded != uint64(b.N) {
		b.Errorf("%+v", s.table.Counters)
	}
}
