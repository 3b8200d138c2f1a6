package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"pptp-alg/cmd/pptp-lab/internal/demo"
	"pptp-alg/cmd/pptp-lab/internal/probe"
)

// Exit codes, those of pptp-alg. Those of probe are its outcomes.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
)

const usage = `Usage: pptp-lab COMMAND [FLAGS]

  probe   find out whether PPTP gets through from here to a server, and if
          not, what stops it
  client  connect to a server, once or many times, and send pings
  server  be a server
  demo    two clients with one Call ID behind a masquerading router with
          pptp-alg, talking to one server

"pptp-lab COMMAND --help" shows the flags of a command. All of them need root.
`

// environment is what a command has to do with.
type environment struct {
	stdout, stderr io.Writer
}

// command reads its arguments and runs; the error is for people.
type command func(ctx context.Context, e environment, args []string) (code int, err error)

var commands = map[string]command{"probe": runProbe, "client": runClient, "server": runServer, "demo": runDemo}

// errUsage says that the flags were wrong, and that the flag package has said so.
var errUsage = errors.New("wrong usage")

// Run runs a command line without the program's name, and gives the exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h") {
		fmt.Fprint(stdout, usage)
		return ExitOK
	}
	var run command
	if len(args) > 0 {
		run = commands[args[0]]
	}
	if run == nil {
		fmt.Fprint(stderr, usage)
		return ExitUsage
	}
	code, err := run(ctx, environment{stdout, stderr}, args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return ExitOK
	case errors.Is(err, errUsage):
		return ExitUsage
	case err != nil:
		fmt.Fprintf(stderr, "pptp-lab: %v\n", err)
	}
	return code
}

// flags makes a command's flag set. Help goes to standard output when asked
// for, to standard error after a mistake.
func (e environment) flags(name, arguments, about string) *flag.FlagSet {
	f := flag.NewFlagSet("pptp-lab "+name, flag.ContinueOnError)
	f.SetOutput(e.stderr)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "Usage: %s [FLAGS] %s\n\n%s\n\n", f.Name(), arguments, about)
		f.PrintDefaults()
	}
	return f
}

// parse reads the flags, before and after the arguments, of which there must be
// so many.
func (e environment) parse(f *flag.FlagSet, args []string, count int) ([]string, error) {
	for _, a := range args {
		if a == "-h" || a == "-help" || a == "--help" {
			f.SetOutput(e.stdout)
		}
	}
	var rest []string
	for {
		if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, err
		} else if err != nil {
			return nil, errUsage
		}
		if f.NArg() == 0 {
			break
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
	if len(rest) != count {
		f.Usage()
		return nil, errUsage
	}
	return rest, nil
}

func runDemo(ctx context.Context, e environment, args []string) (int, error) {
	f := e.flags("demo", "", "Plays two clients with one Call ID behind a router with pptp-alg, in network\nnamespaces of its own.")
	program := f.String("program", defaultProgram(), "the `PATH` of pptp-alg; PPTP_ALG_BIN in the environment says the same")
	if _, err := e.parse(f, args, 0); err != nil {
		return ExitUsage, err
	}
	if err := demo.Run(ctx, e.stdout, *program); err != nil {
		return ExitFailure, err
	}
	return ExitOK, nil
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

func runProbe(ctx context.Context, e environment, args []string) (int, error) {
	f := e.flags("probe", "HOST[:PORT]", `Finds out whether PPTP gets through from here to a server, and if not, what
stops it: it opens a control connection, places a call, and sends PPP's first
words through GRE. With --user and --password it also logs in.

Exit codes:
`+strings.TrimRight(probe.Codes(), "\n")+"\n   2  wrong usage")
	dial := dialFlags(f)
	if args, err := e.parse(f, args, 1); err != nil {
		return ExitUsage, err
	} else if err := dial.resolve(ctx, args[0]); err != nil {
		return int(probe.Unreachable), err
	}
	outcome := probe.Run(ctx, e.stdout, probe.Config{Server: dial.server, Source: dial.source, User: dial.user, Password: dial.password,
		CallID: dial.callID, Patience: dial.timeout, Verbose: dial.log(e.stderr)})
	return int(outcome), nil
}
