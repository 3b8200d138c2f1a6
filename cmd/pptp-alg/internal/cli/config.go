package cli

import (
	"context"
	"flag"
	"fmt"
)

var configCommand = command{
	name:    "config",
	summary: "print the settings that run would use",
	usage:   "[FLAGS]",
	help: `Reads the file and the flags as "pptp-alg run" does, and prints every setting with
its value, in the form of a file. A file that is wrong is refused with each fault and
its line, and exit code 1: for scripts that check a file before they put it in place.

Examples:
  pptp-alg config
  pptp-alg config --config /etc/pptp-alg.toml --port 1723 --port 11723`,
	flags: func(fs *flag.FlagSet) func(context.Context, Program) error {
		var s settings
		s.runFlags(fs)
		return func(_ context.Context, p Program) error {
			c, err := s.load()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(p.Stdout, c)
			return err
		}
	},
}
