package mschap

import (
	"crypto/des"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Challenge is an authenticator's or a peer's challenge.
type Challenge [16]byte

// Hash is a digest of the password.
type Hash [16]byte

// Response is the proof of the client (NT-Response).
type Response [24]byte

// PasswordHash is NtPasswordHash (RFC 2759 section 8.3): over the password in
// UTF-16, least significant octet first.
func PasswordHash(password string) Hash {
	var b []byte
	for _, unit := range utf16.Encode([]rune(password)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return md4(b)
}

// HashOfHash is HashNtPasswordHash (section 8.4).
func (h Hash) HashOfHash() Hash { return md4(h[:]) }

// UserOf gives the user name without a domain before it: only this goes into
// the hash (section 4).
func UserOf(name string) string { return name[strings.LastIndexByte(name, '\\')+1:] }

// challengeHash is ChallengeHash (section 8.2).
func challengeHash(authenticator, peer Challenge, name string) [8]byte {
	h := sha1.New()
	h.Write(peer[:])
	h.Write(authenticator[:])
	h.Write([]byte(UserOf(name)))
	return [8]byte(h.Sum(nil))
}

// Respond is GenerateNTResponse (section 8.1): what the client sends.
func Respond(authenticator, peer Challenge, name string, password Hash) Response {
	challenge := challengeHash(authenticator, peer, name)
	var padded [21]byte // section 8.5: three DES keys of 56 bits
	copy(padded[:], password[:])
	var r Response
	for i := range 3 {
		block, err := des.NewCipher(spread([7]byte(padded[7*i:])))
		if err != nil {
			panic(err) // only for keys that are not of eight octets
		}
		block.Encrypt(r[8*i:], challenge[:])
	}
	return r
}

// spread puts 56 bits into the upper seven of eight octets; DES ignores the
// lowest, the parity (section 8.6).
func spread(key [7]byte) []byte {
	var bits uint64
	for _, b := range key {
		bits = bits<<8 | uint64(b)
	}
	out := make([]byte, 8)
	for i := range out {
		out[i] = byte(bits>>(49-7*i)) << 1
	}
	return out
}

// The constants of section 8.7.
const (
	magicProof  = "Magic server to client signing constant"
	magicProof2 = "Pad to make it do more than one iteration"
)

// Prove is GenerateAuthenticatorResponse (section 8.7): by it the server shows
// that it knows the password. It begins with "S=".
func Prove(authenticator, peer Challenge, name string, password Hash, response Response) string {
	twice := password.HashOfHash()
	first := sha1.New()
	first.Write(twice[:])
	first.Write(response[:])
	first.Write([]byte(magicProof))
	challenge := challengeHash(authenticator, peer, name)
	second := sha1.New()
	second.Write(first.Sum(nil))
	second.Write(challenge[:])
	second.Write([]byte(magicProof2))
	return fmt.Sprintf("S=%X", second.Sum(nil))
}
