package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what a process has used.
type usage struct {
	cpu      time.Duration
	wakeups  int // times that one of its threads was put on a processor after it had slept
	resident int // bytes of memory
	anon     int // of them, those that are no file's: heap, stacks
}

// use reads what a process has used so far (proc(5)).
func use(pid int) (u usage, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	if err != nil || len(threads) == 0 {
		return u, fmt.Errorf("read usage of process %d: no threads", pid)
	}
	for _, t := range threads {
		schedstat, err := os.ReadFile(filepath.Join(t, "schedstat"))
		if err != nil {
			return u, fmt.Errorf("read usage of process %d: %w", pid, err)
		}
		var ran int64 // nanoseconds
		if _, err := fmt.Sscan(string(schedstat), &ran); err != nil {
			return u, fmt.Errorf("read usage of process %d: %w", pid, err)
		}
		u.cpu += time.Duration(ran)
		status, err := os.ReadFile(filepath.Join(t, "status"))
		if err != nil {
			return u, fmt.Errorf("read usage of process %d: %w", pid, err)
		}
		u.wakeups += field(status, "voluntary_ctxt_switches")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, fmt.Errorf("read usage of process %d: %w", pid, err)
	}
	u.resident, u.anon = 1024*field(status, "VmRSS"), 1024*field(status, "RssAnon")
	return u, nil
}

// field reads a number of /proc/PID/status.
func field(status []byte, name string) int {
	for line := range bytes.Lines(status) {
		if key, value, _ := strings.Cut(string(line), ":"); key == name {
			words := strings.Fields(value)
			if len(words) > 0 {
				n, _ := strconv.Atoi(words[0])
				return n
			}
		}
	}
	return 0
}
