package ppp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Kinds of LCP options (RFC 1661 section 6; ACCM: RFC 1662 section 7.1).
const (
	optionMRU   = 1
	optionACCM  = 2
	optionAuth  = 3
	optionMagic = 5
	optionPFC   = 7
	optionACFC  = 8
)

const (
	defaultMRU = 1500
	leastMRU   = 128 // smaller ones are answered with this
)

// loopLimit is how often in a row this side's own magic number may come back
// before the link is called a loop (RFC 1661 section 6.4 leaves it open).
const loopLimit = 5

// lcpOptions are what LCP agrees on, and what this side still asks for.
type lcpOptions struct {
	// wanted in the next request
	mru    uint16
	accm   *uint32
	method Method
	magic  uint32 // 0: none
	pfc    bool
	acfc   bool

	theirMRU            uint16
	theirACCM           uint32
	theirMagic          uint32
	theirPFC, theirACFC bool
	theirMethod         Method

	loops     int
	tried     []Method // demanded in vain
	nextEcho  time.Time
	unechoed  int
	echoID    uint8
	wasOpened bool
}

func newLCPOptions(l *Link) lcpOptions {
	o := lcpOptions{mru: l.cfg.MRU, accm: l.cfg.ACCM, pfc: l.cfg.PFC, acfc: l.cfg.ACFC, theirMRU: defaultMRU, theirACCM: 0xffffffff}
	if l.cfg.Magic {
		o.magic = l.magic()
	}
	if len(l.cfg.Demand) > 0 {
		o.method = l.cfg.Demand[0]
	}
	return o
}

func (l *Link) magic() uint32 {
	var b [4]byte
	l.random(b[:])
	return binary.BigEndian.Uint32(b[:]) | 1 // never 0
}

// lcp is the Link as LCP's negotiator.
type lcp Link

// encodeMethod gives the option's contents (RFC 1661 section 6.2): the
// protocol, and for CHAP the algorithm (RFC 1994 section 3, RFC 2759 section 3).
func encodeMethod(m Method) []byte {
	switch m {
	case PAP:
		return []byte{0xc0, 0x23}
	case CHAPMD5:
		return []byte{0xc2, 0x23, 5}
	case MSCHAPv2:
		return []byte{0xc2, 0x23, 0x81}
	}
	return nil
}

func decodeMethod(b []byte) Method {
	for _, m := range []Method{PAP, CHAPMD5, MSCHAPv2} {
		if string(encodeMethod(m)) == string(b) {
			return m
		}
	}
	return NoMethod
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func (c *lcp) request() []option {
	o := &c.options
	var out []option
	if o.mru != 0 {
		out = append(out, option{optionMRU, be16(o.mru)})
	}
	if o.accm != nil {
		out = append(out, option{optionACCM, be32(*o.accm)})
	}
	if o.method != NoMethod {
		out = append(out, option{optionAuth, encodeMethod(o.method)})
	}
	if o.magic != 0 {
		out = append(out, option{optionMagic, be32(o.magic)})
	}
	if o.pfc {
		out = append(out, option{optionPFC, nil})
	}
	if o.acfc {
		out = append(out, option{optionACFC, nil})
	}
	return out
}

// review answers the other side's request (RFC 1661 sections 5.2 to 5.4).
func (c *lcp) review(now time.Time, theirs []option) (code, []option) {
	var naks, rejects []option
	got := lcpOptions{theirMRU: defaultMRU, theirACCM: 0xffffffff}
	for _, o := range theirs {
		nak, known := c.reviewOne(&got, o)
		switch {
		case !known || slices.Contains(c.cfg.RefuseLCP, o.kind):
			rejects = append(rejects, o)
		case nak != nil:
			naks = append(naks, *nak)
		}
	}
	if got.loops > 0 {
		if c.options.loops++; c.options.loops >= loopLimit {
			(*Link)(c).fail(now, ErrLoop)
		}
	} else {
		c.options.loops = 0
	}
	switch {
	case len(rejects) > 0:
		return configureReject, rejects
	case len(naks) > 0:
		return configureNak, naks
	}
	c.options.theirMRU, c.options.theirACCM = got.theirMRU, got.theirACCM
	c.options.theirMagic, c.options.theirMethod = got.theirMagic, got.theirMethod
	c.options.theirPFC, c.options.theirACFC = got.theirPFC, got.theirACFC
	return configureAck, nil
}

// reviewOne notes one option in got. A nak is what this side would take
// instead; unknown options and wrong lengths are not known.
func (c *lcp) reviewOne(got *lcpOptions, o option) (nak *option, known bool) {
	switch {
	case o.kind == optionMRU && len(o.data) == 2:
		if got.theirMRU = binary.BigEndian.Uint16(o.data); got.theirMRU < leastMRU {
			return &option{optionMRU, be16(leastMRU)}, true
		}
	case o.kind == optionACCM && len(o.data) == 4:
		got.theirACCM = binary.BigEndian.Uint32(o.data) // means nothing without escapes
	case o.kind == optionAuth && len(o.data) >= 2:
		if len(c.cfg.Offer) == 0 {
			return nil, false
		}
		if got.theirMethod = decodeMethod(o.data); !slices.Contains(c.cfg.Offer, got.theirMethod) {
			return &option{optionAuth, encodeMethod(c.cfg.Offer[0])}, true
		}
	case o.kind == optionMagic && len(o.data) == 4:
		got.theirMagic = binary.BigEndian.Uint32(o.data)
		if got.theirMagic == 0 || got.theirMagic == c.options.magic {
			if got.theirMagic != 0 {
				got.loops = 1
			}
			return &option{optionMagic, be32((*Link)(c).magic())}, true
		}
	case o.kind == optionPFC && len(o.data) == 0:
		got.theirPFC = true
	case o.kind == optionACFC && len(o.data) == 0:
		got.theirACFC = true
	default:
		return nil, false
	}
	return nil, true
}

func (c *lcp) nak(now time.Time, options []option) {
	for _, o := range options {
		switch {
		case o.kind == optionMRU && len(o.data) == 2:
			if mru := binary.BigEndian.Uint16(o.data); mru >= leastMRU {
				c.options.mru = mru
			}
		case o.kind == optionACCM && len(o.data) == 4:
			accm := binary.BigEndian.Uint32(o.data)
			c.options.accm = &accm
		case o.kind == optionMagic && c.options.magic != 0:
			c.options.magic = (*Link)(c).magic()
		case o.kind == optionAuth:
			c.demandAnother(now, decodeMethod(o.data))
		}
	}
}

// demandAnother follows the other side's wish for a method, if that is one of
// those demanded, or else goes on to the next.
func (c *lcp) demandAnother(now time.Time, wish Method) {
	if c.options.method == NoMethod {
		return // it wants to be asked: no need
	}
	c.options.tried = append(c.options.tried, c.options.method)
	if slices.Contains(c.cfg.Demand, wish) && !slices.Contains(c.options.tried, wish) {
		c.options.method = wish
		return
	}
	for _, m := range c.cfg.Demand {
		if !slices.Contains(c.options.tried, m) {
			c.options.method = m
			return
		}
	}
	(*Link)(c).fail(now, fmt.Errorf("%w: the other side takes none of %v", ErrMethod, c.cfg.Demand))
}

func (c *lcp) reject(now time.Time, options []option) {
	for _, o := range options {
		switch o.kind {
		case optionMRU:
			c.options.mru = 0
		case optionACCM:
			c.options.accm = nil
		case optionMagic:
			c.options.magic = 0
		case optionPFC:
			c.options.pfc = false
		case optionACFC:
			c.options.acfc = false
		case optionAuth:
			(*Link)(c).fail(now, fmt.Errorf("%w: the other side refuses to prove itself", ErrMethod))
		}
	}
}

func (c *lcp) layerUp(now time.Time) {
	c.options.wasOpened = true
	if c.cfg.Echo > 0 {
		c.options.nextEcho, c.options.unechoed = now.Add(c.cfg.Echo), 0
	}
	(*Link)(c).startAuthentication(now)
}

func (c *lcp) layerDown(now time.Time) {
	l := (*Link)(c)
	c.options.nextEcho = time.Time{}
	l.leaveNetwork(now)
	switch {
	case c.lcp.state == stopping || c.lcp.state == closing:
		if l.err == nil {
			l.err = ErrTerminated
		}
		l.enter(Terminate)
	case l.phase != Terminate:
		// The other side starts anew: so does this one, with fresh wishes.
		magic := c.options.magic
		c.options = newLCPOptions(l)
		if magic != 0 {
			c.options.magic = magic
		}
		l.enter(Establish)
	}
}

func (c *lcp) layerFinished(time.Time) {
	l := (*Link)(c)
	if l.err == nil {
		if l.err = ErrNoAnswer; c.options.wasOpened {
			l.err = ErrTerminated
		}
	}
	c.options.nextEcho = time.Time{}
	l.enter(Dead)
}

func (c *lcp) other(now time.Time, p packet) bool {
	switch p.code {
	case protocolReject:
		if len(p.data) >= 2 && c.lcp.state == opened {
			(*Link)(c).refused(now, Protocol(binary.BigEndian.Uint16(p.data)))
		}
	case echoRequest:
		if c.lcp.state != opened || len(p.data) < 4 {
			return true
		}
		if c.loopedMagic(p.data) {
			(*Link)(c).fail(now, ErrLoop)
			return true
		}
		// The number in the reply is the sender's own (section 5.8).
		c.lcp.send(echoReply, p.id, append(be32(c.options.magic), p.data[4:]...))
	case echoReply:
		if c.lcp.state == opened && len(p.data) >= 4 && !c.loopedMagic(p.data) {
			c.stats.Echoes++
			c.options.unechoed = 0
		}
	case discardRequest:
	default:
		return false
	}
	return true
}

// loopedMagic says whether a packet bears this side's own number.
func (c *lcp) loopedMagic(data []byte) bool {
	return c.options.magic != 0 && binary.BigEndian.Uint32(data) == c.options.magic
}

// tickEcho asks whether the other side still lives.
func (c *lcp) tickEcho(now time.Time) {
	o := &c.options
	if o.nextEcho.IsZero() || now.Before(o.nextEcho) || c.lcp.state != opened {
		return
	}
	if o.unechoed >= c.cfg.EchoFailures {
		o.nextEcho = time.Time{}
		(*Link)(c).fail(now, ErrEcho)
		return
	}
	o.unechoed++
	o.echoID++
	o.nextEcho = now.Add(c.cfg.Echo)
	c.lcp.send(echoRequest, o.echoID, be32(o.magic))
}
