package ppp

import (
	"bytes"
	"time"
)

// state is a state of the option negotiation automaton (RFC 1661 section 4.2).
type state uint8

const (
	initial state = iota
	starting
	closed
	stopped
	closing
	stopping
	requestSent
	ackReceived
	ackSent
	opened
)

// negotiator is what differs between LCP, CCP and IPCP. The verbs about layers
// are the actions of RFC 1661 section 4.4.
type negotiator interface {
	// request gives the options of the next Configure-Request.
	request() []option
	// review answers the other side's options: the code, and the options that
	// go back with it. With configureAck it takes them on.
	review(now time.Time, theirs []option) (code, []option)
	// nak and reject change what request will give.
	nak(now time.Time, options []option)
	reject(now time.Time, options []option)
	layerUp(now time.Time)
	layerDown(now time.Time)
	layerFinished(now time.Time)
	// other handles the codes beyond the common seven; false: unknown.
	other(now time.Time, p packet) bool
}

// automaton is the option negotiation automaton (RFC 1661 section 4).
type automaton struct {
	link     *Link
	protocol Protocol
	negotiator
	state state

	id       uint8  // of the last Configure-Request
	asked    []byte // and its options
	sent     [256]bool
	restarts int       // left: the Restart counter
	deadline time.Time // of the Restart timer; zero: stopped
	naks     int       // sent without an Ack between
	nextID   uint8     // for every other packet
}

// running says whether the automaton exchanges packets at all.
func (a *automaton) running() bool { return a.state != initial && a.state != starting }

func (a *automaton) send(c code, id uint8, data []byte) {
	a.link.sendFrame(a.protocol, packet{c, id, data}.bytes())
}

// configure sends a Configure-Request (scr): a new one, or the last once more.
// A new one needs a new identifier (section 5.1).
func (a *automaton) configure(now time.Time, again bool) {
	a.restarts--
	a.deadline = now.Add(a.link.cfg.Restart)
	if !again {
		a.asked = joinOptions(a.request())
		a.id++
	}
	a.sent[a.id] = true
	a.send(configureRequest, a.id, a.asked)
}

// begin sends the first Configure-Request of a negotiation (irc, scr).
func (a *automaton) begin(now time.Time) {
	a.restarts, a.naks = a.link.cfg.MaxConfigure, 0
	a.configure(now, false)
}

func (a *automaton) terminate(now time.Time) {
	a.restarts--
	a.deadline = now.Add(a.link.cfg.Restart)
	a.nextID++
	a.send(terminateRequest, a.nextID, nil)
}

func (a *automaton) enter(s state) {
	a.state = s
	switch s {
	case closing, stopping, requestSent, ackReceived, ackSent:
	default:
		a.deadline = time.Time{} // the timer runs in no other state
	}
}

// The events of the table in section 4.1.

func (a *automaton) up(now time.Time) {
	switch a.state {
	case initial:
		a.enter(closed)
	case starting:
		a.enter(requestSent)
		a.begin(now)
	}
}

func (a *automaton) down(now time.Time) {
	switch was := a.state; was {
	case closed, closing:
		a.enter(initial)
	case stopped, stopping, requestSent, ackReceived, ackSent, opened:
		a.enter(starting)
		if was == opened {
			a.layerDown(now)
		}
	}
}

func (a *automaton) open(now time.Time) {
	switch a.state {
	case initial:
		a.enter(starting)
	case closed:
		a.enter(requestSent)
		a.begin(now)
	case closing:
		a.enter(stopping)
	}
}

func (a *automaton) close(now time.Time) {
	switch was := a.state; was {
	case starting:
		a.enter(initial)
		a.layerFinished(now)
	case stopped:
		a.enter(closed)
	case stopping:
		a.enter(closing)
	case requestSent, ackReceived, ackSent, opened:
		a.enter(closing)
		a.restarts = a.link.cfg.MaxTerminate
		a.terminate(now)
		if was == opened {
			a.layerDown(now)
		}
	}
}

func (a *automaton) tick(now time.Time) {
	if a.deadline.IsZero() || now.Before(a.deadline) {
		return
	}
	switch {
	case a.restarts > 0 && (a.state == closing || a.state == stopping):
		a.terminate(now)
	case a.restarts > 0:
		if a.state == ackReceived {
			a.enter(requestSent)
		}
		a.configure(now, true)
	case a.state == closing:
		a.enter(closed)
		a.layerFinished(now)
	default: // stopping, or nobody answers
		a.enter(stopped)
		a.layerFinished(now)
	}
}

// receive handles a packet of the automaton's protocol.
func (a *automaton) receive(now time.Time, p packet) {
	if !a.running() {
		a.link.stats.Unexpected++
		return
	}
	switch p.code {
	case configureRequest:
		a.receiveRequest(now, p)
	case configureAck, configureNak, configureReject:
		a.receiveAnswer(now, p)
	case terminateRequest:
		a.receiveTerminate(now, p)
	case terminateAck:
		switch a.state {
		case closing:
			a.enter(closed)
			a.layerFinished(now)
		case stopping:
			a.enter(stopped)
			a.layerFinished(now)
		case ackReceived:
			a.enter(requestSent)
			a.deadline = now.Add(a.link.cfg.Restart)
		case opened:
			a.enter(requestSent)
			a.begin(now)
			a.layerDown(now)
		}
	case codeReject:
		if len(p.data) > 0 && code(p.data[0]) <= codeReject {
			a.giveUp(now) // nothing works without these (RXJ-)
		}
	default:
		if !a.other(now, p) {
			a.nextID++
			a.send(codeReject, a.nextID, p.bytes())
		}
	}
}

// giveUp is RXJ-: the other side cannot do this protocol.
func (a *automaton) giveUp(now time.Time) {
	switch was := a.state; was {
	case closing:
		a.enter(closed)
		a.layerFinished(now)
	case opened:
		a.enter(stopping)
		a.restarts = a.link.cfg.MaxTerminate
		a.terminate(now)
		a.layerDown(now)
	case stopping, requestSent, ackReceived, ackSent:
		a.enter(stopped)
		a.layerFinished(now)
	}
}

func (a *automaton) receiveTerminate(now time.Time, p packet) {
	was := a.state
	if was == ackReceived || was == ackSent {
		a.enter(requestSent)
		a.deadline = now.Add(a.link.cfg.Restart)
	}
	if was == opened {
		// zrc: no requests of our own, but a moment for the other side to
		// hear the acknowledgement, or to ask again.
		a.enter(stopping)
		a.restarts = 0
		a.deadline = now.Add(a.link.cfg.Restart)
	}
	a.send(terminateAck, p.id, nil)
	if was == opened {
		a.layerDown(now)
	}
}

func (a *automaton) receiveRequest(now time.Time, p packet) {
	switch a.state {
	case closed:
		a.send(terminateAck, p.id, nil)
		return
	case closing, stopping:
		return
	}
	options, err := parseOptions(p.data)
	if err != nil {
		a.link.stats.Malformed++
		return // silently (section 5.1)
	}
	was := a.state
	if was == opened {
		// The other side negotiates anew: this layer is down first, and its
		// new request goes out before the answer (tld, scr, sca).
		a.enter(requestSent)
		a.layerDown(now)
		a.begin(now)
	}
	if was == stopped {
		a.enter(requestSent)
		a.begin(now)
	}
	answer, back := a.review(now, options)
	if a.state == closing || a.state == stopped || a.state == closed {
		return // review found a reason to end
	}
	if answer == configureNak {
		// It does not converge: reject (section 4.6, Max-Failure).
		if a.naks++; a.naks > a.link.cfg.MaxFailure {
			answer, back = configureReject, only(options, back)
		}
	}
	if answer == configureAck {
		a.naks = 0
		a.send(answer, p.id, p.data)
	} else {
		a.send(answer, p.id, joinOptions(back))
	}
	ok := answer == configureAck
	switch {
	case a.state == requestSent && ok:
		a.state = ackSent
	case a.state == ackSent && !ok:
		a.state = requestSent
	case a.state == ackReceived && ok:
		a.enter(opened)
		a.layerUp(now)
	}
}

// only gives the options whose kinds are in among: what is rejected goes back
// as it came.
func only(options, among []option) []option {
	var out []option
	for _, o := range options {
		for _, k := range among {
			if k.kind == o.kind {
				out = append(out, o)
				break
			}
		}
	}
	return out
}

func (a *automaton) receiveAnswer(now time.Time, p packet) {
	switch a.state {
	case closed, stopped:
		a.send(terminateAck, p.id, nil)
		return
	case closing, stopping:
		return
	}
	if p.id != a.id {
		// Late, or the answer to a request that never was ours.
		if !a.sent[p.id] {
			a.link.stats.Foreign++
		}
		return
	}
	options, err := parseOptions(p.data)
	if err != nil {
		a.link.stats.Malformed++
		return
	}
	if p.code == configureAck && !bytes.Equal(p.data, a.asked) {
		a.link.stats.Foreign++
		return // not what was asked (section 5.2)
	}
	if a.state == ackReceived || a.state == opened {
		if p.code == configureAck {
			return // the same answer again: the link made a copy
		}
		// A second and other answer to one request: the ends have lost each
		// other ("crossed connections", note of section 4.1).
		was := a.state
		a.enter(requestSent)
		if was == opened {
			a.layerDown(now)
		}
		a.begin(now)
		return
	}
	a.restarts = a.link.cfg.MaxConfigure // irc
	switch p.code {
	case configureAck:
		if a.state == ackSent {
			a.enter(opened)
			a.layerUp(now)
			return
		}
		a.state = ackReceived
		a.deadline = now.Add(a.link.cfg.Restart)
		return
	case configureNak:
		a.nak(now, options)
	case configureReject:
		a.reject(now, options)
	}
	if a.state == requestSent || a.state == ackSent { // nobody gave up
		a.configure(now, false)
	}
}
