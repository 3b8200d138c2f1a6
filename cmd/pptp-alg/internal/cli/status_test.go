package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/cmd/pptp-alg/internal/status"
)

// three is a document with a live, an ended and a strange call.
func three() status.Status {
	side := func(a string) status.Endpoint {
		return status.Endpoint{Address: netip.MustParseAddr(a), TranslatedAddress: netip.MustParseAddr(a)}
	}
	now := time.Now()
	return status.Status{
		Calls: []status.Call{
			{ID: 1, State: "established", Since: now, Client: side("192.168.77.11"), Server: side("198.51.100.2"), Warning: "no GRE"},
			{ID: 2, State: "requested", Since: now, Client: side("192.168.77.12"), Server: side("198.51.100.2")},
		},
		Ended: []status.Call{{ID: 3, State: "ended", Ended: now, Client: side("192.168.77.13"), Server: side("198.51.100.2"),
			Reason: "server refused the call: busy (result 4)"}},
		Connections: []status.Connection{{State: "established", Since: now,
			Client: status.Peer{Address: netip.MustParseAddrPort("192.168.77.11:4000")},
			Server: status.Peer{Address: netip.MustParseAddrPort("198.51.100.2:1723")}}},
	}
}

// Each flag shows what it says, and no other.
func TestStatusFlags(t *testing.T) {
	path := serve(t, func(context.Context, json.RawMessage) (any, error) { return three(), nil })
	for args, want := range map[string][]bool{ // .11, .12, .13, port 4000
		"":                                {true, true, false, false},
		"--client 192.168.77.12":          {false, true, false, false},
		"--server 10.0.0.0/8":             {false, false, false, false},
		"--state established":             {true, false, false, false},
		"--state warning":                 {true, false, false, false},
		"--ended":                         {false, false, true, false},
		"--ended --client 192.168.77.11":  {false, false, false, false},
		"--connections":                   {true, false, false, true},
		"--connections --ended":           {true, false, true, true},
		"--json":                          {true, true, true, true},
		"--json --client 192.168.77.0/28": {true, true, true, true},
		"--json --client 192.168.77.12":   {false, true, false, false},
	} {
		code, out, stderr := exec(t, append([]string{"status", "--socket", path}, strings.Fields(args)...)...)
		if code != 0 || stderr != "" {
			t.Errorf("%s: code %d, %q", args, code, stderr)
		}
		for i, word := range []string{"192.168.77.11", "192.168.77.12", "192.168.77.13", ":4000"} {
			if strings.Contains(out, word) != want[i] {
				t.Errorf("%s: %s is there: %v\n%s", args, word, !want[i], out)
			}
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("%s: colours in a pipe: %q", args, out)
		}
	}
}

// --watch asks again and again, and computes rates.
func TestStatusWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Uint64
	path := serve(t, func(context.Context, json.RawMessage) (any, error) {
		n := asked.Add(1)
		if n == 3 {
			cancel()
		}
		s := three()
		s.Calls[0].PacketsFromClient, s.Calls[0].BytesFromClient = status.Known(n*1e6), status.Known(n*1e9)
		return s, nil
	})
	var out, errs bytes.Buffer
	code := Program{Stdout: &out, Stderr: &errs}.Main(ctx, []string{"status", "--socket", path, "--watch", "0.1"})
	if code != 0 || errs.Len() > 0 || asked.Load() != 3 {
		t.Errorf("code %d, %q, asked %d times", code, errs.String(), asked.Load())
	}
	first, second, _ := strings.Cut(out.String(), "\n\nCALL")
	if !strings.Contains(first, "PKTS OUT") || !strings.Contains(second, "PKT/S OUT") || !strings.Contains(second, "BIT/S OUT") {
		t.Errorf("no totals and then rates:\n%s", out.String())
	}
}

// terminal opens a pseudo terminal of the given size. What is written to the one
// end can be read at the other.
func terminal(t *testing.T, columns, rows uint16) (end *os.File, shown func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if end, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(end.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
	return end, func() string {
		end.Close()
		var all []byte
		for {
			b := make([]byte, 64<<10)
			n, err := master.Read(b)
			if all = append(all, b[:n]...); err != nil {
				return strings.ReplaceAll(string(all), "\r\n", "\n")
			}
		}
	}
}

// A terminal gets colours and as many columns as fit, unless the user wants none.
func TestStatusTerminal(t *testing.T) {
	asked := make(chan struct{}, 100)
	path := serve(t, func(context.Context, json.RawMessage) (any, error) { asked <- struct{}{}; return three(), nil })
	run := func(columns uint16, args ...string) string {
		end, shown := terminal(t, columns, 8)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if len(args) > 0 {
			go func() { <-asked; <-asked; cancel() }() // at the second question the first answer is drawn
		} else {
			defer func() { <-asked }()
		}
		if code := (Program{Stdout: end, Stderr: os.Stderr}).Main(ctx, append([]string{"status", "--socket", path}, args...)); code != 0 {
			t.Errorf("%v: code %d", args, code)
		}
		return shown()
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if out := run(80); !strings.Contains(out, "\x1b[33mestablished\x1b[0m") || strings.Contains(out, "PUBLIC") {
		t.Errorf("80 columns: %q", out)
	}
	if out := run(200); !strings.Contains(out, "PUBLIC") {
		t.Errorf("200 columns: %q", out)
	}
	if out := run(80, "--watch=0.1"); !strings.HasPrefix(out, "\x1b[H") || !strings.HasSuffix(out, "\x1b[J") {
		t.Errorf("--watch does not begin at the top and clear the rest: %q", out)
	}
	if out := run(80, "--connections", "--ended", "--watch=100ms"); !strings.Contains(out, "\x1b[K\n") {
		t.Errorf("--watch leaves the ends of lines: %q", out)
	}
	t.Setenv("NO_COLOR", "1")
	if out := run(80); strings.Contains(out, "\x1b") {
		t.Errorf("NO_COLOR: %q", out)
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if out := run(80); strings.Contains(out, "\x1b") {
		t.Errorf("TERM=dumb: %q", out)
	}
}

// What does not fit the screen's height is left out, and said so.
func TestDraw(t *testing.T) {
	screen := bytes.NewBufferString("1\n2\n3\n4\n5\n6\n")
	draw(screen, 5)
	if got, want := screen.String(), "\x1b[H1\x1b[K\n2\x1b[K\n3\x1b[K\n... and 3 more lines\x1b[K\n\x1b[J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
