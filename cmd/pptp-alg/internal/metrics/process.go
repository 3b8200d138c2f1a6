package metrics

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// ticks is how many clock ticks the kernel reports a second, USER_HZ: 100 on
// every architecture that Go runs on.
const ticks = 100

// Process describes this process, with the names that Prometheus recommends
// to all clients. What /proc does not tell is left out.
func Process() []Family {
	families := []Family{
		One("go_goroutines", "Goroutines that exist.", Gauge, float64(runtime.NumGoroutine())),
	}
	add := func(name, help string, kind Kind, v float64) { families = append(families, One(name, help, kind, v)) }
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		add("process_open_fds", "Open file descriptors.", Gauge, float64(len(fds)-1)) // one is the directory
	}
	if limits, err := os.ReadFile("/proc/self/limits"); err == nil {
		if n, ok := maxFiles(limits); ok {
			add("process_max_fds", "The most file descriptors that can be open.", Gauge, n)
		}
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return families
	}
	// The name of the program, in parentheses, may hold anything.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	field := func(n int) float64 { // as proc(5) numbers them
		v, _ := strconv.ParseFloat(f[n-3], 64)
		return v
	}
	if len(f) < 24-2 {
		return families
	}
	add("process_cpu_seconds_total", "CPU time spent in user and kernel mode, in seconds.", Counter, (field(14)+field(15))/ticks)
	add("process_virtual_memory_bytes", "Virtual memory, in bytes.", Gauge, field(23))
	add("process_resident_memory_bytes", "Resident memory, in bytes.", Gauge, field(24)*float64(os.Getpagesize()))
	if boot, ok := bootTime(); ok {
		add("process_start_time_seconds", "When the process started, in seconds since 1970.", Gauge, boot+field(22)/ticks)
	}
	return families
}

// maxFiles finds the soft limit in /proc/self/limits.
func maxFiles(limits []byte) (float64, bool) {
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, err := strconv.ParseUint(f[0], 10, 64)
				return float64(n), err == nil
			}
		}
	}
	return 0, false
}

// bootTime is when the kernel started, in seconds since 1970.
func bootTime() (float64, bool) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			t, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return t, err == nil
		}
	}
	return 0, false
}
