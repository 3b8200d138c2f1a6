package cli

import (
	"context"
	"flag"
	"fmt"

	"pptp-alg/cmd/pptp-alg/internal/daemon"
)

var rulesCommand = command{
	name:    "rules",
	summary: "print the nftables rules that run would install, or remove them",
	usage:   "[FLAGS]",
	help: `Prints the table of the daemon in the syntax of nft(8) and installs nothing.

Where the kernel has no queue expression, the daemon uses the xtables target NFQUEUE.
nft(8) has no words for that: the rule is then printed as a comment. The conntrack
helper pptp-alg is known to nft only while a daemon runs; --anchor off leaves it out.

With --remove, takes away what a daemon that was killed has left behind. Calls that
are up stay up. It refuses while a daemon is at work.

Examples:
  pptp-alg rules
  pptp-alg rules --remove
  pptp-alg rules --config /etc/pptp-alg.toml --anchor off | nft --check --file -`,
	flags: func(fs *flag.FlagSet) func(context.Context, Program) error {
		var s settings
		s.configFlag(fs)
		s.queueFlag(fs)
		s.portFlag(fs)
		s.anchorFlag(fs)
		remove := fs.Bool("remove", false, "remove the rules of a daemon that is no more")
		return func(_ context.Context, p Program) error {
			if *remove {
				return daemon.Remove()
			}
			return s.printRules(p)
		}
	},
}

func (s *settings) printRules(p Program) error {
	c, err := s.load()
	if err != nil {
		return err
	}
	r, err := daemon.Ruleset(c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(p.Stdout, r)
	return err
}
