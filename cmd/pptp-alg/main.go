// Command pptp-alg lets PPTP clients behind a NAT router reach their servers: it
// translates the Call IDs in their control connections, and has the kernel's
// conntrack translate the GRE packets of their calls.
package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"

	"pptp-alg/cmd/pptp-alg/internal/cli"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	// One goroutine does nearly all the work, in the order in which it comes. On one
	// thread a segment costs a fifth less than on two that wake each other, and what is
	// long, a status of many calls or collecting garbage, gives way every 10 ms.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	p := cli.Program{Version: currentVersion(), Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(p.Main(context.Background(), os.Args[1:]))
}

// currentVersion falls back on what the Go command noted in the program.
func currentVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(len(s.Value), 12)]
		}
	}
	return "devel"
}
