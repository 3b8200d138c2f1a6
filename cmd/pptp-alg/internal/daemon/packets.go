package daemon

import (
	"errors"
	"net/netip"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/queue"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// packet takes a segment from the queue.
func (d *daemon) packet(now time.Time, p *queue.Packet) {
	s := &alg.Segment{
		Seq: p.Seq, Ack: p.Ack, Flags: alg.Flags(p.Flags),
		Payload: p.Payload, Checksum: p.Checksum(), Packet: p,
	}
	c := d.find(p.Src, p.Dst, s)
	if c != nil && c.Reopens(s) {
		c.Close(now, "control connection opened anew from the same port")
		c = nil
	}
	if c == nil {
		if len(p.Payload) == 0 && !p.Flags.Has(queue.SYN) {
			d.settle(s, alg.Accept) // the end of something that we do not know
			return
		}
		var err error
		if c, err = d.open(now, p, s); err != nil {
			d.unopened(p, s, err)
			return
		}
	}
	c.Segment(now, s)
}

// find returns the connection of a segment, and says in it who sent it.
func (d *daemon) find(src, dst netip.AddrPort, s *alg.Segment) *alg.Connection {
	s.From = nat.Client
	c := d.alg.Find(alg.Flow{Client: src, Server: dst})
	if c == nil {
		s.From = nat.Server
		c = d.alg.Find(alg.Flow{Client: dst, Server: src})
	}
	return c
}

// open makes a connection of a segment that belongs to none.
func (d *daemon) open(now time.Time, p *queue.Packet, s *alg.Segment) (*alg.Connection, error) {
	var entry conntrack.Connection
	err := errNoConntrack
	if p.Conntrack != nil {
		entry, err = conntrack.ParseConnection(p.Conntrack)
	}
	came := err == nil
	if !came {
		d.counters.lookups++
		if entry, err = d.plane.ct.Lookup(p.Src, p.Dst); err != nil {
			return nil, err
		}
	}
	client, server, path := orient(entry, d.ports)
	s.From = nat.Client
	if client.real != p.Src {
		s.From = nat.Server
	}
	c, err := d.alg.Open(now, alg.Flow{Client: client.real, Server: server.real}, path)
	if err != nil {
		return nil, err
	}
	c.Note = [2]end{client, server}
	d.log.Debug("control connection", "path", describe(path), "client", client.real, "server", server.real,
		"conntrack entry came with the packet", came)
	return c, nil
}

var errNoConntrack = errors.New("no conntrack entry came with the packet")

// unopened decides about a segment whose connection can't be followed.
func (d *daemon) unopened(p *queue.Packet, s *alg.Segment, err error) {
	if errors.Is(err, nat.ErrLimit) {
		// Untranslated, its calls could harm others.
		d.counters.refusedConnections++
		client, server := p.Src, p.Dst
		if s.From == nat.Server {
			client, server = server, client
		}
		d.limited("refused a control connection", "client", client, "server", server, "error", err)
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
