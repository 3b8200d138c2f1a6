package daemon

import (
	"context"
	"net/netip"
	"slices"

	"pptp-alg/cmd/pptp-alg/internal/queue"
)

// Segments that wait for the owner. TCP sends again what is dropped.
const (
	maxWaiting       = 4096 // of all clients
	maxWaitingClient = 256  // of one, and no more than are left for others
)

// turns has the clients take turns at the owner, a segment each. What one
// client sends, however much and however laborious, delays a segment of another
// by one turn at most. Segments of one client stay in order, and so do those of
// each connection.
type turns struct {
	lines   map[netip.Addr]*line
	ring    []*line // those with segments, in the order of their turns
	waiting int
}

// line is what one client has waiting.
type line struct {
	client  netip.Addr
	packets []*queue.Packet
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
		l = &line{client: client}
		t.lines[client] = l
		t.ring = append(t.ring, l)
	}
	l.packets = append(l.packets, p)
	t.waiting++
	return true
}

// head is the segment whose turn it is, nil if none waits.
func (t *turns) head() *queue.Packet {
	if len(t.ring) == 0 {
		return nil
	}
	return t.ring[0].packets[0]
}

// pop takes the head away, and has its client wait for the others.
func (t *turns) pop() {
	l := t.ring[0]
	l.packets[0] = nil
	l.packets = l.packets[1:]
	t.ring[0] = nil
	t.ring = t.ring[1:]
	t.waiting--
	if len(l.packets) > 0 {
		t.ring = append(t.ring, l)
	} else {
		delete(t.lines, l.client)
	}
}

// share reads segments from in and offers them to the owner in turn, until in is
// closed or ctx is done. What is too much for a client goes to refuse.
func share(ctx context.Context, in <-chan *queue.Packet, out chan<- *queue.Packet, ports []uint16, refuse func(*queue.Packet)) {
	defer close(out)
	t := newTurns()
	for in != nil || t.waiting > 0 {
		offer := out
		head := t.head()
		if head == nil {
			offer = nil
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
			t.pop()
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
	go share(ctx, d.queue.Packets(), out, d.ports, func(p *queue.Packet) {
		d.overdone.Add(1)
		_ = d.queue.Drop(p) // its failures are counted
	})
	return out
}
