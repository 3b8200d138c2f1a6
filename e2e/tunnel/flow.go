package tunnel

import (
	"time"

	"pptp-alg/e2e/wire"
)

// FlowConfig sets the sizes and times of a Flow; the zero value is usable.
type FlowConfig struct {
	// SendWindow is how many packets the other side takes unacknowledged: what
	// it says when a call is set up, whatever stands here. ReceiveWindow is how
	// far ahead of a missing one this side keeps others; a Client and a Server
	// tell it to the other side.
	SendWindow, ReceiveWindow int
	Hold                      time.Duration // how long to wait for a missing packet; default 100 ms
	AckDelay                  time.Duration // how long an acknowledgement waits for company; default 20 ms
	Queue                     int           // packets that wait for the window; default 256
}

func (c FlowConfig) withDefaults() FlowConfig {
	for _, d := range []struct {
		field *int
		value int
	}{{&c.SendWindow, 64}, {&c.ReceiveWindow, 64}, {&c.Queue, 256}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Hold == 0 {
		c.Hold = 100 * time.Millisecond
	}
	if c.AckDelay == 0 {
		c.AckDelay = 20 * time.Millisecond
	}
	return c
}

// Limits of the adaptive time-out (RFC 2637 section 4.4).
const (
	firstTimeout = time.Second
	leastTimeout = 200 * time.Millisecond
	mostTimeout  = 8 * time.Second
)

// FlowStats counts what a Flow saw.
type FlowStats struct {
	Sent, Received int // packets with a payload
	Acks           int // acknowledgements received, alone or not
	Late           int // packets that came after they had been given up, or twice
	Reordered      int // packets that waited for an earlier one
	Lost           int // numbers given up
	Timeouts       int // of the sender's window
	MostOut        int // packets sent and not acknowledged, at their most
	Overflow       int // packets dropped because too many waited
	Foreign        int // acknowledgements of what was never sent
}

// Flow is both directions of one call's GRE, as one end sees them.
type Flow struct {
	cfg   FlowConfig
	stats FlowStats

	// sending
	next, acked uint32 // the next number; the first not acknowledged
	window      int
	credit      int // acknowledged since the window last grew
	queue       [][]byte
	waiting     time.Time // when what is out is taken for lost; zero: nothing is
	rtt, dev    time.Duration
	sentAt      time.Time // of packet timed
	timed       uint32

	// receiving
	expected uint32
	held     map[uint32][]byte
	giveUp   time.Time // the missing packet; zero: none is missing
	owes     int       // packets not acknowledged yet
	ackAt    time.Time

	packets  []wire.GRE
	payloads [][]byte
}

// NewFlow makes a Flow whose first number is 0, in both directions (RFC 2637
// section 4.2).
func NewFlow(cfg FlowConfig) *Flow {
	cfg = cfg.withDefaults()
	// Section 4.4.1: the window begins at half its size.
	return &Flow{cfg: cfg, window: max(1, cfg.SendWindow/2), held: map[uint32][]byte{}}
}

// Stats gives the counters.
func (f *Flow) Stats() FlowStats { return f.stats }

// Take gives the packets to send and the payloads that arrived, in order.
func (f *Flow) Take() ([]wire.GRE, [][]byte) {
	packets, payloads := f.packets, f.payloads
	f.packets, f.payloads = nil, nil
	return packets, payloads
}

// Send sends a payload, at once or when the window allows it. Nothing is sent
// twice: that is up to what is carried.
func (f *Flow) Send(now time.Time, payload []byte) {
	if len(f.queue) >= f.cfg.Queue {
		f.stats.Overflow++
		return
	}
	f.queue = append(f.queue, payload)
	f.push(now)
}

func (f *Flow) push(now time.Time) {
	for len(f.queue) > 0 && int(f.next-f.acked) < f.window {
		g := wire.GRE{HasSeq: true, Sequence: f.next, Payload: f.queue[0]}
		f.queue = f.queue[1:]
		if f.next == f.acked { // nothing was out: this one is timed
			f.timed, f.sentAt = f.next, now
			f.waiting = now.Add(f.timeout())
		}
		f.next++
		f.stats.Sent++
		f.stats.MostOut = max(f.stats.MostOut, int(f.next-f.acked))
		f.packets = append(f.packets, f.acknowledge(g))
	}
}

// acknowledge adds what is due to a packet.
func (f *Flow) acknowledge(g wire.GRE) wire.GRE {
	if f.owes > 0 {
		g.HasAck, g.Ack = true, f.expected-1
		f.owes, f.ackAt = 0, time.Time{}
	}
	return g
}

func (f *Flow) timeout() time.Duration {
	if f.rtt == 0 {
		return firstTimeout
	}
	return min(max(f.rtt+4*f.dev, leastTimeout), mostTimeout)
}

// Receive takes a packet of the call.
func (f *Flow) Receive(now time.Time, g wire.GRE) {
	if g.HasAck {
		f.receiveAck(now, g.Ack)
	}
	if g.HasSeq {
		f.receivePayload(now, g)
	}
}

func (f *Flow) receiveAck(now time.Time, ack uint32) {
	f.stats.Acks++
	if int32(ack-f.next) >= 0 {
		f.stats.Foreign++
		return
	}
	fresh := int32(ack + 1 - f.acked)
	if fresh <= 0 {
		return
	}
	if int32(ack-f.timed) >= 0 && !f.sentAt.IsZero() {
		f.measure(now.Sub(f.sentAt))
		f.sentAt = time.Time{}
	}
	f.acked = ack + 1
	// One more for each window that went through (section 4.4.1).
	if f.credit += int(fresh); f.credit >= f.window {
		f.credit = 0
		f.window = min(f.window+1, f.cfg.SendWindow)
	}
	f.waiting = time.Time{}
	if f.acked != f.next {
		f.timed, f.sentAt = f.next, time.Time{}
		f.waiting = now.Add(f.timeout())
	}
	f.push(now)
}

// measure updates the estimate of the round trip (section 4.4.2: gains of an
// eighth and a quarter).
func (f *Flow) measure(sample time.Duration) {
	if f.rtt == 0 {
		f.rtt, f.dev = sample, sample/2
		return
	}
	difference := sample - f.rtt
	f.rtt += difference / 8
	f.dev += (difference.Abs() - f.dev) / 4
}

func (f *Flow) receivePayload(now time.Time, g wire.GRE) {
	ahead := int32(g.Sequence - f.expected)
	if _, twice := f.held[g.Sequence]; ahead < 0 || twice {
		f.stats.Late++
		return
	}
	f.stats.Received++
	if f.owes++; f.owes == 1 {
		f.ackAt = now.Add(f.cfg.AckDelay)
	}
	if ahead > 0 {
		f.stats.Reordered++
	}
	f.held[g.Sequence] = g.Payload
	f.release()
	// What is missing falls out of the window when others run ahead.
	for int32(g.Sequence-f.expected) >= int32(f.cfg.ReceiveWindow) {
		f.skip()
	}
	f.wait(now)
	if f.owes >= f.cfg.ReceiveWindow/4 {
		f.packets = append(f.packets, f.acknowledge(wire.GRE{}))
	}
}

// release hands out what is next in order.
func (f *Flow) release() {
	for {
		payload, ok := f.held[f.expected]
		if !ok {
			return
		}
		delete(f.held, f.expected)
		f.payloads = append(f.payloads, payload)
		f.expected++
	}
}

// skip gives the missing packets before the next held one up.
func (f *Flow) skip() {
	first, found := int32(0), false
	for number := range f.held {
		if ahead := int32(number - f.expected); !found || ahead < first {
			first, found = ahead, true
		}
	}
	if found {
		f.stats.Lost += int(first)
		f.expected += uint32(first)
		f.release()
	}
}

// wait runs the clock for a missing packet.
func (f *Flow) wait(now time.Time) {
	switch {
	case len(f.held) == 0:
		f.giveUp = time.Time{}
	case f.giveUp.IsZero():
		f.giveUp = now.Add(f.cfg.Hold)
	}
}

// Deadline says when Tick is due; the zero time: never.
func (f *Flow) Deadline() time.Time { return earliest(f.waiting, f.giveUp, f.ackAt) }

func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// Tick does what is due.
func (f *Flow) Tick(now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if due(f.giveUp) {
		f.giveUp = time.Time{}
		f.skip()
		f.wait(now)
	}
	if due(f.ackAt) {
		f.packets = append(f.packets, f.acknowledge(wire.GRE{}))
	}
	if due(f.waiting) {
		// Section 4.4.1: what is out counts as lost, the window is halved,
		// and the time-out grows.
		f.stats.Timeouts++
		f.acked, f.waiting, f.credit, f.sentAt = f.next, time.Time{}, 0, time.Time{}
		f.window = max(1, f.window/2)
		f.rtt = min(max(f.rtt, firstTimeout/4)*2, mostTimeout)
		f.push(now)
	}
}
