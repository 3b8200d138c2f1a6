package ppp

import (
	"fmt"
	"time"

	"pptp-alg/e2e/ppp/mppe"
	"pptp-alg/e2e/ppp/mschap"
)

// demand is the authenticator: the other side has to prove who it is.
type demand struct {
	link      *Link
	method    Method
	id        uint8
	challenge mschap.Challenge
	tries     int
	deadline  time.Time
	done      bool
	user      string
	reply     []byte // the last word, said again when it was lost
}

// offer is the other role: this side proves who it is.
type offer struct {
	link     *Link
	method   Method
	id       uint8
	tries    int
	deadline time.Time
	done     bool
	sent     []byte // the last proof, sent again until it is answered
	question string // the challenge that it answers
	proof    string // MS-CHAPv2: what the server has to answer
	keys     *keys
}

// keys are what MPPE's keys are made of (RFC 3079 section 3).
type keys struct {
	hash     mschap.Hash // of the hash of the password
	response mschap.Response
	server   bool // this side was the authenticator
}

// start gives the start keys of both directions.
func (k *keys) start(send bool, s mppe.Strength) []byte {
	return mppe.Start(mppe.Master(k.hash, k.response), send != k.server, s)
}

// startAuthentication begins what LCP has agreed on.
func (l *Link) startAuthentication(now time.Time) {
	l.enter(Authenticate)
	if l.cfg.OnlyLCP {
		l.Close(now)
		return
	}
	patience := time.Duration(l.cfg.MaxConfigure) * l.cfg.Restart
	if m := l.options.method; m != NoMethod {
		l.demand = &demand{link: l, method: m, id: l.byte(), tries: l.cfg.MaxConfigure, deadline: now.Add(patience)}
		if m != PAP {
			l.random(l.demand.challenge[:])
			l.demand.ask(now)
		}
	}
	if m := l.options.theirMethod; m != NoMethod {
		l.offer = &offer{link: l, method: m, id: l.byte(), tries: l.cfg.MaxConfigure, deadline: now.Add(patience)}
		if m == PAP {
			l.offer.sent = papRequest(l.offer.id, l.cfg.User, l.cfg.Password)
			l.offer.say(now)
		}
	}
	l.authenticated(now)
}

// authenticate handles a packet of PAP or CHAP. The codes tell the roles apart.
func (l *Link) authenticate(now time.Time, protocol Protocol, body []byte, p packet) {
	asked := p.code == papRequestCode // PAP's request, CHAP's challenge
	if protocol == ProtocolCHAP {
		asked = p.code == chapResponse
	}
	isPAP := protocol == ProtocolPAP
	switch d, o := l.demand, l.offer; {
	case asked && d != nil && (d.method == PAP) == isPAP:
		d.receive(now, p)
	case !asked && o != nil && (o.method == PAP) == isPAP:
		o.receive(now, p)
	default:
		l.refuse(protocol, body)
	}
}

// authenticated goes on when nothing is left to prove.
func (l *Link) authenticated(now time.Time) {
	if l.phase == Authenticate && (l.demand == nil || l.demand.done) && (l.offer == nil || l.offer.done) {
		l.network(now)
	}
}

// ask sends CHAP's challenge.
func (d *demand) ask(now time.Time) {
	d.tries--
	d.deadline = now.Add(d.link.cfg.Restart)
	value := d.challenge[:]
	d.link.sendFrame(ProtocolCHAP, packet{chapChallenge, d.id, append(sized(value), d.link.cfg.Name...)}.bytes())
}

func (d *demand) tick(now time.Time) {
	if d.done || d.deadline.IsZero() || now.Before(d.deadline) {
		return
	}
	if d.method == PAP || d.tries <= 0 {
		d.deadline = time.Time{}
		d.link.fail(now, fmt.Errorf("%w when asked to prove itself by %v", ErrNoAnswer, d.method))
		return
	}
	d.ask(now)
}

func (d *demand) receive(now time.Time, p packet) {
	if d.reply != nil {
		// Asked again: the answer was lost, or nobody waits for it any more.
		// It is the same whatever comes now (RFC 1994 section 4.2).
		d.link.sendFrame(d.protocol(), d.reply)
		return
	}
	var good bool
	var answer packet
	var user string
	var ok bool
	switch d.method {
	case PAP:
		user, answer, good, ok = d.checkPAP(p)
	case CHAPMD5:
		user, answer, good, ok = d.checkMD5(p)
	case MSCHAPv2:
		user, answer, good, ok = d.checkMSCHAP(p)
	}
	if !ok {
		d.link.stats.Malformed++
		return
	}
	d.deadline = time.Time{}
	d.reply, d.user = answer.bytes(), user
	d.link.sendFrame(d.protocol(), d.reply)
	if !good {
		d.link.fail(now, fmt.Errorf("%w: user %q, %v", ErrPassword, user, d.method))
		return
	}
	d.done = true
	d.link.authenticated(now)
}

func (d *demand) protocol() Protocol {
	if d.method == PAP {
		return ProtocolPAP
	}
	return ProtocolCHAP
}

// secret looks a password up, with and without a Windows domain.
func (d *demand) secret(user string) (string, bool) {
	if password, ok := d.link.cfg.Secret(user); ok {
		return password, true
	}
	return d.link.cfg.Secret(mschap.UserOf(user))
}

// say sends the proof and waits for the answer.
func (o *offer) say(now time.Time) {
	o.tries--
	if !o.done { // else the other side asks again, and nothing waits for it
		o.deadline = now.Add(o.link.cfg.Restart)
	}
	protocol := ProtocolCHAP
	if o.method == PAP {
		protocol = ProtocolPAP
	}
	o.link.sendFrame(protocol, o.sent)
}

func (o *offer) tick(now time.Time) {
	if o.done || o.deadline.IsZero() || now.Before(o.deadline) {
		return
	}
	if o.sent == nil || o.tries <= 0 {
		o.deadline = time.Time{}
		o.link.fail(now, fmt.Errorf("%w to proof by %v", ErrNoAnswer, o.method))
		return
	}
	o.say(now)
}

func (o *offer) receive(now time.Time, p packet) {
	if o.method == PAP {
		o.receivePAP(now, p)
	} else {
		o.receiveCHAP(now, p)
	}
}

// accepted and refused are the other side's verdicts.
func (o *offer) accepted(now time.Time) {
	o.deadline = time.Time{}
	if o.done {
		return
	}
	o.done = true
	if o.keys != nil && o.link.keys == nil {
		o.link.keys = o.keys
	}
	o.link.authenticated(now)
}

func (o *offer) refused(now time.Time, text []byte) {
	o.deadline = time.Time{}
	o.link.fail(now, fmt.Errorf("%w by the other side (%v): %q", ErrPassword, o.method, text))
}
