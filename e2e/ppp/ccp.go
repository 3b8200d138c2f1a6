package ppp

import (
	"encoding/binary"
	"fmt"
	"time"

	"pptp-alg/e2e/ppp/mppe"
)

// optionMPPE is the one CCP option that this package knows (RFC 3078 section 2).
const optionMPPE = 18

// Supported Bits (RFC 3078 section 2).
const (
	mppeStateless = 0x01000000 // H
	mppe56        = 0x00000080 // M
	mppe128       = 0x00000040 // S
	mppe40        = 0x00000020 // L
)

var mppeBits = map[mppe.Strength]uint32{mppe.Bits40: mppe40, mppe.Bits56: mppe56, mppe.Bits128: mppe128}

// strengths from the strongest down, which is not the order of the bits.
var strengths = []mppe.Strength{mppe.Bits128, mppe.Bits56, mppe.Bits40}

// crypt is what CCP has agreed on.
type crypt struct {
	asked, theirs uint32 // Supported Bits; asked 0: nothing asked yet
	none          bool   // the other side does not take the option
	sender        *mppe.Sender
	receiver      *mppe.Receiver
	mode          string
	resetID       uint8
	resetAgain    time.Time // no Reset-Request before
}

func (c crypt) String() string {
	if c.sender == nil {
		return "none"
	}
	return c.mode
}

// ccp is the Link as CCP's negotiator.
type ccp Link

// willing are the bits that Config allows.
func (c *ccp) willing() uint32 {
	var bits uint32
	for _, s := range c.cfg.Encryption.Strengths {
		bits |= mppeBits[s]
	}
	return bits
}

// choose gives the strongest of the bits that this side is willing to, and
// stateless or not as the other side likes, as far as Config allows. 0: nothing.
func (c *ccp) choose(offered uint32) uint32 {
	e := c.cfg.Encryption
	for _, s := range strengths {
		bit := mppeBits[s]
		if offered&c.willing()&bit == 0 {
			continue
		}
		if e.Stateless && (offered&mppeStateless != 0 || !e.Stateful) {
			bit |= mppeStateless
		}
		return bit
	}
	return 0
}

func (c *ccp) request() []option {
	if c.crypt.none {
		return nil
	}
	if c.crypt.asked == 0 {
		// All there is; the other side says which (RFC 3078 section 2).
		c.crypt.asked = c.willing()
		if c.cfg.Encryption.Stateless {
			c.crypt.asked |= mppeStateless
		}
	}
	return []option{{optionMPPE, be32(c.crypt.asked)}}
}

func (c *ccp) review(now time.Time, theirs []option) (code, []option) {
	var rejects []option
	var bits uint32
	there := false
	for _, o := range theirs {
		if o.kind != optionMPPE || len(o.data) != 4 {
			rejects = append(rejects, o)
			continue
		}
		there, bits = true, binary.BigEndian.Uint32(o.data)
	}
	choice := c.choose(bits)
	switch {
	case there && choice == 0:
		// No common strength; pick for the other side, which will refuse.
		rejects = append(rejects, option{optionMPPE, be32(bits)})
		return configureReject, rejects
	case len(rejects) > 0:
		return configureReject, rejects
	case !there && c.cfg.Encryption.Required:
		return configureNak, []option{{optionMPPE, be32(c.choose(0xffffffff))}}
	case there && choice != bits:
		return configureNak, []option{{optionMPPE, be32(choice)}}
	}
	c.crypt.theirs = choice
	return configureAck, nil
}

func (c *ccp) nak(now time.Time, options []option) {
	for _, o := range options {
		if o.kind != optionMPPE || len(o.data) != 4 {
			continue
		}
		choice := c.choose(binary.BigEndian.Uint32(o.data))
		if choice == 0 {
			(*Link)(c).noEncryption(now)
			return
		}
		c.crypt.asked = choice
	}
}

func (c *ccp) reject(now time.Time, options []option) {
	for _, o := range options {
		if o.kind == optionMPPE {
			c.crypt.none = true
		}
	}
	if c.crypt.none {
		(*Link)(c).noEncryption(now)
	}
}

// layerUp sets the ciphers up. What the other side asked for is how it wants
// to receive, what this side asked for how it will.
func (c *ccp) layerUp(now time.Time) {
	l := (*Link)(c)
	single := func(bits uint32) (mppe.Strength, bool) {
		for _, s := range strengths {
			if bits&mppeBits[s] != 0 {
				return s, bits&^(mppeBits[s]|mppeStateless) == 0
			}
		}
		return 0, false
	}
	send, ok := single(c.crypt.theirs)
	receive, alsoOK := single(c.crypt.asked)
	if !ok || !alsoOK || c.crypt.none {
		// One direction in the clear, or several strengths acknowledged.
		l.noEncryption(now)
		return
	}
	stateless := c.crypt.theirs&mppeStateless != 0
	c.crypt.sender = mppe.NewSender(l.keys.start(true, send), send, stateless)
	c.crypt.receiver = mppe.NewReceiver(l.keys.start(false, receive), receive, c.crypt.asked&mppeStateless != 0)
	mode := "stateful"
	if stateless {
		mode = "stateless"
	}
	c.crypt.mode = fmt.Sprintf("MPPE %d %s", send, mode)
	if c.ipcp.state == opened {
		l.enter(Up) // after CCP had been negotiated anew
	}
	l.startIPCP(now)
}

// layerDown: without its ciphers a link that needs them carries nothing.
func (c *ccp) layerDown(now time.Time) {
	l := (*Link)(c)
	c.crypt = crypt{}
	if c.ccp.state == stopping || c.ccp.state == closing {
		l.noEncryption(now)
		return
	}
	if l.phase == Up {
		l.enter(Network)
	}
}

func (c *ccp) layerFinished(now time.Time) { (*Link)(c).noEncryption(now) }

func (c *ccp) other(now time.Time, p packet) bool {
	switch p.code {
	case resetRequest:
		if c.crypt.sender == nil {
			return true
		}
		// RFC 1962 section 3.1 wants the acknowledgement; MPPE itself gets by
		// without, since the next packet says that it is a fresh start.
		c.crypt.sender.Flush()
		c.ccp.send(resetAck, p.id, p.data)
	case resetAck:
	default:
		return false
	}
	return true
}

// askReset asks the other side to start its cipher anew, and again only after
// a while: every packet until the fresh start would ask.
func (c *ccp) askReset(now time.Time) {
	if c.ccp.state != opened || now.Before(c.crypt.resetAgain) {
		return
	}
	c.stats.Resets++
	c.crypt.resetID++
	c.crypt.resetAgain = now.Add(c.cfg.Restart / 3)
	c.ccp.send(resetRequest, c.crypt.resetID, nil)
}
