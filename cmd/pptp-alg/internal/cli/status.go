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
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/control"
	"pptp-alg/cmd/pptp-alg/internal/status"
)

var statusCommand = command{
	name:    "status",
	summary: "show the calls of the running daemon",
	usage:   "[--socket PATH] [--json]",
	help: `Shows each call: the client and its Call ID, the public address and the Call ID
that the server sees instead, the server and its Call ID, state, age, and the GRE
packets and bytes sent by the client (out) and by the server (in).

Exit code 3 says that no daemon answers.

Examples:
  pptp-alg status
  pptp-alg status --json | jq '.calls[] | select(.state != "established")'`,
	flags: func(fs *flag.FlagSet) func(context.Context, Program) error {
		socket := fs.String("socket", config.DefaultSocket, "control socket `PATH` (default "+config.DefaultSocket+")")
		asJSON := fs.Bool("json", false, "print the whole document as JSON")
		return func(ctx context.Context, p Program) error { return showStatus(ctx, p, *socket, *asJSON) }
	},
}

func showStatus(ctx context.Context, p Program, socket string, asJSON bool) error {
	raw, err := control.Raw(ctx, socket, "status", nil)
	if errors.Is(err, control.ErrNoDaemon) {
		return exitError{fmt.Errorf("%w; start one with `pptp-alg run`", err), exitNoDaemon}
	}
	if err != nil {
		return err
	}
	if asJSON {
		// As the daemon wrote it: a newer one may know more than this program.
		var out bytes.Buffer
		if err := json.Indent(&out, raw, "", "  "); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		out.WriteByte('\n')
		_, err := out.WriteTo(p.Stdout)
		return err
	}
	var s status.Status
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return status.WriteTable(p.Stdout, s, time.Now(), terminalWidth(p.Stdout))
}

// terminalWidth is the width of the terminal that w is, or 0.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
