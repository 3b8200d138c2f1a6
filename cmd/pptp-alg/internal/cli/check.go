package cli

import (
	"context"
	"errors"
	"flag"
	"os"

	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/control"
	"pptp-alg/cmd/pptp-alg/internal/examine"
	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/rules"
)

var checkCommand = command{
	name:    "check",
	summary: "look for what keeps PPTP from getting through this router",
	usage:   "[FLAGS]",
	help: `Looks at every condition for PPTP to pass: capabilities, kernel features, forwarding,
masquerading, the firewall, flow offload, other listeners and other ALGs, table sizes.
Each line is ok, warning or fail; below it stands the command that mends it, for
OpenWrt where this is OpenWrt, else for Debian (--json has both).

It works before and beside a running daemon and changes nothing. What has to be tried
is tried in a network namespace of its own. Firewall rules are walked through as far
as the packets of a call are known; where devices or addresses decide, it says so.

Exit code 0: nothing fails; 1: something does, or with --strict is a warning.

Examples:
  pptp-alg check
  pptp-alg check --strict
  pptp-alg check --json | jq -r '.findings[] | select(.level != "ok") | .fix.debian'`,
	flags: func(fs *flag.FlagSet) func(context.Context, Program) error {
		var s settings
		var asJSON, strict bool
		s.configFlag(fs)
		s.socketFlag(fs)
		s.queueFlag(fs)
		s.portFlag(fs)
		fs.BoolVar(&asJSON, "json", false, "print the report as JSON")
		fs.BoolVar(&strict, "strict", false, "exit code 1 for warnings, too")
		return func(ctx context.Context, p Program) error { return s.check(ctx, p, asJSON, strict) }
	},
}

// errFindings has no words: the report has said it all.
var errFindings = exitError{errors.New(""), exitFailure}

func (s *settings) check(ctx context.Context, p Program, asJSON, strict bool) error {
	c, err := s.load()
	if err != nil {
		return err
	}
	_, err = control.Raw(ctx, c.Socket, "status", nil)
	var refused control.RemoteError
	cfg := examine.Config{Queue: c.Queue, Ports: c.Ports, Table: rules.TableName, Running: err == nil || errors.As(err, &refused)}
	if err != nil {
		cfg.NotRunning = err.Error()
	}
	cfg.FastPath, cfg.TryFastPath = c.FastPath == config.FastPathOn, fastpath.Try
	r := examine.Run(cfg)
	if asJSON {
		err = r.WriteJSON(p.Stdout)
	} else {
		_, e := os.Stat("/etc/openwrt_release")
		err = r.Write(p.Stdout, e == nil, colours(p.Stdout))
	}
	if err != nil {
		return err
	}
	if r.Level == examine.Fail || strict && r.Level == examine.Warning {
		return errFindings
	}
	return nil
}
