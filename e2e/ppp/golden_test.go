package ppp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"pptp-alg/e2e/ppp/mppe"
)

// Two ends that share a misreading get along with each other. So here are
// frames written by hand from the RFCs' drawings.

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// script is a source of random numbers that says what a test wants.
type script struct{ *bytes.Reader }

// frames checks what an end has to say.
func frames(t *testing.T, l *Link, want ...string) {
	t.Helper()
	got := l.Take().Frames
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("frame %d is missing: %s", i, want[i])
		case i >= len(want):
			t.Errorf("frame %d is one too many: %x", i, got[i])
		case !bytes.Equal(got[i], unhex(t, want[i])):
			t.Errorf("frame %d is\n%x instead of\n%x", i, got[i], unhex(t, want[i]))
		}
	}
}

// A client, with the challenges, name and password of RFC 2759 section 9.2.
func TestClientFrames(t *testing.T) {
	random := unhex(t, "10 50 20 60 30 70"+ // the first identifiers
		"01020304"+ // magic number, made odd
		"77"+ // an identifier that PAP would have used
		"21402324255E262A28295F2B3A337C7E") // peer's challenge
	accm := uint32(0xa0000)
	l := New(Config{MRU: 1400, ACCM: &accm, Magic: true, PFC: true, ACFC: true, User: "User", Password: "clientPass", Offer: []Method{MSCHAPv2},
		Encryption: Encryption{Strengths: []mppe.Strength{mppe.Bits128}, Stateless: true}, Random: script{bytes.NewReader(random)}})
	l.Start(epoch)
	const options = "01 04 0578  02 06 000a0000  05 06 01020305  07 02  08 02"
	frames(t, l, "ff03 c021 01 11 0018"+options)
	l.Receive(epoch, unhex(t, "ff03 c021 02 11 0018"+options))

	// The server: MS-CHAPv2 and no other; something unknown has to go first.
	l.Receive(epoch, unhex(t, "ff03 c021 01 01 000d  03 05 c22381  17 04 0001"))
	frames(t, l, "ff03 c021 04 01 0008  17 04 0001")
	l.Receive(epoch, unhex(t, "ff03 c021 01 02 0009  03 05 c22305"))
	frames(t, l, "ff03 c021 03 02 0009  03 05 c22381")
	l.Receive(epoch, unhex(t, "ff03 c021 01 03 000d  03 05 c22381  07 02  08 02"))
	frames(t, l, "ff03 c021 02 03 000d  03 05 c22381  07 02  08 02")

	l.Receive(epoch, unhex(t, "c223 01 2a 001a 10 5B5D7C7D7B3F2F3E3C2C602132262628 73656c66 0a"))
	frames(t, l, "c223 02 2a 003a 31 21402324255E262A28295F2B3A337C7E 0000000000000000"+
		"82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF 00 55736572")
	if l.Phase() != Authenticate {
		t.Fatalf("phase %v", l.Phase())
	}
	proof := "S=407A5589115FD0D6209F510FE9C04566932CDA56 M=hello"
	l.Receive(epoch, append(unhex(t, "c223 03 2a 0036"), proof...))
	// MPPE: H and S (RFC 3078 section 2).
	frames(t, l, "80fd 01 21 000a 12 06 01000040")
	// RFC 3079 section 3.5.3: the RFC's server sends with this one.
	if got, want := l.keys.start(false, mppe.Bits128), unhex(t, "8B7CDC149B993A1BA118CB153F56DCCB"); !bytes.Equal(got, want) {
		t.Errorf("the client receives with %x", got)
	}
	server := keys{hash: l.keys.hash, response: l.keys.response, server: true}
	if !bytes.Equal(server.start(true, mppe.Bits128), l.keys.start(false, mppe.Bits128)) ||
		!bytes.Equal(server.start(false, mppe.Bits128), l.keys.start(true, mppe.Bits128)) {
		t.Error("client and server have different keys")
	}
	// All strengths at once: pick one.
	l.Receive(epoch, unhex(t, "80fd 01 09 000a 12 06 010000e1"))
	frames(t, l, "80fd 03 09 000a 12 06 01000040")
	l.Receive(epoch, unhex(t, "80fd 01 0a 000a 12 06 01000040"))
	l.Receive(epoch, unhex(t, "80fd 02 21 000a 12 06 01000040"))
	frames(t, l, "80fd 02 0a 000a 12 06 01000040", "8021 01 31 000a 03 06 00000000")
	l.Receive(epoch, unhex(t, "8021 03 31 000a 03 06 ac140002"))
	frames(t, l, "8021 01 32 000a 03 06 ac140002")
	// Compression of headers is not for us.
	l.Receive(epoch, unhex(t, "8021 01 01 0010 02 06 002d0f01 03 06 ac140001"))
	frames(t, l, "8021 04 01 000a 02 06 002d0f01")
	l.Receive(epoch, unhex(t, "8021 01 02 000a 03 06 ac140001"))
	l.Receive(epoch, unhex(t, "8021 02 32 000a 03 06 ac140002"))
	frames(t, l, "8021 02 02 000a 03 06 ac140001")
	if l.Phase() != Up || l.Local() != netip.MustParseAddr("172.20.0.2") || l.Remote() != netip.MustParseAddr("172.20.0.1") {
		t.Fatalf("%v, %v, %v, %v", l.Phase(), l.Err(), l.Local(), l.Remote())
	}
	if err := l.Send([]byte("datagram")); err != nil {
		t.Fatal(err)
	}
	// MPPE, short protocol field, first packet, FLUSHED and encrypted.
	if got := l.Take().Frames[0]; !bytes.HasPrefix(got, unhex(t, "fd 9000")) || len(got) != 3+2+8 {
		t.Errorf("an encrypted datagram is %x", got)
	}
}

// PAP and CHAP with MD5 from the server's side.
func TestServerFrames(t *testing.T) {
	random := func() script {
		return script{bytes.NewReader(append(unhex(t, "10 50 20 60 30 70 2a"), bytes.Repeat([]byte{0xcc}, 40)...))}
	}
	secret := func(string) (string, bool) { return "secret", true }

	l := New(Config{Demand: []Method{PAP}, Secret: secret, Random: random()})
	l.Start(epoch)
	frames(t, l, "ff03 c021 01 11 0008 03 04 c023")
	l.Receive(epoch, unhex(t, "ff03 c021 02 11 0008 03 04 c023"))
	l.Receive(epoch, unhex(t, "ff03 c021 01 01 0004"))
	frames(t, l, "ff03 c021 02 01 0004")
	l.Receive(epoch, unhex(t, "ff03 c023 01 05 0010 04 55736572 06 736563726574"))
	frames(t, l, "ff03 c023 02 05 0005 00", "ff03 8021 01 31 000a 03 06 00000000")

	// The MD5 of identifier 2a, "secret", sixteen times cc.
	l = New(Config{Demand: []Method{CHAPMD5}, Secret: secret, Name: "me", Random: random()})
	l.Start(epoch)
	frames(t, l, "ff03 c021 01 11 0009 03 05 c22305")
	l.Receive(epoch, unhex(t, "ff03 c021 02 11 0009 03 05 c22305"))
	l.Receive(epoch, unhex(t, "ff03 c021 01 01 0004"))
	frames(t, l, "ff03 c021 02 01 0004", "ff03 c223 01 2a 0017 10 "+strings.Repeat("cc", 16)+"6d65")
	l.Receive(epoch, unhex(t, "ff03 c223 02 2a 0019 10 "+md5OfSecret+"55736572"))
	if l.User() != "User" {
		t.Errorf("the right answer was not taken: %v", l.Err())
	}
	l.Take()
	l.Receive(epoch, unhex(t, "ff03 c021 05 07 0004"))
	frames(t, l, "ff03 c021 06 07 0004")
	if !errors.Is(l.Err(), ErrTerminated) {
		t.Errorf("%v", l.Err())
	}
}

// md5OfSecret was made with another program.
const md5OfSecret = "40ee11aedc083e1a28b75303e7971dfd"
