package bench

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is where and when something was measured.
type Machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	Memory    int64  `json:"memory_bytes"`
	Virtual   bool   `json:"virtual_machine"`
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
	Version   string `json:"version"` // of pptp-alg
	Date      string `json:"date"`
	Load      string `json:"load_average"` // when it began
	Rounds    int    `json:"rounds"`
}

// thisMachine describes the machine that the process runs on.
func thisMachine(version string, rounds int) Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Version: version, Date: time.Now().UTC().Format(time.DateOnly), Rounds: rounds}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(info) {
		key, value, _ := strings.Cut(string(line), ":")
		switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
		case "model name":
			m.Processor = value
		case "flags":
			m.Virtual = strings.Contains(" "+value+" ", " hypervisor ")
		}
	}
	var sys unix.Sysinfo_t
	if unix.Sysinfo(&sys) == nil {
		m.Memory = int64(sys.Totalram) * int64(sys.Unit)
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(load)); len(f) > 3 {
			m.Load = strings.Join(f[:3], " ")
		}
	}
	return m
}
