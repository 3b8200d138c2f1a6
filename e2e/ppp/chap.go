package ppp

import (
	"crypto/md5"
	"crypto/subtle"
	"fmt"
	"strings"
	"time"

	"pptp-alg/e2e/ppp/mschap"
)

// Codes of CHAP (RFC 1994 section 4).
const (
	chapChallenge code = 1
	chapResponse  code = 2
	chapSuccess   code = 3
	chapFailure   code = 4
)

// The value of an MS-CHAPv2 response (RFC 2759 section 4): the peer's
// challenge, eight octets of zero, the NT-Response, flags.
const (
	msPeer     = 0
	msResponse = 24
	msFlags    = 48
	msSize     = 49
)

// proveMD5 is the response of RFC 1994 section 4.1.
func proveMD5(id uint8, password string, challenge []byte) []byte {
	b := append([]byte{id}, password...)
	sum := md5.Sum(append(b, challenge...))
	return sum[:]
}

// checkMD5 judges a Response to a challenge of CHAP with MD5.
func (d *demand) checkMD5(p packet) (user string, answer packet, good, ok bool) {
	value, name, ok := splitSized(p.data)
	if !ok || p.id != d.id {
		return "", packet{}, false, false
	}
	password, known := d.secret(string(name))
	good = known && subtle.ConstantTimeCompare(value, proveMD5(p.id, password, d.challenge[:])) == 1
	answer = packet{chapFailure, p.id, []byte("wrong user or password")}
	if good {
		answer = packet{chapSuccess, p.id, []byte("welcome")}
	}
	return string(name), answer, good, true
}

// checkMSCHAP judges a Response of MS-CHAPv2, and proves in turn that this
// side knows the password (RFC 2759 sections 4 to 6).
func (d *demand) checkMSCHAP(p packet) (user string, answer packet, good, ok bool) {
	value, name, ok := splitSized(p.data)
	if !ok || p.id != d.id || len(value) != msSize {
		return "", packet{}, false, false
	}
	user = string(name)
	peer := mschap.Challenge(value[msPeer:][:16])
	response := mschap.Response(value[msResponse:msFlags])
	password, known := d.secret(user)
	hash := mschap.PasswordHash(password)
	if !known || response != mschap.Respond(d.challenge, peer, user, hash) {
		var fresh mschap.Challenge
		d.link.random(fresh[:])
		// 691: ERROR_AUTHENTICATION_FAILURE; R=0: no second try.
		text := fmt.Sprintf("E=691 R=0 C=%X V=3 M=wrong user or password", fresh[:])
		return user, packet{chapFailure, p.id, []byte(text)}, false, true
	}
	if d.link.keys == nil {
		d.link.keys = &keys{hash: hash.HashOfHash(), response: response, server: true}
	}
	text := mschap.Prove(d.challenge, peer, user, hash, response) + " M=welcome"
	return user, packet{chapSuccess, p.id, []byte(text)}, true, true
}

func (o *offer) receiveCHAP(now time.Time, p packet) {
	switch p.code {
	case chapChallenge:
		challenge, _, ok := splitSized(p.data)
		if !ok || o.method == MSCHAPv2 && len(challenge) != len(mschap.Challenge{}) {
			o.link.stats.Malformed++
			return
		}
		// The same challenge once more: the answer was lost. Another one may
		// come at any time (RFC 1994 section 2).
		if question := string(append([]byte{p.id}, challenge...)); o.sent == nil || question != o.question {
			o.question, o.id, o.tries = question, p.id, o.link.cfg.MaxConfigure
			o.respond(p.id, challenge)
		}
		o.say(now)
	case chapSuccess, chapFailure:
		if o.sent == nil || p.id != o.id {
			o.link.stats.Foreign++
			return
		}
		if p.code == chapFailure {
			o.refused(now, p.data)
			return
		}
		// RFC 2759 section 5: a client must break off if the proof is wrong.
		if o.method == MSCHAPv2 && !strings.HasPrefix(string(p.data), o.proof) {
			o.deadline = time.Time{}
			o.link.fail(now, ErrProof)
			return
		}
		o.accepted(now)
	}
}

// respond makes the answer to a challenge.
func (o *offer) respond(id uint8, challenge []byte) {
	cfg := o.link.cfg
	value := proveMD5(id, cfg.Password, challenge)
	if o.method == MSCHAPv2 {
		var peer mschap.Challenge
		o.link.random(peer[:])
		hash := mschap.PasswordHash(cfg.Password)
		theirs := mschap.Challenge(challenge)
		response := mschap.Respond(theirs, peer, cfg.User, hash)
		value = make([]byte, msSize)
		copy(value[msPeer:], peer[:])
		copy(value[msResponse:], response[:])
		o.proof = mschap.Prove(theirs, peer, cfg.User, hash, response)
		o.keys = &keys{hash: hash.HashOfHash(), response: response}
	}
	o.sent = packet{chapResponse, id, append(sized(value), cfg.User...)}.bytes()
}
