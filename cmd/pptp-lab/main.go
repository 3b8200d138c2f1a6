// Command pptp-lab shows and tests PPTP passthrough in a network made of
// network namespaces. It needs root, and touches nothing outside of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"pptp-alg/cmd/pptp-lab/internal/demo"
)

const usage = `Usage: pptp-lab COMMAND [FLAGS]

  demo    two clients with one Call ID behind a masquerading router with
          pptp-alg, talking to one server

"pptp-lab COMMAND --help" shows the flags of a command.
`

// Exit codes, those of pptp-alg.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "demo" {
		if len(args) > 0 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h") {
			fmt.Fprint(stdout, usage)
			return exitOK
		}
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	flags := flag.NewFlagSet("pptp-lab demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	program := flags.String("program", defaultProgram(), "the `PATH` of pptp-alg; PPTP_ALG_BIN in the environment says the same")
	switch err := flags.Parse(args[1:]); {
	case err == flag.ErrHelp:
		return exitOK
	case err != nil || flags.NArg() > 0:
		return exitUsage
	}
	if err := demo.Run(ctx, stdout, *program); err != nil {
		fmt.Fprintf(stderr, "pptp-lab: %v\n", err)
		return exitFailure
	}
	return exitOK
}

// defaultProgram is what the environment says, or pptp-alg beside this program.
func defaultProgram() string {
	if path := os.Getenv("PPTP_ALG_BIN"); path != "" {
		return path
	}
	self, err := os.Executable()
	if err != nil {
		return "pptp-alg"
	}
	return filepath.Join(filepath.Dir(self), "pptp-alg")
}
