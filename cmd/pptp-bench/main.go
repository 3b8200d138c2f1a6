// Command pptp-bench measures pptp-alg against the kernel's own PPTP helper in
// network namespaces, and writes the tables and curves of the documentation from
// what it measured. It needs root, and runs within the source tree.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"pptp-alg/e2e/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "pptp-bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	program := flag.String("program", "bin/pptp-alg", "the `PATH` of pptp-alg")
	results := flag.String("results", "bench/results", "`DIRECTORY` of the results")
	once := flag.Bool("once", false, "small numbers, to see that everything works; writes to a directory that is thrown away")
	only := flag.String("only", "", "measure one `PART` only: "+strings.Join(bench.Parts, ", "))
	rounds := flag.Int("rounds", 0, "`NUMBER` of rounds, instead of so many as it takes on a machine with other load")
	docs := flag.Bool("docs", false, "measure nothing: write tables and curves from the results that are there")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if *docs {
		return bench.WriteDocs(".", *results)
	}
	plan := bench.Full()
	if *rounds > 0 {
		plan.Rounds, plan.ControlRounds, plan.Starts = *rounds, *rounds, *rounds
	}
	if *once {
		plan = bench.Once()
		dir, err := os.MkdirTemp("", "pptp-bench-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		*results = dir
	}
	version, err := exec.CommandContext(ctx, *program, "version").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", *program, err)
	}
	err = bench.Run(ctx, bench.Config{Program: *program, Version: strings.TrimSpace(string(version)), Results: *results, Only: *only,
		Plan: plan, Out: os.Stdout})
	if err != nil {
		return err
	}
	r, err := bench.Load(*results)
	if err != nil {
		return err
	}
	fmt.Println()
	fmt.Print(bench.Tables(r))
	if *once {
		return nil
	}
	return bench.WriteDocs(".", *results)
}
