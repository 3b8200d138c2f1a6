package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/cmd/pptp-alg/internal/control"
	"pptp-alg/cmd/pptp-alg/internal/status"
)

var statusCommand = command{
	name:    "status",
	summary: "show the calls of the running daemon",
	usage:   "[FLAGS] [--watch [INTERVAL]]",
	args:    1,
	help: `Shows each call: the client and its Call ID, the public address and the Call ID
that the server sees instead, the server and its Call ID, state, age, and the GRE
packets and bytes sent by the client (out) and by the server (in). A call of which
one side sends no GRE has a warning below it.

A narrow terminal shows fewer columns. Colours are for terminals only; NO_COLOR
switches them off. --watch draws again every second, or every INTERVAL (a number of
seconds, or 500ms), with packets and bits a second.

Exit code 3 says that no daemon answers.

Examples:
  pptp-alg status
  pptp-alg status --watch 5
  pptp-alg status --ended --client 192.168.1.0/24
  pptp-alg status --state warning
  pptp-alg status --json | jq '.calls[] | select(.state != "established")'`,
	flags: func(fs *flag.FlagSet) func(context.Context, Program) error {
		var s statusOptions
		socketFlag(fs, &s.socket)
		fs.BoolVar(&s.json, "json", false, "print the whole document as JSON")
		fs.BoolVar(&s.ended, "ended", false, "show the calls that ended or failed last, and why")
		fs.BoolVar(&s.connections, "connections", false, "show the control connections")
		fs.Var((*every)(&s.watch), "watch", "draw again, every second or INTERVAL")
		filterFlags(fs, &s.view.Filter)
		return s.run
	},
}

type statusOptions struct {
	socket             string
	json               bool
	ended, connections bool
	watch              time.Duration
	view               status.View
}

// every is the value of --watch, which may have one.
type every time.Duration

func (e *every) String() string   { return "" }
func (e *every) IsBoolFlag() bool { return true }

func (e *every) Set(v string) error {
	if v == "true" {
		v = "1"
	}
	if _, err := strconv.ParseFloat(v, 64); err == nil {
		v += "s"
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 100*time.Millisecond || d > time.Hour {
		return errors.New("must be a number of seconds or a duration, from 100ms to 1h")
	}
	*e = every(d)
	return nil
}

func (o *statusOptions) run(ctx context.Context, p Program) error {
	if len(p.Args) > 0 {
		if o.watch == 0 {
			return errUsage{fmt.Errorf("status: unexpected argument %q; see `pptp-alg status --help`", p.Args[0])}
		}
		if err := (*every)(&o.watch).Set(p.Args[0]); err != nil {
			return errUsage{fmt.Errorf("status: the interval %q of --watch %w", p.Args[0], err)}
		}
	}
	if o.watch == 0 {
		_, err := o.show(ctx, p, p.Stdout)
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	return o.redraw(ctx, p)
}

// redraw shows the status again and again.
func (o *statusOptions) redraw(ctx context.Context, p Program) error {
	tick := time.NewTicker(o.watch)
	defer tick.Stop()
	var last time.Time
	for n := 0; ; n++ {
		var screen bytes.Buffer
		now := time.Now()
		o.view.Elapsed = now.Sub(last)
		s, err := o.show(ctx, p, &screen)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		o.view.Before, last = &s, now
		if columns, rows := terminalSize(p.Stdout); columns > 0 {
			draw(&screen, rows)
		} else if n > 0 && !o.json {
			fmt.Fprintln(p.Stdout)
		}
		if _, err := screen.WriteTo(p.Stdout); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// draw makes of the text what replaces a terminal's contents, as much as fits.
func draw(screen *bytes.Buffer, rows int) {
	lines := strings.SplitAfter(strings.TrimSuffix(screen.String(), "\n"), "\n")
	if rows > 1 && len(lines) > rows-1 {
		more := len(lines) - (rows - 2)
		lines = append(lines[:rows-2:rows-2], fmt.Sprintf("... and %d more lines", more))
	}
	screen.Reset()
	screen.WriteString("\x1b[H") // the cursor goes home
	for _, l := range lines {
		screen.WriteString(strings.TrimSuffix(l, "\n") + "\x1b[K\n") // the rest of the line goes
	}
	screen.WriteString("\x1b[J") // and what is below
}

// show writes the status once, and returns it.
func (o *statusOptions) show(ctx context.Context, p Program, w io.Writer) (s status.Status, err error) {
	raw, err := control.Raw(ctx, o.socket, "status", nil)
	if err != nil {
		return s, noDaemon(err)
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("read the daemon's answer: %w", err)
	}
	if o.json {
		return s, o.showJSON(w, raw)
	}
	o.view.Now = time.Now()
	o.view.Width, _ = terminalSize(p.Stdout)
	o.view.Colours = colours(p.Stdout)
	var errs []error
	if o.ended {
		errs = append(errs, o.view.Ended(w, s))
	}
	if o.connections {
		errs = append(errs, o.view.Connections(w, s))
	}
	if !o.ended && !o.connections {
		errs = append(errs, o.view.Calls(w, s))
	}
	return s, errors.Join(errs...)
}

// showJSON writes the document as the daemon wrote it: a newer one may know more than
// this program. What the filter does not let through is left out.
func (o *statusOptions) showJSON(w io.Writer, raw json.RawMessage) error {
	if o.view.Filter != (status.Filter{}) {
		var err error
		if raw, err = o.view.Filter.JSON(raw); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
	}
	var out bytes.Buffer
	if o.watch > 0 {
		out.Write(raw) // a document a line
	} else if err := json.Indent(&out, raw, "", "  "); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}

// noDaemon gives the exit code that scripts know to an error that says that no daemon
// answers.
func noDaemon(err error) error {
	if errors.Is(err, control.ErrNoDaemon) {
		return exitError{fmt.Errorf("%w; start one with `pptp-alg run`", err), exitNoDaemon}
	}
	return err
}

// terminalSize is the size of the terminal that w is, or zeros.
func terminalSize(w io.Writer) (columns, rows int) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Col), int(size.Row)
}

// colours reports whether w is a terminal that is to show some. See no-color.org.
func colours(w io.Writer) bool {
	columns, _ := terminalSize(w)
	return columns > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
