package queue

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Process is who has a queue. The zero Process is not known.
type Process struct {
	PID  int
	Name string // as in /proc/PID/comm
}

func (p Process) String() string { return fmt.Sprintf("process %d, %s", p.PID, p.Name) }

// ownerOf finds the process that has the netfilter netlink socket with a port. The
// kernel tells the port of a queue's listener only; the port leads to a socket's
// inode, the inode to a file descriptor. It looks into every process, and is for
// error messages.
func ownerOf(port uint32) (Process, bool) {
	f, err := os.Open("/proc/thread-self/net/netlink")
	if err != nil {
		return Process{}, false
	}
	defer f.Close()
	inode, ok := inodeOf(f, port)
	if !ok {
		return Process{}, false
	}
	descriptors, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, d := range descriptors {
		if to, err := os.Readlink(d); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		dir := filepath.Dir(filepath.Dir(d))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		return Process{PID: pid, Name: strings.TrimSpace(string(name))}, true
	}
	return Process{}, false
}

// inodeOf reads the kernel's table of netlink sockets: the protocol is the second
// column, the port the third, the inode the last.
func inodeOf(r io.Reader, port uint32) (string, bool) {
	protocol, want := strconv.Itoa(unix.NETLINK_NETFILTER), strconv.FormatUint(uint64(port), 10)
	for s := bufio.NewScanner(r); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) >= 10 && f[1] == protocol && f[2] == want {
			return f[len(f)-1], true
		}
	}
	return "", false
}
