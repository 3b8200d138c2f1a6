package config

import (
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

//go:embed reference.toml
var reference []byte

// The reference says what the defaults are, and knows every key.
func TestReference(t *testing.T) {
	c, err := Parse("reference.toml", reference)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, Default()) {
		t.Errorf("reference.toml says\n%+v\ndefaults are\n%+v", c, Default())
	}
	lines := lineIndex(reference)
	for _, k := range keys {
		if lines[k.name] == 0 {
			t.Errorf("reference.toml does not have %s", k.name)
		}
	}
}

// Each key reaches its own field.
func TestEveryKey(t *testing.T) {
	_, err := Parse("x.toml", []byte(`
queue = 7
ports = [1723, 1724]
socket = "/tmp/x.sock"
guard = "all"
anchor = "off"
fast_path = "on"
log_format = "json"
log_level = "debug"
call_id_range = "100 - 200"
remember = 8
limits = { calls_per_client = 1, calls_per_connection = 2, calls = 3 }
limits.connections_per_client = 4
limits.connections = 5
[timeouts]
half_open = "11s"
clearing = "12s"
grace = "13s"
rest = "14m"
`))
	if err == nil {
		t.Error("an inline table was extended: TOML forbids it")
	}
	c, err := Parse("x.toml", []byte(`
queue = 7
ports = [1723, 1724]
socket = "/tmp/x.sock"
state = ""
guard = "all"
anchor = "off"
fast_path = "on"
log_format = "json"
log_level = "debug"
call_id_range = "100 - 200"
remember = 8
limits.calls_per_client = 1
limits.calls_per_connection = 2
limits.calls = 3
limits.connections_per_client = 4
limits.connections = 0
limits.segments_per_client = 6
[timeouts]
half_open = "11s"
clearing = "12s"
grace = "13s"
rest = "14m"
silence = "15s"
unheard = "16s"
[call_log]
to = "tcp:[2001:db8::1]:601"
server_address = false
[capture]
directory = "/var/log/x"
total_megabytes = 16
connection_kilobytes = 17
[metrics]
listen = "127.0.0.1:18"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Queue: 7, Ports: []uint16{1723, 1724}, Socket: "/tmp/x.sock", Guard: GuardAll, Anchor: AnchorOff, FastPath: FastPathOn,
		LogFormat: LogJSON, LogLevel: slog.LevelDebug, CallIDs: CallIDs{100, 200},
		Limits:            Limits{1, 2, 3, 4, 0},
		SegmentsPerClient: 6,
		Timeouts:          Timeouts{11 * time.Second, 12 * time.Second, 13 * time.Second, 14 * time.Minute, 15 * time.Second, 16 * time.Second},
		Remember:          8,
		CallLog:           CallLog{"tcp:[2001:db8::1]:601", false},
		Capture:           Capture{"/var/log/x", 16, 17},
		Metrics:           Metrics{"127.0.0.1:18"},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"queue = 65536", "x.toml:1: queue must be a whole number from 0 to 65535, not 65536"},
		{"\n\nqueue = -1", "x.toml:3: queue must be a whole number from 0 to 65535, not -1"},
		{"queue = 1.5", "x.toml:1: queue must be a whole number from 0 to 65535, not 1.5"},
		{`queue = "1"`, `x.toml:1: queue must be a whole number from 0 to 65535, not the text "1"`},
		{"queue = 2024-01-01", "x.toml:1: queue must be a whole number from 0 to 65535, not a date or time"},
		{"queue = {}", "x.toml:1: queue must be a whole number from 0 to 65535, not a table"},
		{"ports = 1723", "x.toml:1: ports must be a list such as [1723], not 1723"},
		{"ports = []", "x.toml:1: ports must name at least one port"},
		{"ports = [0]", "x.toml:1: ports must be a list of ports; each must be a whole number from 1 to 65535, not 0"},
		{"ports = [" + manyPorts(129) + "]", "x.toml:1: ports must name at most 128 ports, not 129"},
		{"ports = [1, 1]", "x.toml:1: ports must name each port once; 1 is there twice"},
		{`socket = "x.sock"`, `x.toml:1: socket must be an absolute path, not "x.sock"`},
		{`socket = true`, "x.toml:1: socket must be a path in quotes, not true"},
		{`socket = "/` + strings.Repeat("x", 107) + `"`, "x.toml:1: socket must be at most 107 bytes long, a limit of Unix sockets"},
		{`guard = "some"`, `x.toml:1: guard must be "calls" or "all", not the text "some"`},
		{`anchor = "on"`, `x.toml:1: anchor must be "auto" or "ftp" or "off", not the text "on"`},
		{`log_format = "xml"`, `x.toml:1: log_format must be "text" or "json", not the text "xml"`},
		{`log_level = 3`, `x.toml:1: log_level must be "debug" or "info" or "warn" or "error", not 3`},
		{`call_id_range = 5`, `x.toml:1: call_id_range must be a range such as "1-65535", not 5`},
		{`call_id_range = "0-9"`, `x.toml:1: call_id_range must be a range such as "1-65535": each end must be a whole number from 1 to 65535, not 0`},
		{`call_id_range = "a-9"`, `x.toml:1: call_id_range must be a range such as "1-65535": each end must be a whole number from 1 to 65535, not the text "a"`},
		{`call_id_range = "9-1"`, `x.toml:1: call_id_range must have its smaller end first, not "9-1"`},
		{"[limits]\ncalls = -1", "x.toml:2: limits.calls must be \"auto\" or a whole number from 0 to 10000000, not -1"},
		{"limits = { calls = -1 }", "x.toml:1: limits.calls must be \"auto\" or a whole number from 0 to 10000000, not -1"},
		{`call_log.to = "tcp:host"`, `x.toml:1: call_log.to must be "journal", "syslog", "udp:HOST:PORT", "tcp:HOST:PORT", the absolute path of a file, or empty, not the text "tcp:host"`},
		{`call_log.to = "calls.log"`, `x.toml:1: call_log.to must be "journal", "syslog", "udp:HOST:PORT", "tcp:HOST:PORT", the absolute path of a file, or empty, not the text "calls.log"`},
		{`call_log.server_address = 1`, `x.toml:1: call_log.server_address must be true or false, not 1`},
		{`capture.directory = "here"`, `x.toml:1: capture.directory must be the absolute path of a directory, or empty, not the text "here"`},
		{`capture.connection_kilobytes = 1`, `x.toml:1: capture.connection_kilobytes must be a whole number from 4 to 10000, not 1`},
		{`metrics.listen = "9723"`, `x.toml:1: metrics.listen must be an address such as "127.0.0.1:9723", the absolute path of a Unix socket, or empty, not the text "9723"`},
		{`metrics.listen = "/` + strings.Repeat("x", 107) + `"`, "x.toml:1: metrics.listen must be at most 107 bytes long, a limit of Unix sockets"},
		{"limits = 4", "x.toml:1: limits must be a table, not 4"},
		{"[[limits]]", "x.toml:1: limits must be a table, not a list"},
		{"[timeouts]\n\nrest = 60", `x.toml:3: timeouts.rest must be a duration in quotes, such as "90s" or "2m", not 60`},
		{`timeouts.half_open = "0s"`, `x.toml:1: timeouts.half_open must be from 1s to 1h, not "0s"`},
		{`timeouts.rest = "48h"`, `x.toml:1: timeouts.rest must be from 0s to 24h, not "48h"`},
		{`timeouts.grace = "6m"`, `x.toml:1: timeouts.grace must be from 0s to 5m, not "6m"`},
		{"# only\nqeue = 4", "x.toml:2: qeue is not a key (did you mean queue?)"},
		{"[limit]\nx = 1", "x.toml:1: limit is not a key (did you mean limits?)"},
		{"half_open = '1s'", "x.toml:1: half_open is not a key (did you mean timeouts.half_open?)"},
		{"[limits]\nqueue = 1", "x.toml:2: limits.queue is not a key (did you mean queue?)"},
		{"listen = 1", "x.toml:1: listen is not a key (did you mean metrics.listen?)"},
		{`"limits.calls" = 1`, `x.toml:1: "limits.calls" is not a key (did you mean limits.calls?)`},
		{"queue = 1\nqueue = 2", "x.toml:2: not valid TOML: key queue is already defined"},
		{"queue = \n", "x.toml:1: not valid TOML: "},
		{"queue", "x.toml:1: not valid TOML: "},
		{"queue = 99999999999999999999", "x.toml:1: not valid TOML: "},
	} {
		_, err := Parse("x.toml", []byte(c.file))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || (!strings.HasSuffix(c.want, ": ") && err.Error() != c.want) {
			t.Errorf("%s\n got %v\nwant %s", c.file, err, c.want)
		}
	}
}

// All faults come at once, in the file's order.
func TestAllFaults(t *testing.T) {
	_, err := Parse("x.toml", []byte("remember = 'x'\n[limits]\nb = 1\na = 1\ncalls = 'y'\n"))
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d faults: %v", len(lines), err)
	}
	for i, want := range []string{"x.toml:1: remember", "x.toml:3: limits.b", "x.toml:4: limits.a", "x.toml:5: limits.calls"} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("fault %d is %q, want %q", i, lines[i], want)
		}
	}
	var e *Error
	if !errors.As(err, &e) || e.Line != 1 || e.Key != "remember" {
		t.Errorf("first error is %+v", e)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(path, []byte("queue = 5"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || c.Queue != 5 || c.Socket != DefaultSocket {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := Load(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("large file: %v", err)
	}
}

func TestFlagValues(t *testing.T) {
	if p, err := ParsePort("1724"); p != 1724 || err != nil {
		t.Errorf("port %d, %v", p, err)
	}
	for _, s := range []string{"0", "65536", "-1", "", "x", "1e3"} {
		if _, err := ParsePort(s); err == nil || !strings.HasPrefix(err.Error(), "must be a whole number from 1 to 65535") {
			t.Errorf("port %q: %v", s, err)
		}
	}
	if q, err := ParseQueue("0"); q != 0 || err != nil {
		t.Errorf("queue %d, %v", q, err)
	}
	if l, err := ParseLogLevel("warn"); l != slog.LevelWarn || err != nil {
		t.Errorf("level %v, %v", l, err)
	}
	if _, err := ParseLogLevel("loud"); err == nil {
		t.Error("no error for level loud")
	}
	if f, err := ParseLogFormat("json"); f != LogJSON || err != nil {
		t.Errorf("format %v, %v", f, err)
	}
	if s, err := ParseSocket("/a"); s != "/a" || err != nil {
		t.Errorf("socket %q, %v", s, err)
	}
	if _, err := ParseSocket("/" + strings.Repeat("a", 107)); err == nil {
		t.Error("no error for a path that fits no socket")
	}
}

func TestClone(t *testing.T) {
	a := Default()
	b := a.Clone()
	b.Ports[0] = 1
	if a.Ports[0] == 1 {
		t.Error("a clone shares its ports")
	}
}

// Any bytes: no panic; a file that is taken gives possible values only; a fault
// always has its line.
func FuzzParse(f *testing.F) {
	f.Add(reference)
	f.Add([]byte("queue = 70000\n[limits]\ncall = 1"))
	f.Add([]byte("limits = { calls = 1 }\nports = [1, 2]"))
	f.Add([]byte(`"a.b" = 1`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("x.toml", data)
		if err != nil {
			return
		}
		if len(c.Ports) == 0 || c.CallIDs.First == 0 || c.CallIDs.First > c.CallIDs.Last || c.Socket[0] != '/' {
			t.Errorf("%q gives %+v", data, c)
		}
		if c.Limits.Calls < 0 || c.Timeouts.HalfOpen <= 0 || c.Timeouts.Grace < 0 {
			t.Errorf("%q gives %+v", data, c)
		}
	})
}

// manyPorts lists the ports from 1 on.
func manyPorts(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d, ", i+1)
	}
	return b.String()
}

func TestMostPorts(t *testing.T) {
	c, err := Parse("x.toml", []byte("ports = ["+manyPorts(MaxPorts)+"]"))
	if err != nil || len(c.Ports) != MaxPorts {
		t.Errorf("%d ports: %v", len(c.Ports), err)
	}
}

// The state file follows the socket, and so its lock, unless somebody put it elsewhere.
func TestStatePath(t *testing.T) {
	c := Default()
	if c.StatePath() != DefaultState {
		t.Errorf("with the default socket %q, want %q", c.StatePath(), DefaultState)
	}
	for socket, want := range map[string]string{"/tmp/a.sock": "/tmp/a.state", "/tmp/b": "/tmp/b.state"} {
		c.Socket = socket
		if c.StatePath() != want {
			t.Errorf("beside %s: %q", socket, c.StatePath())
		}
	}
	for _, state := range []string{"", "/var/lib/pptp"} {
		if c.State = state; c.StatePath() != state {
			t.Errorf("%q became %q", state, c.StatePath())
		}
	}
	if _, err := Parse("x.toml", []byte(`state = "relative"`)); err == nil {
		t.Error("a relative path was taken")
	}
}
