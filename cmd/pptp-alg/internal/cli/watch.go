package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os/signal"

	"golang.org/x/sys/unix"

	"pptp-alg/cmd/pptp-alg/internal/control"
	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/cmd/pptp-alg/internal/status"
)

var watchCommand = command{
	name:    "watch",
	summary: "print what happens as it happens",
	usage:   "[FLAGS]",
	help: `Prints a line when a control connection opens or closes, when a call is requested,
established or ended, when something turns out to be wrong with one, and when the
daemon had to mend something in the kernel. A call that ended comes with the reason,
with what its GRE says about it, and with what it carried.

The daemon does not wait for a slow reader: the next line says how many were lost.
It ends with SIGINT, or with exit code 3 when the daemon does.

Examples:
  pptp-alg watch
  pptp-alg watch --client 192.168.1.20
  pptp-alg watch --json | jq -r 'select(.event == "call_ended") | .call.reason'`,
	flags: func(fs *flag.FlagSet) func(context.Context, Program) error {
		var socket string
		var asJSON bool
		var f status.Filter
		socketFlag(fs, &socket)
		fs.BoolVar(&asJSON, "json", false, "print each event as a line of JSON")
		filterFlags(fs, &f)
		return func(ctx context.Context, p Program) error { return watch(ctx, p, socket, f, asJSON) }
	},
}

func watch(ctx context.Context, p Program, socket string, f status.Filter, asJSON bool) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	return noDaemon(control.Stream(ctx, socket, "watch", f, func(line json.RawMessage) error {
		if asJSON {
			_, err := fmt.Fprintf(p.Stdout, "%s\n", line)
			return err
		}
		var e news.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		_, err := fmt.Fprintln(p.Stdout, e)
		return err
	}))
}
