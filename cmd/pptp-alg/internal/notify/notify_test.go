package notify

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// manager listens as a service manager does, and returns what comes.
func manager(t *testing.T, address string) func() string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func() string {
		buf := make([]byte, 1024)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func connect(t *testing.T) *Manager {
	t.Helper()
	m, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// What is said arrives as sd_notify(3) has it, by a path and by an abstract name.
func TestMessages(t *testing.T) {
	for name, address := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": fmt.Sprintf("@pptp-alg-notify-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			receive := manager(t, address)
			t.Setenv("NOTIFY_SOCKET", address)
			m := connect(t)
			for _, c := range []struct {
				say  func() error
				want string
			}{
				{func() error { return m.Ready("2 calls taken over") }, "^READY=1\nSTATUS=2 calls taken over$"},
				{m.Alive, "^WATCHDOG=1$"},
				{m.Reloading, "^RELOADING=1\nMONOTONIC_USEC=[0-9]+$"},
				{m.Stopping, "^STOPPING=1$"},
			} {
				if err := c.say(); err != nil {
					t.Fatal(err)
				}
				if got := receive(); !regexp.MustCompile(c.want).MatchString(got) {
					t.Errorf("said %q, want %s", got, c.want)
				}
			}
		})
	}
}

// The watchdog is meant for the process that it names, and the variables are
// not handed on.
func TestPulse(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	manager(t, address)
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"20000000", "", 10 * time.Second},
		{"20000000", strconv.Itoa(os.Getpid()), 10 * time.Second},
		{"20000000", "1", 0},
		{"soon", "", 0},
	} {
		t.Setenv("NOTIFY_SOCKET", address)
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := connect(t).Pulse(); got != c.want {
			t.Errorf("%+v: pulse %v", c, got)
		}
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			if _, there := os.LookupEnv(name); there {
				t.Errorf("$%s is still set", name)
			}
		}
	}
}

// Without a service manager nothing is said and nothing fails.
func TestNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	m := connect(t)
	if m != nil || m.Pulse() != 0 || m.Ready("") != nil || m.Alive() != nil || m.Reloading() != nil || m.Stopping() != nil || m.Close() != nil {
		t.Error("a manager that is not there answers")
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if _, err := FromEnvironment(); err == nil {
		t.Error("no error for a socket that is not there")
	}
}
