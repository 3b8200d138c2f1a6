package replay

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/pcap"
	"pptp-alg/nat"
)

// Options of a Replay.
type Options struct {
	Ports  []uint16   // of control connections
	Public netip.Addr // clients are masqueraded behind it; not valid: no NAT
	Table  nat.Config // its Notify is not used
	Seed   uint64     // for the Call IDs that are chosen
	Out    *pcap.Writer
	Report func(*Event) // may be nil
}

// Replay is one run over a capture.
type Replay struct {
	o      Options
	now    time.Time // the capture's clock; it never goes back
	first  time.Time
	number int

	table *nat.Table
	alg   *alg.ALG

	conns   map[alg.Flow]*conn // the newest of each flow
	all     []*conn
	ports   map[portKey]alg.Flow // ports of the public address that are in use
	opened  map[uint32]*conn     // by the client's initial sequence number
	byTable map[*nat.Connection]*conn
	calls   map[uint64]*call
	inOrder []*call
	flows   map[greKey]*greFlow
	strays  map[greKey]*stray

	waiting []Event // of calls, until the messages that caused them are reported
	floods  map[string]int
	recent  [64]sighting
	links   map[pcap.LinkType]bool
	counts  Counters
	err     error // of writing
	over    bool
}

// Counters of what was seen.
type Counters struct {
	Packets      int `json:"packets"`
	NotIPv4      int `json:"not_ipv4"`
	Other        int `json:"other"` // IPv4 that is not PPTP's
	Control      int `json:"control"`
	GRE          int `json:"gre"`          // of calls
	StrayGRE     int `json:"stray_gre"`    // enhanced GRE of no call that is known
	OtherGRE     int `json:"other_gre"`    // GRE that is not PPTP's
	Malformed    int `json:"malformed"`    // packets that can't be read
	Cut          int `json:"cut"`          // control segments that the capture cut
	Fragments    int `json:"fragments"`    // IP fragments of GRE and TCP
	Twice        int `json:"twice"`        // packets seen again behind a router
	Backwards    int `json:"backwards"`    // packets whose time lies before that of one before
	Changed      int `json:"changed"`      // control segments that the router changes
	Dropped      int `json:"dropped"`      // control segments that it drops; they are sent again
	UnknownLinks int `json:"unknown_link"` // packets of link types that can't be read
}

// conn is a control connection of the capture.
type conn struct {
	n        int
	flow     alg.Flow
	told     netip.AddrPort // what the server sees of the client
	alg      *alg.Connection
	refused  error // why the table did not take it
	streams  [2]stream
	isn      uint32
	syn      bool // the client's SYN was seen
	answered bool // by the server, with anything
	reset    bool // before it began
	syns     int
	cut      int
	same     *conn // the same connection on the other side of a NAT
	first    time.Time
	last     time.Time
}

type portKey struct {
	port   uint16
	server netip.AddrPort
}

// New returns a Replay of nothing yet.
func New(o Options) *Replay {
	r := &Replay{
		o: o, conns: map[alg.Flow]*conn{}, ports: map[portKey]alg.Flow{}, opened: map[uint32]*conn{},
		byTable: map[*nat.Connection]*conn{}, calls: map[uint64]*call{},
		flows: map[greKey]*greFlow{}, strays: map[greKey]*stray{},
		floods: map[string]int{}, links: map[pcap.LinkType]bool{},
	}
	o.Table.Notify = r.callEvent
	r.table = nat.NewTable(o.Table, plane{}, rand.New(rand.NewPCG(o.Seed, o.Seed)))
	r.alg = alg.New(alg.Config{Decide: r.decide, Notify: r.connectionEvent}, r.table)
	return r
}

// plane is the data plane: there is none, so nothing is in anybody's way.
type plane struct{}

func (plane) Open(*nat.Mapping) error  { return nil }
func (plane) Renew(*nat.Mapping) error { return nil }
func (plane) Close(*nat.Mapping)       {}
func (plane) Free(*nat.Mapping)        {}

// Packet takes the next packet of the capture. An error is one of writing.
func (r *Replay) Packet(p pcap.Packet) error {
	r.number++
	r.counts.Packets++
	r.clock(p.Time)
	if !p.Link.Known() {
		r.counts.UnknownLinks++
		if !r.links[p.Link] {
			r.links[p.Link] = true
			r.report(Event{Kind: KindNote, Text: fmt.Sprintf("packets of link type %d are passed over: it is not known", p.Link)})
		}
		return r.err
	}
	d, ok, err := packetIP(&p)
	switch {
	case !ok:
		r.counts.NotIPv4++
	case err != nil:
		r.malformed(Event{Text: err.Error()})
	case d.protocol != protocolTCP && d.protocol != protocolGRE && d.protocol != protocolICMP:
		r.counts.Other++
	case d.protocol != protocolICMP && r.twice(&d):
		r.counts.Twice++
		if r.counts.Twice == 1 {
			r.report(Event{Kind: KindNote, Text: "packets are in the capture twice, before and behind a router: each counts once"})
		}
	case d.fragment:
		r.fragment(&d)
	case d.protocol == protocolTCP:
		r.tcp(&d)
	case d.protocol == protocolGRE:
		r.gre(&d)
	default:
		r.icmp(&d)
	}
	return r.err
}

// maxSpan bounds the time of a capture: what is farther from its beginning is no
// time.
const maxSpan = 50 * 365 * 24 * time.Hour

// clock lets the capture's time pass.
func (r *Replay) clock(t time.Time) {
	if r.number == 1 {
		r.first, r.now = t, t
	}
	switch {
	case t.Before(r.now):
		r.counts.Backwards++
		return
	case t.Sub(r.first) > maxSpan:
		return
	}
	for {
		next, ok := r.table.Next()
		if !ok || next.After(t) {
			break
		}
		if next.After(r.now) {
			r.now = next
		}
		r.table.Expire(r.now)
		r.flush()
	}
	r.now = t
}

func (r *Replay) malformed(e Event) {
	r.counts.Malformed++
	e.Kind = KindMalformed
	r.alike(e)
}

// sighting is what packets have that are the same one, before and behind a
// router. Only the time to live differs.
type sighting struct {
	src, dst netip.Addr
	id       uint16
	protocol byte
	ttl      byte
	total    int
	start    [16]byte
}

// twice reports whether the packet was seen before, on the other side of a
// router that forwarded it.
func (r *Replay) twice(d *datagram) bool {
	s := sighting{src: d.src, dst: d.dst, id: d.id, protocol: d.protocol, total: d.total}
	copy(s.start[:], d.payload())
	for i := range r.recent {
		old := r.recent[i]
		ttl := old.ttl
		old.ttl = 0
		if old == s && ttl != d.ttl {
			return true
		}
	}
	s.ttl = d.ttl
	r.recent[r.number%len(r.recent)] = s
	return false
}

// fragment takes note of a part of a packet. The kernel puts such packets
// together before the daemon sees them; here only the first part of GRE counts.
func (r *Replay) fragment(d *datagram) {
	what := "GRE"
	if d.protocol != protocolGRE {
		what = "TCP"
		b := d.payload()
		if d.protocol != protocolTCP || !d.first || len(b) < 4 || !r.control(binary.BigEndian.Uint16(b)) && !r.control(binary.BigEndian.Uint16(b[2:])) {
			r.counts.Other++
			return
		}
		what = "a control connection"
	}
	r.counts.Fragments++
	r.alike(Event{Kind: KindFragment, Text: fmt.Sprintf("IP fragment of %s, %v > %v: a router puts these together first, this replay does not", what, d.src, d.dst)})
	if d.protocol == protocolGRE && d.first {
		r.gre(d)
	}
}

func (r *Replay) control(port uint16) bool { return slices.Contains(r.o.Ports, port) }

// tcp takes a whole TCP segment.
func (r *Replay) tcp(d *datagram) {
	b := d.payload()
	if len(b) < 4 {
		r.malformed(Event{Text: errShort.Error()})
		return
	}
	src := netip.AddrPortFrom(d.src, binary.BigEndian.Uint16(b))
	dst := netip.AddrPortFrom(d.dst, binary.BigEndian.Uint16(b[2:]))
	if !r.control(src.Port()) && !r.control(dst.Port()) {
		r.counts.Other++
		return
	}
	r.counts.Control++
	size := 0
	if len(b) >= tcpHeader {
		size = int(b[12]>>4) * 4
	}
	if size < tcpHeader || size > d.total-d.header {
		err := errTCP
		if len(b) < tcpHeader {
			err = errShort
		}
		r.malformed(Event{Text: fmt.Sprintf("control connection %v > %v: %v", src, dst, err)})
		return
	}
	s := &segment{number: r.number, ip: make([]byte, d.total), captured: len(d.bytes), data: d.header + size}
	copy(s.ip, d.bytes)
	s.Segment = alg.Segment{
		Seq: binary.BigEndian.Uint32(b[4:]), Ack: binary.BigEndian.Uint32(b[8:]), Flags: alg.Flags(b[13]),
		Checksum: binary.BigEndian.Uint16(b[16:]), Payload: s.ip[s.data:], Packet: s,
	}
	r.segment(s, src, dst)
}

// find finds the connection of a segment, or begins one, and says who sent it.
func (r *Replay) find(s *segment, src, dst netip.AddrPort) *conn {
	flow, from := alg.Flow{Client: src, Server: dst}, nat.Client
	back := alg.Flow{Client: dst, Server: src}
	request := s.Flags&alg.SYN != 0 && s.Flags&alg.ACK == 0
	answer := s.Flags&alg.SYN != 0 && s.Flags&alg.ACK != 0
	switch {
	case r.control(src.Port()) && !r.control(dst.Port()),
		r.control(src.Port()) && r.control(dst.Port()) && !request && (answer || r.conns[back] != nil):
		flow, from = back, nat.Server
	}
	s.From = from
	c := r.conns[flow]
	if c != nil {
		again := request && (c.syn && c.isn != s.Seq || !c.syn && c.alg != nil && c.alg.Reopens(&s.Segment))
		gone := c.alg != nil && !r.live(c) && (len(s.Payload) > 0 || s.Flags&alg.SYN != 0)
		if !again && !gone && (request || c.alg == nil || !c.alg.Reopens(&s.Segment)) {
			return c
		}
	}
	c = &conn{n: len(r.all) + 1, flow: flow, told: flow.Client, first: r.now}
	for side := range c.streams {
		c.streams[side].conn, c.streams[side].side = c, nat.Side(side)
	}
	if r.o.Public.IsValid() {
		c.told = r.masquerade(flow)
	}
	r.conns[flow] = c
	r.all = append(r.all, c)
	text := fmt.Sprintf("control connection %v > %v", flow.Client, flow.Server)
	if c.told != flow.Client {
		text += fmt.Sprintf(", which the server sees as %v", c.told)
	}
	if s.Flags&alg.SYN == 0 {
		text += ", already open"
	}
	r.report(Event{Kind: KindConnection, Connection: c.n, Text: text})
	return c
}

// live reports whether the ALG still knows the connection: it forgets those that
// were closed after a while.
func (r *Replay) live(c *conn) bool { return c.alg != nil && r.alg.Find(c.flow) == c.alg }

// masquerade chooses the port that a client has at the public address: its own
// where that is free.
func (r *Replay) masquerade(f alg.Flow) netip.AddrPort {
	if f.Client.Addr() == r.o.Public {
		return f.Client
	}
	port := f.Client.Port()
	for range 1 << 16 {
		k := portKey{port, f.Server}
		if owner, taken := r.ports[k]; !taken || owner == f {
			r.ports[k] = f
			break
		}
		if port++; port < 1024 {
			port = 1024
		}
	}
	return netip.AddrPortFrom(r.o.Public, port)
}

// segment takes a segment of a control connection.
func (r *Replay) segment(s *segment, src, dst netip.AddrPort) {
	c := r.find(s, src, dst)
	s.conn, c.last = c, r.now
	if s.captured < len(s.ip) {
		r.counts.Cut++
		if c.cut++; c.cut == 1 {
			r.report(c.about(KindNote, s.From, "the capture cut %d bytes off this segment: they are taken for zeros (capture with tcpdump -s 0)", len(s.ip)-s.captured))
		}
	}
	if s.From == nat.Server {
		c.answered = true
	}
	if r.o.Out != nil && s.From == nat.Server {
		s.outside, s.outsideSum = slices.Clone(s.Payload), s.Checksum
	}
	r.begins(c, s)

	// What the daemon's rules queue: the rest never leaves the kernel.
	seen := len(s.Payload) > 0 || s.Flags&(alg.FIN|alg.RST) != 0 || s.Flags&alg.SYN != 0 && s.Flags&alg.ACK != 0
	if seen && c.alg == nil && c.refused == nil && (len(s.Payload) > 0 || s.Flags&alg.SYN != 0) {
		r.open(c)
	}
	var messages [][]byte
	if s.Flags&alg.ACK != 0 && s.Flags&alg.RST == 0 {
		c.streams[s.From.Other()].acknowledged(s.Ack)
	}
	messages = c.streams[s.From].take(s)
	switch {
	case seen && r.live(c):
		c.alg.Segment(r.now, &s.Segment)
	case c.refused != nil:
		r.decide(&s.Segment, alg.Drop)
	default:
		r.decide(&s.Segment, alg.Accept)
	}
	for _, m := range messages {
		e := c.message(s.From, m)
		r.report(e)
	}
	r.flush()
}

// begins takes note of the beginning of a TCP connection.
func (r *Replay) begins(c *conn, s *segment) {
	switch {
	case s.From == nat.Client && s.Flags&(alg.SYN|alg.ACK) == alg.SYN:
		c.isn, c.syn = s.Seq, true
		c.syns++
		if other := r.opened[s.Seq]; c.syns == 1 && other != nil && other != c && other.flow.Client != c.flow.Client && c.first.Sub(other.first) < time.Second {
			c.same = other
			r.report(c.about(KindNote, s.From, "it is connection #%d on the other side of a NAT: the capture has both sides, each is replayed by itself", other.n))
		}
		r.opened[s.Seq] = c
	case s.Flags&alg.RST != 0 && c.alg == nil:
		c.reset = true
		r.report(c.about(KindConnection, s.From, "refused: reset by the %v", s.From))
	}
}

// open gives the connection to the ALG.
func (r *Replay) open(c *conn) {
	path := nat.Path{Hosts: [2]nat.Host{
		nat.Client: {Real: c.flow.Client.Addr(), Told: c.told.Addr()},
		nat.Server: {Real: c.flow.Server.Addr(), Told: c.flow.Server.Addr()},
	}}
	a, err := r.alg.Open(r.now, c.flow, path)
	r.flush() // what that ended
	if err != nil {
		c.refused = err
		r.report(c.about(KindConnection, nat.Client, "refused by the router: %v", err))
		return
	}
	c.alg = a
	r.byTable[a.Calls()] = c
	a.Note = c
}

// connectionEvent is alg.Config.Notify.
func (r *Replay) connectionEvent(e alg.Event) {
	c, ok := e.Connection.Note.(*conn)
	if !ok || r.over {
		return
	}
	switch e.Kind {
	case alg.ConnectionUnparsed:
		text := "not understood, passes as it is: " + e.Connection.Unparsed
		if c.cut > 0 {
			text += " (the capture cut segments of it)"
		}
		r.waiting = append(r.waiting, Event{Kind: KindConnection, Connection: c.n, Text: text})
	case alg.ConnectionClosed:
		r.waiting = append(r.waiting, Event{Kind: KindConnection, Connection: c.n, Text: "ended: " + e.Connection.Reason})
	}
}

// flush reports what has waited for the messages that caused it.
func (r *Replay) flush() {
	waiting := r.waiting
	r.waiting = nil
	for _, e := range waiting {
		r.report(e)
	}
}

// Finish ends the replay and says what came of it. What still waits goes on as
// it is.
func (r *Replay) Finish() (Summary, error) {
	s := r.summary()
	r.over = true
	var open []*alg.Connection
	r.alg.Connections(func(c *alg.Connection) { open = append(open, c) })
	slices.SortFunc(open, func(a, b *alg.Connection) int { return a.Note.(*conn).n - b.Note.(*conn).n })
	for _, c := range open {
		c.Close(r.now, "the capture ends")
	}
	if r.err != nil {
		return s, fmt.Errorf("write the translated capture: %w", r.err)
	}
	return s, nil
}

// decide is alg.Config.Decide: it writes a segment as it is on the server's side
// of the router.
func (r *Replay) decide(a *alg.Segment, v alg.Verdict) {
	s := a.Packet.(*segment)
	switch {
	case v == alg.Drop:
		r.counts.Dropped++
	case a.Changed:
		r.counts.Changed++
	}
	if r.o.Out == nil || v == alg.Drop && s.From == nat.Client {
		return
	}
	r.write(s)
}
