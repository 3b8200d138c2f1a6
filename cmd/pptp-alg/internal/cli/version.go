package cli

import (
	"context"
	"flag"
	"fmt"
	"runtime"
)

var versionCommand = command{
	name:    "version",
	summary: "print the version",
	help:    "Prints the version, and what it was built with.",
	flags: func(*flag.FlagSet) func(context.Context, Program) error {
		return func(_ context.Context, p Program) error {
			_, err := fmt.Fprintf(p.Stdout, "pptp-alg %s (%s %s/%s)\n", p.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		}
	},
}
