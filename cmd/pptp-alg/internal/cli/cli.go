package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// Exit codes.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitNoDaemon = 3
)

// Program is what the command line runs in.
type Program struct {
	Version string
	Commit  string // that it was built from; empty where that is unknown
	Date    string // of the commit, RFC 3339
	Stdout  io.Writer
	Stderr  io.Writer
	Args    []string // of the command, without its flags
}

// A command is one sub-command.
type command struct {
	name    string
	summary string
	usage   string // what follows the name on a command line
	help    string // paragraphs below the usage line
	args    int    // how many arguments it takes at most, beside its flags: Program.Args
	// flags defines the command's flags and returns what runs it.
	flags func(*flag.FlagSet) func(context.Context, Program) error
}

// commands in the order of the help.
func commands() []command {
	return []command{runCommand, checkCommand, statusCommand, watchCommand, dropCommand, configCommand, rulesCommand, replayCommand, versionCommand}
}

// errUsage is a wrong command line; exitError an error with its exit code.
type errUsage struct{ error }

type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// Main runs a command line without the program's name, and returns the exit code.
func (p Program) Main(ctx context.Context, args []string) int {
	err := p.main(ctx, args)
	if err == nil {
		return exitOK
	}
	// Faults of a configuration come several at once.
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(p.Stderr, "pptp-alg: %s\n", strings.TrimSuffix(line, "\n"))
	}
	var usage errUsage
	var exit exitError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &exit):
		return exit.code
	}
	return exitFailure
}

func (p Program) main(ctx context.Context, args []string) error {
	if len(args) == 0 {
		p.overview(p.Stderr)
		return errUsage{errors.New("no command given")}
	}
	name, args := args[0], args[1:]
	switch name {
	case "help", "-h", "-help", "--help":
		if len(args) == 0 {
			p.overview(p.Stdout)
			return nil
		}
		name, args = args[0], []string{"--help"}
	case "-v", "-version", "--version":
		name = "version"
	}
	for _, c := range commands() {
		if c.name == name {
			return p.run(ctx, c, args)
		}
	}
	return errUsage{fmt.Errorf("unknown command %q; `pptp-alg help` lists the commands", name)}
}

func (p Program) run(ctx context.Context, c command, args []string) error {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are ours to print, once
	do := c.flags(fs)
	// Flags may stand before and behind arguments.
	err := fs.Parse(args)
	for err == nil && fs.NArg() > 0 && len(p.Args) < c.args {
		p.Args = append(p.Args, fs.Arg(0))
		err = fs.Parse(fs.Args()[1:])
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		c.writeHelp(p.Stdout, fs)
		return nil
	case err != nil:
		return errUsage{fmt.Errorf("%s: %s; see `pptp-alg %s --help`", c.name, twoDashes(err.Error()), c.name)}
	case fs.NArg() > 0:
		return errUsage{fmt.Errorf("%s: unexpected argument %q; see `pptp-alg %s --help`", c.name, fs.Arg(0), c.name)}
	}
	return do(ctx, p)
}

// twoDashes puts the flag's name into the flag package's messages as this program
// writes it: -queue becomes --queue.
func twoDashes(s string) string {
	for _, before := range []string{"flag: ", "defined: ", "argument: ", "for flag ", "for "} {
		s = strings.ReplaceAll(s, before+"-", before+"--")
	}
	return strings.ReplaceAll(s, "---", "--")
}

func (p Program) overview(w io.Writer) {
	fmt.Fprint(w, `pptp-alg lets PPTP clients behind a NAT router reach their servers.

Usage: pptp-alg COMMAND [FLAGS]

`)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.summary)
	}
	fmt.Fprintf(w, "  %-9s %s\n", "help", "this text, or with a command's name the command's")
	fmt.Fprint(w, `
"pptp-alg COMMAND --help" shows the flags of a command.
Exit codes: 0 done, 1 failure, 2 wrong command line, 3 no daemon answers.
`)
}

func (c command) writeHelp(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "Usage: pptp-alg %s\n\n%s\n", strings.TrimSpace(c.name+" "+c.usage), c.help)
	first := true
	fs.VisitAll(func(f *flag.Flag) {
		if first {
			fmt.Fprint(w, "\nFlags:\n")
			first = false
		}
		value, text := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  %-24s %s\n", strings.TrimSpace("--"+f.Name+" "+value), strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 27)))
	})
}
