package config

import (
	"strings"
	"testing"
)

// Small routers get small limits, large ones what they can use, and all of it is a sixteenth of the memory.
func TestLimitsFor(t *testing.T) {
	const MB = 1 << 20
	for _, c := range []struct {
		memory uint64
		want   Limits
	}{
		{0, Limits{CallsPerClient: 128, CallsPerConnection: 4096, Calls: 1024, ConnectionsPerClient: 32, Connections: 256}},
		{32 * MB, Limits{CallsPerClient: 128, CallsPerConnection: 4096, Calls: 1024, ConnectionsPerClient: 32, Connections: 256}},
		{128 * MB, Limits{CallsPerClient: 256, CallsPerConnection: 4096, Calls: 2048, ConnectionsPerClient: 64, Connections: 512}},
		{1024 * MB, Limits{CallsPerClient: 2048, CallsPerConnection: 4096, Calls: 16384, ConnectionsPerClient: 512, Connections: 4096}},
		{1 << 40, Limits{CallsPerClient: 4096, CallsPerConnection: 4096, Calls: 100_000, ConnectionsPerClient: 1024, Connections: 32768}},
	} {
		if got := limitsFor(c.memory); got != c.want {
			t.Errorf("%d MB: %+v, want %+v", c.memory/MB, got, c.want)
		}
	}
	for memory := uint64(64 * MB); memory < 1<<35; memory += memory / 7 {
		l := limitsFor(memory)
		if takes := uint64(l.Connections)*10_000 + uint64(l.Calls)*1000; takes > memory/16 {
			t.Errorf("%d MB: %+v takes %d bytes", memory/MB, l, takes)
		}
		if l.CallsPerClient > l.Calls/8 || l.ConnectionsPerClient > l.Connections/8 {
			t.Errorf("%d MB: one client may take all of %+v", memory/MB, l)
		}
	}
	if m := machineMemory(); m < 16*MB {
		t.Errorf("this machine has %d bytes of memory", m)
	}
}

func TestAuto(t *testing.T) {
	was := machineMemory
	defer func() { machineMemory = was }()
	machineMemory = func() uint64 { return 128 << 20 }
	c, err := Parse("x", []byte("[limits]\ncalls = 50000\nconnections = \"auto\"\n"))
	if err != nil || c.Limits.Calls != 50_000 || c.Limits.Connections != 512 || c.Limits.CallsPerClient != 256 {
		t.Errorf("%+v, %v", c.Limits, err)
	}
	if s := c.String(); !strings.Contains(s, "\ncalls = 50000\n") || !strings.Contains(s, "\nconnections = 512  # as \"auto\" has it, by the machine's memory\n") {
		t.Error(s)
	}
	for _, bad := range []string{`"automatic"`, `-1`, `true`} {
		if _, err := Parse("x", []byte("limits.calls = "+bad)); err == nil || !strings.Contains(err.Error(), `must be "auto" or a whole number from 0`) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
