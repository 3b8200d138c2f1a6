package mschap

import (
	"encoding/hex"
	"strings"
	"testing"
)

func unhex[T ~[16]byte | ~[24]byte](t *testing.T, s string) (out T) {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil || len(b) != len(out) {
		t.Fatalf("%q: %d bytes, %v", s, len(b), err)
	}
	for i := range b {
		out[i] = b[i]
	}
	return out
}

// The test suite of RFC 1320, appendix A.5.
func TestMD4(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "31d6cfe0d16ae931b73c59d7e0c089c0",
		"a":                          "bde52cb31de33e46245e05fbdbd6fb24",
		"abc":                        "a448017aaf21d8525fc10ae87aa6729d",
		"message digest":             "d9130a8164549fe818874806e1c7014b",
		"abcdefghijklmnopqrstuvwxyz": "d79e1c308aa5bbcdeea8ed63df412da9",
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789":                   "043f8582f241db351ce627e153e7f0e4",
		"12345678901234567890123456789012345678901234567890123456789012345678901234567890": "e33b4ddc9c38f2199c3e7b164fcc0536",
	} {
		if got := md4([]byte(in)); hex.EncodeToString(got[:]) != want {
			t.Errorf("md4(%q) = %x instead of %s", in, got, want)
		}
	}
}

// RFC 2759 section 9.2.
func TestVectors(t *testing.T) {
	authenticator := unhex[Challenge](t, "5B5D7C7D7B3F2F3E3C2C602132262628")
	peer := unhex[Challenge](t, "21402324255E262A28295F2B3A337C7E")
	password := PasswordHash("clientPass")
	if want := unhex[Hash](t, "44EBBA8D5312B8D611474411F56989AE"); password != want {
		t.Errorf("password hash %x instead of %x", password, want)
	}
	if got, want := password.HashOfHash(), unhex[Hash](t, "41C00C584BD2D91C4017A2A12FA59F3F"); got != want {
		t.Errorf("hash of the hash %x instead of %x", got, want)
	}
	if got := challengeHash(authenticator, peer, "User"); hex.EncodeToString(got[:]) != "d02e4386bce91226" {
		t.Errorf("challenge hash %x", got)
	}
	response := Respond(authenticator, peer, "User", password)
	if want := unhex[Response](t, "82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF"); response != want {
		t.Errorf("response %x instead of %x", response, want)
	}
	// A domain before the name changes nothing.
	if got := Respond(authenticator, peer, `DOMAIN\User`, password); got != response {
		t.Errorf("with a domain: %x", got)
	}
	if got, want := Prove(authenticator, peer, "User", password, response), "S=407A5589115FD0D6209F510FE9C04566932CDA56"; got != want {
		t.Errorf("proof %s instead of %s", got, want)
	}
}
