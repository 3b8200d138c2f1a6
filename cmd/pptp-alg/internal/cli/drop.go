package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"strconv"

	"pptp-alg/cmd/pptp-alg/internal/control"
	"pptp-alg/cmd/pptp-alg/internal/status"
)

var dropCommand = command{
	name:    "drop",
	summary: "end a call, or all calls of a client",
	usage:   "[FLAGS] CALL|CLIENT",
	args:    1,
	help: `Ends the call with this number in "pptp-alg status", or everything of the client with
this address. Both sides are told in PPTP's messages, each as if the other one had
hung up (Call-Clear-Request or Call-Disconnect-Notify, then
Stop-Control-Connection-Request), and a second later their TCP connection is reset.

What ends is the whole control connection. A message put into a TCP stream that goes
on would shift everything behind it, so one call of several on a control connection
cannot be ended alone: --connection says that the others may end too. Most clients
have a control connection for each call.

Nobody is kept from dialling again. A control connection that ends on the router
itself, at a PPTP server or client that runs there, has to be ended there.

Exit code 3 says that no daemon answers.

Examples:
  pptp-alg drop 17
  pptp-alg drop 17 --connection
  pptp-alg drop 192.168.1.20`,
	flags: func(fs *flag.FlagSet) func(context.Context, Program) error {
		var o dropOptions
		socketFlag(fs, &o.socket)
		fs.BoolVar(&o.request.Others, "connection", false, "end the other calls of the call's control connection too")
		fs.BoolVar(&o.json, "json", false, "print what was ended as JSON")
		return o.run
	},
}

type dropOptions struct {
	socket  string
	json    bool
	request status.DropRequest
}

func (o *dropOptions) run(ctx context.Context, p Program) error {
	if len(p.Args) == 0 {
		return errUsage{errors.New("drop: say which call, or which client; see `pptp-alg drop --help`")}
	}
	if err := o.choose(p.Args[0]); err != nil {
		return errUsage{fmt.Errorf("drop: %q %w", p.Args[0], err)}
	}
	raw, err := control.Raw(ctx, o.socket, "drop", o.request)
	if err != nil {
		return noDaemon(err)
	}
	if o.json {
		_, err := fmt.Fprintf(p.Stdout, "%s\n", raw)
		return err
	}
	var d status.Dropped
	if err := json.Unmarshal(raw, &d); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	for _, c := range d.Connections {
		if _, err := fmt.Fprintln(p.Stdout, c); err != nil {
			return err
		}
	}
	return nil
}

// choose reads the argument.
func (o *dropOptions) choose(arg string) error {
	if n, err := strconv.ParseUint(arg, 10, 64); err == nil && n > 0 {
		o.request.Call = n
		return nil
	}
	a, err := netip.ParseAddr(arg)
	if err != nil || !a.Is4() {
		return errors.New("is neither the number of a call nor the IPv4 address of a client")
	}
	o.request.Client = a
	return nil
}
