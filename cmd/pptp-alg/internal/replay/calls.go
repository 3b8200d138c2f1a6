package replay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"pptp-alg/nat"
)

// call is a call of the capture.
type call struct {
	nat  *nat.Call
	conn *conn
	sent [2]Seen // GRE, by the side that sent it
	icmp string  // an error about its GRE
}

// Seen is GRE of one direction.
type Seen struct {
	Packets uint64    `json:"packets"`
	Bytes   uint64    `json:"bytes"` // with the IP header
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
}

func (s *Seen) count(now time.Time, length int) {
	if s.Packets++; s.Packets == 1 {
		s.First = now
	}
	s.Bytes += uint64(length)
	s.Last = now
}

// greKey is what GRE has in the capture: the Call ID is the receiver's own.
type greKey struct {
	src, dst netip.Addr
	callID   uint16
}

// greFlow is the GRE of a call towards one side.
type greFlow struct {
	call    *call
	towards nat.Side
	told    uint16
}

// stray is enhanced GRE of no call.
type stray struct {
	key  greKey
	seen Seen
}

// maxStrays bounds them.
const maxStrays = 1000

// callEvent is nat.Config.Notify.
func (r *Replay) callEvent(e nat.Event) {
	if r.over {
		return
	}
	c := r.calls[e.Call.ID]
	if c == nil {
		c = &call{nat: e.Call, conn: r.byTable[e.Call.Connection]}
		if c.conn == nil {
			return
		}
		r.calls[e.Call.ID] = c
		r.inOrder = append(r.inOrder, c)
	}
	r.index(c)
	text := fmt.Sprintf("call %d ", e.Call.ID)
	switch e.Kind {
	case nat.CallRequested:
		text += fmt.Sprintf("requested by the %v", e.Call.Initiator)
	case nat.CallEstablished:
		text += "established"
	case nat.CallEnded:
		text += "ended: " + e.Call.Reason
	}
	r.waiting = append(r.waiting, Event{Kind: KindCall, Connection: c.conn.n, Call: e.Call.ID, Text: text})
}

// index makes the GRE of a call known by what it has in the capture.
func (r *Replay) index(c *call) {
	for side := nat.Client; side <= nat.Server; side++ {
		m := c.nat.End(side)
		if m == nil || !m.Open() {
			continue
		}
		h := c.nat.Connection.Path.Hosts
		k := greKey{h[side.Other()].Real, h[side].Real, m.Real}
		if f := r.flows[k]; f != nil && f.call == c {
			continue
		}
		r.flows[k] = &greFlow{c, side, m.Told}
	}
}

// gre takes a packet of protocol 47.
func (r *Replay) gre(d *datagram) {
	g := parseGRE(d.payload())
	if g.err != "" {
		r.malformed(Event{Text: fmt.Sprintf("%v > %v: %s", d.src, d.dst, g.err)})
		return
	}
	if !g.enhanced {
		r.counts.OtherGRE++
		return
	}
	f := r.flows[greKey{d.src, d.dst, g.callID}]
	if f == nil {
		// An end's Call ID is known before the call is up.
		for _, c := range r.inOrder[max(0, len(r.inOrder)-16):] {
			r.index(c)
		}
		f = r.flows[greKey{d.src, d.dst, g.callID}]
	}
	r.writeGRE(d, f)
	if f == nil {
		r.stray(d, g.callID)
		return
	}
	r.counts.GRE++
	c, from := f.call, f.towards.Other()
	c.sent[from].count(r.now, d.total)
	if c.sent[from].Packets == 1 {
		e := c.conn.about(KindGRE, from, "call %d: first GRE from the %v, Call ID %d", c.nat.ID, from, g.callID)
		e.Call = c.nat.ID
		r.report(e)
	}
}

// stray takes GRE of no call that is known.
func (r *Replay) stray(d *datagram, id uint16) {
	r.counts.StrayGRE++
	k := greKey{d.src, d.dst, id}
	s := r.strays[k]
	if s == nil {
		if len(r.strays) == maxStrays {
			return
		}
		s = &stray{key: k}
		r.strays[k] = s
		r.alike(Event{Kind: KindGRE, Text: fmt.Sprintf("GRE of no call that is known: %v > %v, Call ID %d", d.src, d.dst, id)})
	}
	s.seen.count(r.now, d.total)
}

// ICMP's type and codes for a destination that can't be reached (RFC 792, RFC
// 1812, section 5.2.7.1).
const icmpUnreachable = 3

var icmpCodes = map[byte]string{
	0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
	4: "too large for a link behind it", 9: "administratively prohibited", 10: "administratively prohibited",
	13: "administratively prohibited: a firewall rejects it",
}

// icmp looks for errors about PPTP's packets.
func (r *Replay) icmp(d *datagram) {
	b := d.payload()
	if len(b) < 8+ipHeader || b[0] != icmpUnreachable || d.fragment {
		r.counts.Other++
		return
	}
	quoted, err := parseIP(b[8:], 1<<16)
	q := quoted.payload
	what := ""
	switch {
	case err != nil:
	case quoted.protocol == protocolGRE:
		what = "GRE (protocol 47)"
		if g := parseGRE(q()); g.enhanced {
			what = fmt.Sprintf("GRE with Call ID %d", g.callID)
		}
	case quoted.protocol == protocolTCP && len(q()) >= 4 && (r.control(binary.BigEndian.Uint16(q())) || r.control(binary.BigEndian.Uint16(q()[2:]))):
		what = "the control connection"
	}
	if what == "" {
		r.counts.Other++
		return
	}
	word, ok := icmpCodes[b[1]]
	if !ok {
		word = fmt.Sprintf("unreachable, code %d", b[1])
	}
	r.alike(Event{Kind: KindICMP, Text: fmt.Sprintf("%v says about %s from %v to %v: %s", d.src, what, quoted.src, quoted.dst, word)})
	for _, c := range r.inOrder {
		h := c.nat.Connection.Path.Hosts
		if quoted.protocol == protocolGRE && c.icmp == "" && b[1] != 4 &&
			(h[nat.Client].Real == quoted.src && h[nat.Server].Real == quoted.dst || h[nat.Server].Real == quoted.src && h[nat.Client].Real == quoted.dst) {
			c.icmp = fmt.Sprintf("%v answered GRE with ICMP: %s", d.src, word)
		}
	}
}
