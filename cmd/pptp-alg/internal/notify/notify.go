// Package notify tells the service manager how the daemon is, in the protocol
// of sd_notify(3): datagrams of lines to the socket that $NOTIFY_SOCKET names.
package notify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Manager is the service manager. A nil Manager, which is what one gets where
// nobody wants to be told, takes every message and does nothing.
type Manager struct {
	conn     *net.UnixConn
	watchdog time.Duration
}

// FromEnvironment returns the manager that started this process, or nil. It
// takes the variables out of the environment: they are meant for this process
// only.
func FromEnvironment() (*Manager, error) {
	socket, usec, pid := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if socket == "" {
		return nil, nil
	}
	// A name that begins with @ is in the abstract namespace, which package
	// net knows too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("reach the service manager at $NOTIFY_SOCKET: %w", err)
	}
	m := &Manager{conn: conn}
	if pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if n, err := strconv.ParseUint(usec, 10, 63); err == nil {
			m.watchdog = time.Duration(n) * time.Microsecond
		}
	}
	return m, nil
}

// Pulse is how often Alive has to be said: half the time after which the
// manager takes the daemon for dead. 0: it does not watch.
func (m *Manager) Pulse() time.Duration {
	if m == nil {
		return 0
	}
	return m.watchdog / 2
}

// Ready says that the daemon works, after its start or after a reload. status
// is for people.
func (m *Manager) Ready(status string) error { return m.send("READY=1\nSTATUS=" + status) }

// Alive says that the daemon still works.
func (m *Manager) Alive() error { return m.send("WATCHDOG=1") }

// Stopping says that the daemon is about to end.
func (m *Manager) Stopping() error { return m.send("STOPPING=1") }

// Reloading says that the configuration is being read again; Ready follows.
// The time is what Type=notify-reload asks for.
func (m *Manager) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	return m.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

func (m *Manager) send(message string) error {
	if m == nil {
		return nil
	}
	if _, err := m.conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// Close gives the socket back.
func (m *Manager) Close() error {
	if m == nil {
		return nil
	}
	return m.conn.Close()
}
