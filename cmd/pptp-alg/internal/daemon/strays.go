package daemon

import (
	"errors"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/queue"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// This file keeps the control connections that the kernel's rules know: those whose conntrack entries are put back when
// others remove them. Until that has happened, what their ends send comes here and goes no further. Otherwise the router
// would answer what a server says with a reset, since to the router that is a connection of its own which it does not have,
// and conntrack could give the connection of a client that speaks another port.

// note is what the daemon notes about a control connection: its alg.Connection.Note.
type note struct {
	ends  [2]end
	known bool // the kernel's rules know its flows
	stuck bool // its conntrack entry is gone, and could not be put back
	noted bool // it is among those that may have to be known, or not any more
}

func noteOf(c *alg.Connection) *note { return c.Note.(*note) }

// strays is what is to be told to the kernel's rules.
type strays struct {
	changed []*alg.Connection              // that may have to be known, or not any more
	known   map[rules.Flow]*alg.Connection // whose flows the rules know
	waiting bool                           // they are told at due
	due     nat.Deadline
}

// flowsPause is how long connections that begin and end are collected, to be told in one transaction: those of a busy router
// would take a twentieth of the daemon's time if each had its own.
const flowsPause = 100 * time.Millisecond

// flowsAtOnce is how many connections are told in one turn of the loop, of a server with all its clients that is gone.
const flowsAtOnce = 1000

// flowsOf are a connection's flows as they arrive. Two connections in different conntrack zones can have the same: the first
// that ends takes them away from the other, whose segments then are as safe as without any of this.
func flowsOf(c *alg.Connection) [2]rules.Flow {
	client, server := noteOf(c).ends[nat.Client], noteOf(c).ends[nat.Server]
	return [2]rules.Flow{{Src: client.real, Dst: server.told}, {Src: server.real, Dst: client.told}}
}

// comesBack reports whether the entry of a connection is put back when it is gone. If it is not, its ends have to learn of it.
func comesBack(c *alg.Connection) bool { return lives(c) && !noteOf(c).stuck }

// translated reports whether an end has another address or port for the other one than it has.
func (e end) translated() bool { return e.real != e.told }

// connectionChanged is alg.Config.Changed.
func (d *daemon) connectionChanged(c *alg.Connection) {
	d.journal.connectionChanged(c)
	d.review(c)
}

// review notes that a connection may have to be known from now on, or not any more.
func (d *daemon) review(c *alg.Connection) {
	if n, ok := c.Note.(*note); ok && !n.noted && n.known != comesBack(c) {
		n.noted = true
		d.strays.changed = append(d.strays.changed, c)
		d.tellLater(time.Now().Add(flowsPause))
	}
}

func (d *daemon) tellLater(at time.Time) {
	if s := &d.strays; !s.waiting {
		s.waiting = true
		d.table.Schedule(&s.due, at, d.setFlows)
	}
}

// setFlows tells the kernel's rules of connections that have begun and ended. A table that is gone is left to its keeper.
func (d *daemon) setFlows(now time.Time) {
	s := &d.strays
	s.waiting = false
	s.due.Clear()
	some := s.changed[:min(len(s.changed), flowsAtOnce)]
	var begun, ended []rules.Flow
	for _, c := range some {
		n, flows := noteOf(c), flowsOf(c)
		switch comes := comesBack(c); {
		case comes == n.known:
			continue
		case comes:
			begun = append(begun, flows[:]...)
		default:
			ended = append(ended, flows[:]...)
		}
		n.known = !n.known
	}
	err := d.tellFlows(begun, ended)
	if err == nil || errors.Is(err, rules.ErrAbsent) {
		for _, c := range some {
			noteOf(c).noted = false
			s.remember(c)
		}
		if len(s.changed) > len(some) {
			s.changed = s.changed[len(some):]
			d.tellLater(now.Add(time.Millisecond))
		} else {
			s.changed = emptiedList(s.changed)
		}
		return
	}
	for _, c := range some {
		noteOf(c).known = !comesBack(c)
	}
	d.plane.errors++
	d.tellLater(now.Add(guardPause))
	d.limited("cannot make the rules know control connections that began or forget those that ended, will try again", "error", err)
}

// tellFlows has ended flows go first: another connection may have begun between the same ends.
func (d *daemon) tellFlows(begun, ended []rules.Flow) error {
	if len(ended) > 0 {
		if err := d.plane.rules.DeleteFlows(ended...); err != nil {
			return err
		}
	}
	if len(begun) > 0 {
		return d.plane.rules.AddFlows(begun...)
	}
	return nil
}

// remember notes of whom the flows are that the rules know.
func (s *strays) remember(c *alg.Connection) {
	for _, f := range flowsOf(c) {
		switch {
		case noteOf(c).known:
			if s.known == nil {
				s.known = map[rules.Flow]*alg.Connection{}
			}
			s.known[f] = c
		case s.known[f] == c:
			delete(s.known, f)
		}
	}
}

// emptiedList is the list without what is in it. One that has held much is let go.
func emptiedList[E any](l []E) []E {
	const much = 256
	if cap(l) > much {
		return nil
	}
	clear(l)
	return l[:0]
}

// flows lists the flows that the kernel's rules are to know, and takes it that they do from now on.
func (d *daemon) flows() (flows []rules.Flow) {
	if d.alg == nil {
		return nil
	}
	flows = make([]rules.Flow, 0, 2*d.alg.Len())
	d.alg.Connections(func(c *alg.Connection) {
		if n, ok := c.Note.(*note); ok && comesBack(c) {
			two := flowsOf(c)
			flows = append(flows, two[:]...)
			n.known = true
			d.strays.remember(c)
		}
	})
	return flows
}

// strayed takes a segment of a known connection that found no conntrack entry. That this is gone the kernel has told by now, or
// it will not: not of entries that were made while no daemon was there, and not when the news was lost. So the entry is put
// back here too. The segment began in conntrack as another connection's, and cannot go on; TCP sends it again.
func (d *daemon) strayed(now time.Time, p *queue.Packet) {
	c, same := d.strays.known[rules.Flow{Src: p.Src, Dst: p.Dst}], true
	if p.Conntrack != nil {
		if entry, err := conntrack.ParseConnection(p.Conntrack); err == nil {
			c = d.strays.known[rules.Flow{Src: entry.Original.Src, Dst: entry.Original.Dst}]
			same = c == nil || entry.Zone.ID == c.Path().Zone.ID
		}
	} else if c == nil { // the user's DNAT has changed it already, and the kernel does not say from what
		d.alg.Connections(func(one *alg.Connection) {
			arrived := rules.Flow{Src: p.Src, Dst: p.Dst}
			if n, ok := one.Note.(*note); ok && (is(arrived, n.ends[nat.Client], n.ends[nat.Server]) || is(arrived, n.ends[nat.Server], n.ends[nat.Client])) {
				c = one
			}
		})
	}
	if c == nil || !same { // nobody's any more, or of another connection between addresses that are the same in another zone
		d.settle(&alg.Segment{Packet: p}, alg.Accept)
		return
	}
	verdict := alg.Drop
	if n := noteOf(c); !n.ends[nat.Client].translated() && !n.ends[nat.Server].translated() {
		// It can have been invalid to conntrack because that sees one direction only. It arrives where it belongs all the same.
		if there, err := d.plane.ct.HasConnection(d.entryOfConnection(c)); there && err == nil {
			verdict = alg.Accept
		}
	}
	if lives(c) && !d.standsStill(c) && !d.reconnect(c) {
		c.Lost(now)
	}
	d.settle(&alg.Segment{Packet: p}, verdict)
}

// is reports whether a flow is what one end sends to the other. Where the kernel does not send conntrack entries along, it may
// have been translated to the receiver already.
func is(f rules.Flow, from, to end) bool {
	return f.Src == from.real && (f.Dst == to.told || f.Dst == to.real)
}
