package config

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// auto is a limit that is chosen by the machine's memory.
const auto = "auto"

// machineMemory returns the machine's memory in bytes; 0: nobody knows.
var machineMemory = func() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * max(uint64(info.Unit), 1)
}

// limitsFor returns the limits for a machine with so much memory. A control connection takes 10 KB
// at most and a call 1 KB, so all of them take a sixteenth of it; the garbage collector may let that
// become an eighth. A provider's router has as many as make sense: 64 Ki Call IDs a server.
func limitsFor(memory uint64) Limits {
	bound := func(per, least, most uint64) int { return int(min(max(memory/per, least), most)) }
	l := Limits{
		Calls:       bound(64<<10, 1024, 100_000),
		Connections: bound(256<<10, 256, 32_768),
		// An access concentrator inside may carry thousands of calls over one connection; a client
		// at home has one or two.
		CallsPerConnection: 4096,
	}
	// What one client cannot take is for the others.
	l.CallsPerClient = min(l.Calls/8, 4096)
	l.ConnectionsPerClient = min(l.Connections/8, 1024)
	return l
}

// autoLimit is limit for one of which "auto" can be said.
func autoLimit(field func(*Limits) *int) func(*Config, any) error {
	return func(c *Config, v any) error {
		if v == auto {
			l := limitsFor(machineMemory())
			*field(&c.Limits) = *field(&l)
			return nil
		}
		if err := limit(field)(c, v); err != nil {
			return errors.New(`be "auto" or ` + err.Error()[len("be "):])
		}
		return nil
	}
}

// byMemory reports whether the key can be "auto".
func (k key) byMemory() bool {
	var c Config
	return strings.HasPrefix(k.name, "limits.") && k.set(&c, auto) == nil
}
