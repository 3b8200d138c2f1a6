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

// Set by the linker: -ldflags "-X main.version=1.2.3". commit and date (RFC 3339) are
// only needed where the Go command cannot see the repository.
var version, commit, date string

func main() {
	// One goroutine does nearly all the work, in the order in which it comes. On one
	// thread a segment costs a fifth less than on two that wake each other, and what is
	// long, a status of many calls or collecting garbage, gives way every 10 ms.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	p := cli.Program{Version: version, Commit: commit, Date: date, Stdout: os.Stdout, Stderr: os.Stderr}
	stamp(&p)
	os.Exit(p.Main(context.Background(), os.Args[1:]))
}

// stamp fills in from what the Go command noted in the program what the linker was
// not told.
func stamp(p *cli.Program) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	noted := map[string]string{}
	for _, s := range info.Settings {
		noted[s.Key] = s.Value
	}
	if p.Commit == "" && noted["vcs.revision"] != "" {
		p.Commit, p.Date = noted["vcs.revision"], noted["vcs.time"]
		if noted["vcs.modified"] == "true" {
			p.Commit += " with changes"
		}
	}
	if p.Version == "" {
		p.Version = info.Main.Version
	}
	if p.Version == "" || p.Version == "(devel)" {
		p.Version = "devel"
	}
}
