package daemon

import (
	"errors"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/cmd/pptp-alg/internal/queue"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// packet takes a segment from the queue.
func (d *daemon) packet(now time.Time, p *queue.Packet) {
	d.busy(now, 1)
	if p.Prerouting {
		d.strayed(now, p)
		return
	}
	s := &alg.Segment{
		Seq: p.Seq, Ack: p.Ack, Flags: alg.Flags(p.Flags),
		Payload: p.Payload, Checksum: p.Checksum(), Packet: p,
	}
	way := d.cameWith(p)
	c := d.find(p, way, s)
	if c != nil && d.standsStill(c) {
		d.settle(s, alg.Drop) // TCP sends it again
		return
	}
	if c == nil && len(p.Payload) == 0 && !p.Flags.Has(queue.SYN) {
		d.settle(s, alg.Accept) // the end of something that we do not know
		return
	}
	if c == nil || c.Reopens(s) {
		var err error
		if c, err = d.open(now, p, way, s); err != nil {
			d.unopened(now, p, s, err)
			return
		}
	}
	if n := noteOf(c); n.stuck { // its entry is there after all
		n.stuck = false
		d.review(c)
	}
	if w, ok := d.dropped[c]; ok {
		d.settle(s, w.verdict(s))
		return
	}
	d.observed(now, c, s, p)
}

// way is a control connection as conntrack has it.
type way struct {
	client, server end
	path           nat.Path
	helper         string // name of the connection's conntrack helper
}

func (w *way) flow(zone nat.Zone) alg.Flow {
	return alg.Flow{Client: w.client.real, Server: w.server.real, Zone: zone}
}

// cameWith returns what the kernel sent along with the packet, or nil.
func (d *daemon) cameWith(p *queue.Packet) *way {
	if p.Conntrack == nil {
		return nil
	}
	entry, err := conntrack.ParseConnection(p.Conntrack)
	if err != nil {
		return nil
	}
	w := way{helper: entry.Helper}
	w.client, w.server, w.path = orient(entry, d.ports)
	return &w
}

// find returns the connection of a segment, and says in it who sent it. Only
// the conntrack entry tells apart connections with equal ends in several zones.
func (d *daemon) find(p *queue.Packet, w *way, s *alg.Segment) *alg.Connection {
	if w != nil {
		s.From = sender(w, p)
		if c := d.alg.Find(w.flow(w.path.Zone)); c != nil {
			return c
		}
	}
	s.From = nat.Client
	c := d.alg.Find(alg.Flow{Client: p.Src, Server: p.Dst})
	if c == nil {
		s.From = nat.Server
		c = d.alg.Find(alg.Flow{Client: p.Dst, Server: p.Src})
	}
	return c
}

func sender(w *way, p *queue.Packet) nat.Side {
	if w.client.real == p.Src {
		return nat.Client
	}
	return nat.Server
}

// open makes a connection of a segment that belongs to none.
func (d *daemon) open(now time.Time, p *queue.Packet, w *way, s *alg.Segment) (*alg.Connection, error) {
	came := w != nil
	var zone nat.Zone
	if came {
		zone = w.path.Zone
	} else {
		d.counters.lookups++
		entry, err := d.plane.ct.Lookup(p.Src, p.Dst)
		if err != nil {
			return nil, err
		}
		w = &way{helper: entry.Helper}
		w.client, w.server, w.path = orient(entry, d.ports)
	}
	s.From = sender(w, p)
	c, err := d.alg.Open(now, w.flow(zone), w.path)
	if err != nil {
		return nil, err
	}
	c.Note = &note{ends: [2]end{w.client, w.server}}
	d.review(c)
	if now.Sub(d.anchor.reviewed) >= anchorReview {
		d.reviewAnchor(now)
	}
	d.tellConnection(now, news.ConnectionOpened, c)
	if w.helper == conntrack.KernelHelper && !d.detached(p, c) {
		c.Ignore(now, d.kernelHelped(w.path))
	}
	d.log.Debug("control connection", "path", describe(w.path), "client", w.client.real, "server", w.server.real,
		"conntrack entry came with the packet", came)
	return c, nil
}

// unopened decides about a segment whose connection can't be followed.
func (d *daemon) unopened(now time.Time, p *queue.Packet, s *alg.Segment, err error) {
	twin := errors.Is(err, conntrack.ErrAmbiguous) && p.Flags.Has(queue.SYN)
	if errors.Is(err, nat.ErrLimit) || twin {
		// Untranslated, its calls could harm others. One that looks like another
		// in a different zone would take that one's place.
		d.counters.refusedConnections++
		client, server := p.Src, p.Dst
		if s.From == nat.Server {
			client, server = server, client
		}
		d.connectionRefused(now, client, server, err)
		d.settle(s, alg.Drop)
		return
	}
	d.counters.untracked++
	d.limited("cannot find the conntrack entry of a control connection; it passes untranslated",
		"source", p.Src, "destination", p.Dst, "error", err)
	d.settle(s, alg.Accept)
}

// settle gives the verdict on a segment. It is alg.Config.Decide.
func (d *daemon) settle(s *alg.Segment, v alg.Verdict) {
	p := s.Packet.(*queue.Packet)
	d.journal.flush(time.Now())
	var err error
	switch {
	case v == alg.Drop:
		err = d.queue.Drop(p)
	case s.Changed:
		p.SetChecksum(s.Checksum)
		err = d.queue.AcceptModified(p)
	default:
		err = d.queue.Accept(p)
	}
	if err != nil && !errors.Is(err, queue.ErrClosed) {
		d.limited("cannot give a verdict", "source", p.Src, "destination", p.Dst, "error", err)
	}
}
