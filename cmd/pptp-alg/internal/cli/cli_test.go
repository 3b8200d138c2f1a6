package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/control"
	"pptp-alg/cmd/pptp-alg/internal/status"
)

var update = flag.Bool("update", false, "write the golden files")

// exec runs a command line.
func exec(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Program{Version: "v1.2.3", Stdout: &out, Stderr: &err}.Main(t.Context(), args)
	return code, out.String(), err.String()
}

// golden compares with a file of testdata; `go test -update` writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestHelp(t *testing.T) {
	code, overview, stderr := exec(t, "help")
	if code != 0 || stderr != "" {
		t.Errorf("help: code %d, stderr %q", code, stderr)
	}
	golden(t, "help.txt", overview)
	for _, flag := range []string{"-h", "--help"} {
		if code, out, _ := exec(t, flag); code != 0 || out != overview {
			t.Errorf("%s: code %d, %q", flag, code, out)
		}
	}
	for _, c := range commands() {
		code, out, stderr := exec(t, c.name, "--help")
		if code != 0 || stderr != "" {
			t.Errorf("%s --help: code %d, stderr %q", c.name, code, stderr)
		}
		golden(t, "help-"+c.name+".txt", out)
		if _, again, _ := exec(t, "help", c.name); again != out {
			t.Errorf("help %s differs from %s --help", c.name, c.name)
		}
		for _, l := range strings.Split(out, "\n") {
			if len(l) > 100 {
				t.Errorf("%s --help: %d columns: %q", c.name, len(l), l)
			}
		}
		if !strings.Contains(overview, c.name) || !strings.Contains(overview, c.summary) {
			t.Errorf("help does not list %s", c.name)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "pptp-alg: no command given"},
		{[]string{"start"}, "pptp-alg: unknown command \"start\"; `pptp-alg help` lists the commands"},
		{[]string{"help", "start"}, "pptp-alg: unknown command \"start\""},
		{[]string{"run", "--nope"}, "pptp-alg: run: flag provided but not defined: --nope; see `pptp-alg run --help`"},
		{[]string{"run", "now"}, `pptp-alg: run: unexpected argument "now"`},
		{[]string{"run", "--queue"}, "pptp-alg: run: flag needs an argument: --queue"},
		{[]string{"run", "--queue", "65536"}, `pptp-alg: run: invalid value "65536" for flag --queue: must be a whole number from 0 to 65535, not 65536`},
		{[]string{"run", "--port", "0"}, `pptp-alg: run: invalid value "0" for flag --port: must be a whole number from 1 to 65535, not 0`},
		{[]string{"rules", "--port", "5", "--port", "5"}, `pptp-alg: rules: invalid value "5" for flag --port: names port 5 twice`},
		{[]string{"run", "--log-format", "xml"}, `pptp-alg: run: invalid value "xml" for flag --log-format: must be "text" or "json", not the text "xml"`},
		{[]string{"run", "--log-level", "loud"}, `pptp-alg: run: invalid value "loud" for flag --log-level: must be "debug" or `},
		{[]string{"run", "--socket", "/" + strings.Repeat("x", 107)}, "pptp-alg: run: invalid value "},
		{[]string{"run", "--anchor", "on"}, `pptp-alg: run: invalid value "on" for flag --anchor: must be "auto" or "ftp" or "off", not the text "on"`},
		{[]string{"status", "--json=maybe"}, "pptp-alg: status: invalid boolean value \"maybe\" for --json"},
		{[]string{"status", "5"}, `pptp-alg: status: unexpected argument "5"`},
		{[]string{"status", "--watch", "soon"}, "pptp-alg: status: the interval \"soon\" of --watch must be a number of seconds"},
		{[]string{"status", "--watch=0"}, `pptp-alg: status: invalid boolean value "0" for --watch: must be a number of seconds`},
		{[]string{"status", "--watch", "1", "2"}, `pptp-alg: status: unexpected argument "2"`},
		{[]string{"status", "--client", "10.0.0"}, `pptp-alg: status: invalid value "10.0.0" for flag --client: must be an IPv4 address or a network`},
		{[]string{"status", "--state", "up"}, `pptp-alg: status: invalid value "up" for flag --state: is none of requested,`},
		{[]string{"version", "--json"}, "pptp-alg: version: flag provided but not defined: --json"},
	} {
		code, stdout, stderr := exec(t, c.args...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: code %d, stdout %q, stderr\n%s\nwant\n%s", c.args, code, stdout, stderr, c.want)
		}
		// One line that says it, at the end; only a missing command brings the overview.
		if c.args != nil && strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: more than a line on stderr: %q", c.args, stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		code, out, stderr := exec(t, arg)
		if code != 0 || stderr != "" || !strings.HasPrefix(out, "pptp-alg v1.2.3 (go") {
			t.Errorf("%s: code %d, %q, %q", arg, code, out, stderr)
		}
	}
	for _, c := range []struct{ commit, date, want string }{
		{"0123abc", "2026-01-02T03:04:05Z", "pptp-alg v1 (commit 0123abc of 2026-01-02T03:04:05Z; go"},
		{"0123abc", "", "pptp-alg v1 (commit 0123abc; go"},
	} {
		var out bytes.Buffer
		Program{Version: "v1", Commit: c.commit, Date: c.date, Stdout: &out, Stderr: &out}.Main(t.Context(), []string{"version"})
		if !strings.HasPrefix(out.String(), c.want) {
			t.Errorf("%q, want %q", out.String(), c.want)
		}
	}
}

// serve answers `status` with a document.
func serve(t *testing.T, h control.Handler) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "c.sock")
	s, err := control.Listen(control.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	s.Handle("status", h)
	go s.Serve()
	t.Cleanup(func() { s.Close() })
	return path
}

func TestStatus(t *testing.T) {
	doc := status.Status{
		Version: "v9",
		Calls: []status.Call{{
			ID: 1, Direction: "outgoing", State: "established", Since: time.Now().Add(-time.Hour),
			Client: status.Endpoint{
				Address: netip.MustParseAddr("192.168.77.11"), CallID: status.Known(uint16(5)),
				TranslatedAddress: netip.MustParseAddr("203.0.113.1"), TranslatedCallID: status.Known(uint16(777)),
			},
			Server: status.Endpoint{
				Address: netip.MustParseAddr("198.51.100.2"), CallID: status.Known(uint16(9)),
				TranslatedAddress: netip.MustParseAddr("198.51.100.2"), TranslatedCallID: status.Known(uint16(9)),
			},
		}},
	}
	path := serve(t, func(context.Context, json.RawMessage) (any, error) { return doc, nil })

	code, out, stderr := exec(t, "status", "--socket", path)
	want := []string{"1", "192.168.77.11", "5", "203.0.113.1", "777", "198.51.100.2", "9", "established", "1h00m", "-", "-", "-", "-"}
	lines := strings.Split(out, "\n")
	if code != 0 || stderr != "" || len(lines) < 2 || strings.Join(strings.Fields(lines[1]), " ") != strings.Join(want, " ") {
		t.Errorf("table: code %d, stderr %q\n%s", code, stderr, out)
	}

	code, out, stderr = exec(t, "status", "--socket", path, "--json")
	var back status.Status
	if err := json.Unmarshal([]byte(out), &back); err != nil || code != 0 || stderr != "" {
		t.Fatalf("JSON: code %d, stderr %q, %v\n%s", code, stderr, err, out)
	}
	if back.Version != "v9" || len(back.Calls) != 1 || *back.Calls[0].Client.TranslatedCallID != 777 {
		t.Errorf("JSON: %+v", back)
	}
}

// --json passes on what this program does not know.
func TestStatusNewerDaemon(t *testing.T) {
	path := serve(t, func(context.Context, json.RawMessage) (any, error) {
		return map[string]any{"version": "v10", "novelty": []int{1}}, nil
	})
	if _, out, _ := exec(t, "status", "--socket", path, "--json"); !strings.Contains(out, `"novelty"`) {
		t.Errorf("got %s", out)
	}
	if code, out, stderr := exec(t, "status", "--socket", path); code != 0 {
		t.Errorf("table: code %d, %q, %q", code, out, stderr)
	}
}

func TestStatusFailures(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.sock")
	code, out, stderr := exec(t, "status", "--socket", none)
	if want := "pptp-alg: no daemon answers on " + none + "; start one with `pptp-alg run`\n"; code != 3 || out != "" || stderr != want {
		t.Errorf("no daemon: code %d, stdout %q, stderr %q", code, out, stderr)
	}
	if code, _, _ := exec(t, "status", "--socket", none, "--json"); code != 3 {
		t.Errorf("no daemon, JSON: code %d", code)
	}
	path := serve(t, func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("not now") })
	if code, _, stderr := exec(t, "status", "--socket", path); code != 1 || stderr != "pptp-alg: not now\n" {
		t.Errorf("refusal: code %d, stderr %q", code, stderr)
	}
}

func TestRules(t *testing.T) {
	code, out, stderr := exec(t, "rules", "--port", "1723", "--port", "11723", "--queue", "42")
	if code != 0 || stderr != "" {
		t.Fatalf("code %d, stderr %q", code, stderr)
	}
	for _, want := range []string{"table ip pptp-alg {", "elements = { 1723, 11723 }", "to 42"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every fault of a file is a line on stderr; the code is that of a failure.
func TestWrongFile(t *testing.T) {
	path := writeFile(t, "qeue = 1\nports = 5\n")
	for _, command := range []string{"run", "rules"} {
		code, out, stderr := exec(t, command, "--config", path)
		want := "pptp-alg: " + path + ":1: qeue is not a key (did you mean queue?)\n" +
			"pptp-alg: " + path + ":2: ports must be a list such as [1723], not 5\n"
		if code != 1 || out != "" || stderr != want {
			t.Errorf("%s: code %d, stdout %q, stderr\n%swant\n%s", command, code, out, stderr, want)
		}
	}
}

// parse gives the settings of a `run` command line, without running it.
func parse(t *testing.T, args ...string) *settings {
	t.Helper()
	var s settings
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	s.configFlag(fs)
	s.socketFlag(fs)
	s.queueFlag(fs)
	s.portFlag(fs)
	s.anchorFlag(fs)
	s.logFlags(fs)
	s.captureFlag(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &s
}

func TestFlagsOverrideFile(t *testing.T) {
	path := writeFile(t, "queue = 1\nports = [1, 2]\nsocket = '/file.sock'\nlog_format = 'json'\nlog_level = 'error'\nguard = 'all'\nanchor = 'off'")
	file, err := parse(t, "--config", path).load()
	if err != nil || file.Queue != 1 || len(file.Ports) != 2 || file.Socket != "/file.sock" || file.LogFormat != config.LogJSON {
		t.Errorf("file: %+v, %v", file, err)
	}
	wd, _ := os.Getwd()
	s := parse(t, "--config", path, "--queue", "9", "--port", "7", "--port", "8", "--port", "9",
		"--socket", "flag.sock", "--log-format", "text", "--log-level", "debug", "--anchor", "ftp")
	for range 2 { // the second time as a reload
		c, err := s.load()
		if err != nil {
			t.Fatal(err)
		}
		want := file.Clone()
		want.Queue, want.Socket, want.LogFormat, want.LogLevel = 9, filepath.Join(wd, "flag.sock"), config.LogText, slog.LevelDebug
		want.Ports, want.Anchor = []uint16{7, 8, 9}, config.AnchorFTP
		if a, b := mustJSON(t, c), mustJSON(t, want); a != b {
			t.Errorf("got  %s\nwant %s", a, b)
		}
	}
	if c, err := parse(t, "--config", path, "--port", "7").load(); err != nil || len(c.Ports) != 1 || c.Ports[0] != 7 {
		t.Errorf("one port: %+v, %v", c.Ports, err)
	}
	if c, err := parse(t).load(); err != nil || mustJSON(t, c) != mustJSON(t, config.Default()) {
		t.Errorf("no flags: %+v, %v", c, err)
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// SIGHUP reads the file again; a wrong one is reported and changes nothing.
func TestReload(t *testing.T) {
	path := writeFile(t, "remember = 1")
	s := parse(t, "--config", path, "--queue", "9")
	var logged syncBuffer
	level := new(slog.LevelVar)
	log := logger(&logged, config.LogJSON, level)
	hup, reload := make(chan os.Signal), make(chan config.Config)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.reload(ctx, hup, reload, level, log); close(ended) }()

	os.WriteFile(path, []byte("remember = 2\nlog_level = 'warn'"), 0o600)
	hup <- os.Interrupt
	if c := <-reload; c.Remember != 2 || c.Queue != 9 || level.Level() != slog.LevelWarn {
		t.Errorf("got %+v, level %v", c, level.Level())
	}
	os.WriteFile(path, []byte("remember = 'x'"), 0o600)
	hup <- os.Interrupt
	hup <- os.Interrupt // taken when the first is done
	if got := logged.String(); !strings.Contains(got, `"level":"ERROR"`) || !strings.Contains(got, "remember must be a whole number") {
		t.Errorf("logged %q", got)
	}
	cancel()
	<-ended
}

// A level that is not logged is not logged, and the forms are what they say.
func TestLogger(t *testing.T) {
	for format, want := range map[config.LogFormat]string{config.LogText: "level=WARN msg=yes", config.LogJSON: `"level":"WARN","msg":"yes"`} {
		var b bytes.Buffer
		log := logger(&b, format, slog.LevelWarn)
		log.Info("no")
		log.Warn("yes")
		if got := b.String(); strings.Contains(got, "no") || !strings.Contains(got, want) {
			t.Errorf("%s: %q", format, got)
		}
	}
}
