package mppe

import (
	"bytes"
	"crypto/rc4"
	"crypto/sha1"
)

// Strength is the number of secret bits in a key.
type Strength int

// The strengths of RFC 3078.
const (
	Bits40  Strength = 40
	Bits56  Strength = 56
	Bits128 Strength = 128
)

// size is the length of the keys in octets. The weaker ones have eight, of
// which the first are known to everybody.
func (s Strength) size() int {
	if s == Bits128 {
		return 16
	}
	return 8
}

// reduce replaces the octets that are not secret (RFC 3079 sections 3.1 and 3.2).
func (s Strength) reduce(key []byte) {
	switch s {
	case Bits40:
		copy(key, []byte{0xd1, 0x26, 0x9e})
	case Bits56:
		key[0] = 0xd1
	}
}

// The constants of RFC 3079 section 3.4.
const (
	magicMaster   = "This is the MPPE Master Key"
	magicToServer = "On the client side, this is the send key; on the server side, it is the receive key."
	magicToClient = "On the client side, this is the receive key; on the server side, it is the send key."
)

var (
	pad1 = make([]byte, 40)
	pad2 = bytes.Repeat([]byte{0xf2}, 40)
)

func digest(parts ...[]byte) []byte {
	h := sha1.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// Master is GetMasterKey (RFC 3079 section 3.4): it binds the keys to the
// password and to one run of MS-CHAP version 2.
func Master(passwordHashHash [16]byte, response [24]byte) []byte {
	return digest(passwordHashHash[:], response[:], []byte(magicMaster))[:16]
}

// Start is GetAsymmetricStartKey (RFC 3079 section 3.4) for one direction. The
// server is the side that authenticated the other.
func Start(master []byte, toServer bool, s Strength) []byte {
	magic := magicToClient
	if toServer {
		magic = magicToServer
	}
	return digest(master, pad1, []byte(magic), pad2)[:s.size()]
}

// session is a session key and the cipher that runs with it.
type session struct {
	strength   Strength
	start, key []byte
	cipher     *rc4.Cipher
}

func newSession(start []byte, s Strength) *session {
	k := &session{strength: s, start: bytes.Clone(start), key: bytes.Clone(start)}
	k.key = k.mixed()
	s.reduce(k.key)
	k.restart()
	return k
}

// mixed is GetNewKeyFromSHA (RFC 3079 section 3.4, RFC 3078 section 7.1).
func (k *session) mixed() []byte {
	return digest(k.start, pad1, k.key, pad2)[:k.strength.size()]
}

// change makes the next session key (RFC 3078 section 7.1): the mixed key,
// encrypted with itself.
func (k *session) change() {
	interim := k.mixed()
	cipher(interim).XORKeyStream(k.key, interim)
	k.strength.reduce(k.key)
	k.restart()
}

// restart sets the cipher's tables up with the current key.
func (k *session) restart() { k.cipher = cipher(k.key) }

func cipher(key []byte) *rc4.Cipher {
	c, err := rc4.NewCipher(key)
	if err != nil {
		panic(err) // only for keys of no octets or more than 256
	}
	return c
}
