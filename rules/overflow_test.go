package rules

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// When the kernel has more to say than the socket's buffer holds (ENOBUFS), that request fails and the next one works.
func TestRequestsSurviveAnOverflow(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	must(t, k.Apply(installable(t, k, Config{Queue: 1, Ports: []uint16{1723}}), numbered(1)))
	must(t, k.raw.Control(func(fd uintptr) {
		must(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1)) // the kernel's least
	}))
	// Each of these is answered with an error.
	var wrong []message
	for range 2000 {
		m := deleteTable()
		m.kind = unix.NFT_MSG_GETTABLE
		m.attributes = named()[:4]
		wrong = append(wrong, m)
	}
	_, err := k.transact(wrong, true)
	if !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("2,000 errors in a buffer for a few: %v, want ENOBUFS", err)
	}
	must(t, k.Add(numbered(2)))
	sameCalls(t, k, numbered(1), numbered(2))
	must(t, k.Delete(numbered(1)))
	sameCalls(t, k, numbered(2))
}
