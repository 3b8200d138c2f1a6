package daemon

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/queue"
)

// Each segment is charged to the client that sent it, also where the owner has dealt with it before share knows
// that it was taken: share waits for the owner then, as it does where there is much to do.
func TestShareCharges(t *testing.T) {
	in, out, tally := make(chan *queue.Packet), make(chan *queue.Packet), &tally{}
	go share(context.Background(), in, out, nil, func(*queue.Packet) {}, tally, func(bool) {})
	const laborious, honest = "10.0.0.1", "10.0.0.2"
	for i := range uint32(200) {
		in <- segmentOf(laborious, i)
	}
	for i := range uint32(30) {
		in <- segmentOf(honest, i)
	}
	close(in)
	others, left := 0, 30
	for p := range out {
		cost := time.Millisecond
		switch p.Src.Addr().String() {
		case honest:
			left--
		case laborious:
			cost *= 10
			if left > 0 {
				others++
			}
		}
		tally.add(cost)
		time.Sleep(100 * time.Microsecond) // share wants to give the next one long since
	}
	if others > 8 {
		t.Errorf("%d segments of ten times the work came between 30 of another client", others)
	}
}

func segmentOf(client string, id uint32) *queue.Packet {
	return &queue.Packet{ID: id, Src: netip.MustParseAddrPort(client + ":5000"), Dst: netip.MustParseAddrPort("203.0.113.1:1723")}
}

// One client has all it may, then three others come with a segment each: they are
// served within the next three turns, and everybody's segments stay in order.
func TestTurns(t *testing.T) {
	turns := newTurns()
	add := func(p *queue.Packet) bool { return turns.add(p.Src.Addr(), p) }
	for i := range uint32(maxWaitingClient) {
		if !add(segmentOf("10.0.0.1", i)) {
			t.Fatalf("segment %d of %d was refused", i, maxWaitingClient)
		}
	}
	if add(segmentOf("10.0.0.1", 0)) {
		t.Error("a client may have more than its share")
	}
	for i, c := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		if !add(segmentOf(c, 1000+uint32(i))) {
			t.Errorf("%s was refused because of another", c)
		}
	}
	var ids []uint32
	for l := turns.next(); l != nil; l = turns.next() {
		ids = append(ids, l.packets[0].ID)
		turns.charge(time.Millisecond)
		turns.take(l)
	}
	if len(ids) != maxWaitingClient+3 || ids[0] != 0 || ids[1] != 1000 || ids[2] != 1001 || ids[3] != 1002 {
		t.Fatalf("%d segments, first %v", len(ids), ids[:4])
	}
	for i, id := range ids[4:] {
		if id != uint32(i)+1 {
			t.Fatalf("segment %d of the first client came as number %d", id, i+1)
		}
	}
	if turns.waiting != 0 || len(turns.ring) != 0 {
		t.Errorf("left: %d waiting, %d in the ring", turns.waiting, len(turns.ring))
	}
}

// A client always has segments waiting, and each takes ten times as long as one of
// another client, which sends its next one when the last one went on. The other one's
// next segment is always the next.
func TestTurnsByWork(t *testing.T) {
	turns := newTurns()
	laborious, honest := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	add := func(client netip.Addr) { turns.add(client, segmentOf(client.String(), 1)) }
	for range maxWaitingClient {
		add(laborious)
	}
	cost := time.Duration(0)
	for turn := range 100 {
		turns.charge(cost)
		l := turns.next()
		turns.take(l)
		cost = 10 * time.Millisecond
		switch l.client {
		case laborious:
			add(laborious)
			add(honest)
		case honest:
			cost = time.Millisecond
		}
		if want := turn % 2; turn > 0 && (want == 1) != (l.client == honest) {
			t.Fatalf("turn %d is that of %v", turn, l.client)
		}
	}
}

// New clients come without end, each with one segment. They do not keep one away that
// was there before, whatever it has used.
func TestTurnsEnd(t *testing.T) {
	turns := newTurns()
	old := netip.MustParseAddr("10.0.0.1")
	turns.add(old, segmentOf("10.0.0.1", 1))
	turns.take(turns.next())
	turns.add(old, segmentOf("10.0.0.1", 2))
	fresh := func(n int) {
		turns.add(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), segmentOf("10.1.0.1", 1))
	}
	fresh(0)
	turns.charge(time.Hour) // at once as much as anybody can
	for n := 1; ; n++ {
		fresh(n)
		l := turns.next()
		turns.take(l)
		if l.client == old {
			break
		}
		turns.charge(time.Millisecond)
		if n == 1000 {
			t.Fatalf("%d others had their turn", n)
		}
	}
	for n := range 3 * maxWaiting {
		fresh(n)
		turns.take(turns.next())
		turns.charge(time.Millisecond)
	}
	if len(turns.lines) > maxWaiting+1 {
		t.Errorf("%d clients are remembered", len(turns.lines))
	}
}

// However many addresses somebody sends from, some room is left for the next one.
func TestTurnsLeaveRoom(t *testing.T) {
	turns := newTurns()
	for n := range 200 {
		client := netip.AddrFrom4([4]byte{10, 0, 1, byte(n)})
		got := 0
		for turns.add(client, segmentOf("10.0.1.1", 1)) {
			got++
		}
		if got == 0 {
			if n < 24 {
				t.Errorf("no room for client %d", n)
			}
			break
		}
	}
	if turns.waiting > maxWaiting {
		t.Errorf("%d segments wait", turns.waiting)
	}
}

// Segments go through in turn; what is too much is refused, once each; the end of
// the queue is the end of the stream.
func TestShare(t *testing.T) {
	in, out := make(chan *queue.Packet), make(chan *queue.Packet)
	refused := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		share(context.Background(), in, out, []uint16{1723}, func(*queue.Packet) { refused++ }, &tally{}, func(bool) {})
	}()
	const sent = maxWaitingClient + 50
	for i := range uint32(sent) {
		in <- segmentOf("10.0.0.1", i)
	}
	in <- &queue.Packet{ID: 7777, Src: netip.MustParseAddrPort("203.0.113.1:1723"), Dst: netip.MustParseAddrPort("10.0.0.2:5000")}
	close(in)
	var ids []uint32
	for p := range out {
		ids = append(ids, p.ID)
	}
	<-done
	if len(ids)+refused != sent+1 || refused != 50 {
		t.Errorf("%d came through, %d were refused, of %d", len(ids), refused, sent+1)
	}
	if len(ids) < 2 || ids[1] != 7777 {
		t.Errorf("the second client's segment did not come second: %v", ids[:3])
	}
}

// share ends with its context, though nobody takes what waits.
func TestShareEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	in, out := make(chan *queue.Packet), make(chan *queue.Packet)
	go share(ctx, in, out, nil, func(*queue.Packet) {}, &tally{}, func(bool) {})
	in <- segmentOf("10.0.0.1", 1)
	cancel()
	for range out { // closed
	}
}
