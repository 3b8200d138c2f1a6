package e2e

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
)

// A service manager (sd_notify(3)) hears when the daemon is ready, that it
// lives, and of reloads and its end, in this order.
func TestServiceManager(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 1})
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	w.must(err)
	t.Cleanup(func() { _ = conn.Close() })
	// hear returns what comes next, without the signs of life but counting them.
	pulses := 0
	hear := func() string {
		w.must(conn.SetReadDeadline(time.Now().Add(patience)))
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			w.must(err)
			if s := string(buf[:n]); s != "WATCHDOG=1" {
				return s
			}
			pulses++
		}
	}

	d, err := w.Router.StartDaemon(lab.DaemonOptions{
		Program: program(w), Config: quickConfig, Env: []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=100000"},
	})
	w.must(err)
	w.daemon = d
	if s := hear(); !strings.HasPrefix(s, "READY=1\nSTATUS=") {
		t.Fatalf("first heard %q", s)
	}
	if _, err := d.Status(w.ctx); err != nil {
		t.Errorf("ready, and yet: %v", err)
	}
	if pulses != 0 {
		t.Error("a sign of life from a daemon that was not ready")
	}
	w.must(conn.SetReadDeadline(time.Now().Add(patience)))
	for buf := make([]byte, 4096); pulses < 3; pulses++ {
		n, err := conn.Read(buf)
		w.must(err)
		if s := string(buf[:n]); s != "WATCHDOG=1" {
			t.Fatalf("heard %q, want signs of life", s)
		}
	}
	w.must(d.Signal(syscall.SIGHUP))
	if s := hear(); !strings.HasPrefix(s, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("heard %q at a reload", s)
	}
	if s := hear(); !strings.HasPrefix(s, "READY=1") {
		t.Errorf("heard %q after a reload", s)
	}
	w.must(d.Stop(w.ctx))
	if s := hear(); s != "STOPPING=1" {
		t.Errorf("heard %q at the end", s)
	}
}
