package ppp

import "time"

// Codes of PAP (RFC 1334 section 2.2).
const (
	papRequestCode code = 1
	papAck         code = 2
	papNak         code = 3
)

func papRequest(id uint8, user, password string) []byte {
	return packet{papRequestCode, id, append(sized([]byte(user)), sized([]byte(password))...)}.bytes()
}

// checkPAP judges an Authenticate-Request (RFC 1334 section 2.2.1).
func (d *demand) checkPAP(p packet) (user string, answer packet, good, ok bool) {
	name, rest, ok := splitSized(p.data)
	if !ok {
		return "", packet{}, false, false
	}
	given, _, ok := splitSized(rest)
	if !ok {
		return "", packet{}, false, false
	}
	password, known := d.secret(string(name))
	good = known && password == string(given)
	answer = packet{papNak, p.id, sized([]byte("wrong user or password"))}
	if good {
		answer = packet{papAck, p.id, sized(nil)}
	}
	return string(name), answer, good, true
}

func (o *offer) receivePAP(now time.Time, p packet) {
	if p.id != o.id {
		o.link.stats.Foreign++
		return
	}
	switch p.code {
	case papAck:
		o.accepted(now)
	case papNak:
		text, _, _ := splitSized(p.data)
		o.refused(now, text)
	}
}
