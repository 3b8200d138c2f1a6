package privilege

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel says the same in another place.
func TestEffective(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Skip(err)
	}
	_, rest, _ := strings.Cut(string(b), "CapEff:")
	var set uint64
	if _, err := fmt.Sscanf(strings.TrimSpace(rest), "%x", &set); err != nil {
		t.Fatal(err)
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		got, err := Effective(c)
		if err != nil || got != (set>>c&1 == 1) {
			t.Errorf("capability %d: %v, %v; /proc says %x", c, got, err, set)
		}
	}
}

// A thread that gives CAP_NET_ADMIN up is told so.
func TestCheck(t *testing.T) {
	if had, err := Effective(unix.CAP_NET_ADMIN); err != nil {
		t.Fatal(err)
	} else if !had {
		if err := Check(); !errors.Is(err, ErrMissing) {
			t.Errorf("got %v", err)
		}
		t.Skip("the other half needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends, and its loss with it
		if err := Check(); err != nil {
			t.Errorf("with the capability: %v", err)
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		if err := Check(); !errors.Is(err, ErrMissing) {
			t.Errorf("without it: %v", err)
		}
	}()
	<-done
}
