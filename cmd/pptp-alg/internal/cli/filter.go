package cli

import (
	"flag"

	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/status"
)

// socketFlag defines --socket for the commands that talk to the daemon.
func socketFlag(fs *flag.FlagSet, path *string) {
	fs.StringVar(path, "socket", config.DefaultSocket, "control socket `PATH` (default "+config.DefaultSocket+")")
}

// filterFlags defines the flags that choose calls.
func filterFlags(fs *flag.FlagSet, f *status.Filter) {
	fs.Func("client", "only those of the client `ADDRESS`, or of a network: 192.168.1.0/24", func(v string) (err error) {
		f.Client, err = status.ParseHosts(v)
		return err
	})
	fs.Func("server", "only those of the server `ADDRESS`, or network", func(v string) (err error) {
		f.Server, err = status.ParseHosts(v)
		return err
	})
	fs.Func("state", "only those in this `STATE`: requested, established, ... or warning", func(v string) (err error) {
		f.State, err = status.ParseState(v)
		return err
	})
}
