// Command pptp-lab shows and tests PPTP passthrough: a probe for those behind a
// router, clients and servers, and a demonstration in network namespaces. It
// needs root.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"pptp-alg/cmd/pptp-lab/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
