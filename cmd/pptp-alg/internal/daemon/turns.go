package daemon

import (
	"container/heap"
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/queue"
)

// Segments that wait for the owner. TCP sends again what is dropped.
const (
	maxWaiting       = 4096 // of all clients
	maxWaitingClient = 256  // of one, and no more than are left for others
)

// maxOwed is how far a client may be behind the others at most for what it has used.
const maxOwed = 100 * time.Millisecond

// turns has the clients share the owner's time: the next segment is one of the client
// that has used least of it. What one client sends, however much and however laborious,
// delays a segment of another that sends little by what the owner has just begun, and
// no more. Segments of one client stay in order, and so do those of each connection.
//
// It is fair queueing with start times (Goyal and others, 1996): the clock is what a
// client has used that always had segments waiting, and who comes begins there.
type turns struct {
	lines   map[netip.Addr]*line
	ring    ring // those with segments
	waiting int
	clock   time.Duration
	number  uint64
	served  []taken // whose segments the owner has, or had, and has not been charged for
	hogs    hogs
}

// line is what one client has waiting.
type line struct {
	client  netip.Addr
	packets []*queue.Packet
	used    time.Duration // of the owner's time, as the clock counts
	cost    time.Duration // of its last segment, and so probably of the next
	since   uint64        // when it came, as a number: of equals the first one is next
	place   int           // in the ring
	window  uint64        // see hogs
	recent  time.Duration // of the owner's time, in that window
}

// taken is a segment that was taken for the owner.
type taken struct {
	line  *line
	guess time.Duration // what was charged until its cost is known
}

// ring has the line first whose turn it is (container/heap).
type ring []*line

func (r ring) Len() int { return len(r) }

func (r ring) Less(i, j int) bool {
	return r[i].used < r[j].used || r[i].used == r[j].used && r[i].since < r[j].since
}

func (r ring) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].place, r[j].place = i, j
}

func (r *ring) Push(x any) {
	l := x.(*line)
	l.place = len(*r)
	*r = append(*r, l)
}

func (r *ring) Pop() any {
	last := len(*r) - 1
	l := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return l
}

func newTurns() *turns { return &turns{lines: map[netip.Addr]*line{}} }

// add puts a segment behind its client's others. It returns false if the client
// has too many.
func (t *turns) add(client netip.Addr, p *queue.Packet) bool {
	l := t.lines[client]
	have := 0
	if l != nil {
		have = len(l.packets)
	}
	if have >= min(maxWaitingClient, maxWaiting-t.waiting) {
		return false
	}
	if l == nil {
		if len(t.lines) >= maxWaiting { // remembered for what they have used
			maps.DeleteFunc(t.lines, func(_ netip.Addr, l *line) bool { return len(l.packets) == 0 })
		}
		l = &line{client: client}
		t.lines[client] = l
	}
	l.packets = append(l.packets, p)
	t.waiting++
	if have == 0 {
		t.number++
		l.used, l.since = max(l.used, t.clock), t.number
		heap.Push(&t.ring, l)
	}
	return true
}

// next is the line whose turn it is, nil if none waits.
func (t *turns) next() *line {
	if len(t.ring) == 0 {
		return nil
	}
	return t.ring[0]
}

// take takes the first segment of a line, for the owner.
func (t *turns) take(l *line) {
	l.packets[0] = nil
	l.packets = l.packets[1:]
	t.waiting--
	t.served = append(t.served, taken{l, l.cost})
	t.number++
	l.used, l.since = l.used+l.cost, t.number // until it is known
	if len(l.packets) > 0 {
		heap.Fix(&t.ring, l.place)
		return
	}
	heap.Remove(&t.ring, l.place)
}

// charge says what the segment cost that the owner had first of those not charged for.
func (t *turns) charge(cost time.Duration) {
	if len(t.served) == 0 {
		return
	}
	l, guess := t.served[0].line, t.served[0].guess
	t.served = slices.Delete(t.served, 0, 1)
	t.hogs.add(l, cost)
	active := len(t.ring)
	if len(l.packets) == 0 {
		active++
	}
	t.clock += cost / time.Duration(active)
	l.used, l.cost = min(l.used+cost-guess, t.clock+maxOwed), cost
	switch {
	case len(l.packets) > 0:
		heap.Fix(&t.ring, l.place)
	case l.used <= t.clock && t.lines[l.client] == l:
		delete(t.lines, l.client) // it would begin at the clock anyhow
	}
}

// tally has what segments cost, by their number. The owner is never further ahead of share
// than two: it has one, and is given the next.
type tally struct {
	done  atomic.Uint64 // how many the owner has dealt with
	costs [4]atomic.Int64
}

// add is the owner's.
func (t *tally) add(cost time.Duration) {
	n := t.done.Load()
	t.costs[n%uint64(len(t.costs))].Store(int64(cost))
	t.done.Store(n + 1)
}

func (t *tally) cost(n uint64) time.Duration {
	return time.Duration(t.costs[n%uint64(len(t.costs))].Load())
}

// share reads segments from in and offers them to the owner in turn, until in is
// closed or ctx is done. What is too much for a client goes to refuse. tally has what
// each segment cost the owner.
func share(ctx context.Context, in <-chan *queue.Packet, out chan<- *queue.Packet, ports []uint16, refuse func(*queue.Packet), tally *tally, widen func(bool)) {
	defer close(out)
	t := newTurns()
	var charged uint64
	for in != nil || t.waiting > 0 {
		var offer chan<- *queue.Packet
		var head *queue.Packet
		l := t.next()
		if l != nil {
			offer, head = out, l.packets[0]
		}
		select {
		case <-ctx.Done():
			return
		case p, ok := <-in:
			switch {
			case !ok:
				in = nil
			case !t.add(clientOf(p, ports), p):
				refuse(p)
			}
		case offer <- head:
			t.take(l)
			// The segment before this one is dealt with, and if the owner was faster, this one too.
			for ; charged < tally.done.Load(); charged++ {
				t.charge(tally.cost(charged))
			}
			if wide, changed := t.hogs.look(time.Now()); changed {
				widen(wide)
			}
		}
	}
}

// clientOf is the address to which a segment is charged: the end of its
// connection that is not the server. Where a port forwarding has changed the
// port, both directions count for themselves.
func clientOf(p *queue.Packet, ports []uint16) netip.Addr {
	if slices.Contains(ports, p.Src.Port()) && !slices.Contains(ports, p.Dst.Port()) {
		return p.Dst.Addr()
	}
	return p.Src.Addr()
}

// shared starts to share the queue's segments.
func (d *daemon) shared(ctx context.Context) <-chan *queue.Packet {
	out := make(chan *queue.Packet)
	refuse := func(p *queue.Packet) {
		d.overdone.Add(1)
		_ = d.queue.Drop(p) // its failures are counted
	}
	go share(ctx, d.queue.Packets(), out, d.ports, refuse, &d.tally, widen)
	return out
}
