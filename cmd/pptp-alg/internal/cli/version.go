package cli

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"strings"
)

var versionCommand = command{
	name:    "version",
	summary: "print the version",
	help: `Prints the version, the commit and its time as far as the program knows them, and what
it was built with and for.`,
	flags: func(*flag.FlagSet) func(context.Context, Program) error {
		return func(_ context.Context, p Program) error {
			built := fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
			if p.Commit != "" {
				built = strings.TrimSuffix("commit "+p.Commit+" of "+p.Date, " of ") + "; " + built
			}
			_, err := fmt.Fprintf(p.Stdout, "pptp-alg %s (%s)\n", p.Version, built)
			return err
		}
	},
}
