package calllog

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// Sockets of the machine's own loggers.
const (
	syslogSocket  = "/dev/log"
	journalSocket = "/run/systemd/journal/socket"
)

// priority is facility daemon (3), severity informational (6): RFC 5424, section
// 6.2.1.
const priority = 3*8 + 6

// patience is how long a sink may take for a record.
const patience = 2 * time.Second

// identifier is this program's name in logs.
const identifier = "pptp-alg"

// syslog is a sink of RFC 5424, over datagrams (RFC 5426) or TCP, where each
// message is preceded by its length (RFC 6587, section 3.4.1).
type syslog struct {
	c      net.Conn
	stream bool
	host   string
}

func openSyslog(network, address string) (sink, error) {
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "-"
	}
	return &syslog{c, network == "tcp", strings.Join(strings.Fields(clean(host)), "")}, nil
}

func (s *syslog) write(r *Record) error {
	line := fmt.Sprintf("<%d>1 %s %s %s %d %s - %s", priority, r.stamp(), s.host, identifier, os.Getpid(), r.Event, r.message())
	if s.stream {
		if gone(s.c) {
			return io.ErrClosedPipe
		}
		line = fmt.Sprintf("%d %s", len(line), line)
	}
	return send(s.c, line)
}

func (s *syslog) close() { s.c.Close() }

// gone reports whether the other side has closed the connection: the first record
// after that would be accepted by the kernel, and lost.
func gone(c net.Conn) bool {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		closed = n == 0 && err == nil || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
		return true
	})
	return closed || err != nil
}

func send(c net.Conn, text string) error {
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := io.WriteString(c, text)
	return err
}

// journal is a sink of systemd's journal, in its native protocol: a datagram of
// NAME=VALUE lines. `journalctl PPTP_CLIENT=10.0.0.11` finds a client's calls.
type journal struct{ c net.Conn }

func openJournal(socket string) (sink, error) {
	c, err := net.Dial("unixgram", socket)
	if err != nil {
		return nil, err
	}
	return &journal{c}, nil
}

func (s *journal) write(r *Record) error {
	var b strings.Builder
	line := func(name, value string) { b.WriteString(name + "=" + value + "\n") }
	line("MESSAGE", r.message())
	line("PRIORITY", "6")
	line("SYSLOG_FACILITY", "3")
	line("SYSLOG_IDENTIFIER", identifier)
	line("PPTP_EVENT", r.Event)
	line("PPTP_TIME", r.stamp())
	for _, f := range r.fields() {
		line("PPTP_"+strings.ToUpper(f.name), f.value)
	}
	return send(s.c, b.String())
}

func (s *journal) close() { s.c.Close() }
