package cli

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/daemon"
	"pptp-alg/cmd/pptp-alg/internal/notify"
	"pptp-alg/cmd/pptp-alg/internal/privilege"
)

var runCommand = command{
	name:    "run",
	summary: "run the daemon in the foreground",
	usage:   "[FLAGS]",
	help: `Installs the table "ip pptp-alg" in nftables, translates PPTP control connections
that pass through this router, and keeps the conntrack entries of their calls.
No configuration is needed. It needs the capability CAP_NET_ADMIN.

SIGTERM and SIGINT stop it: calls that are up stay up. SIGHUP reads the file again.

Examples:
  pptp-alg run
  pptp-alg run --config /etc/pptp-alg.toml --log-format json
  pptp-alg run --port 1723 --port 11723`,
	flags: func(fs *flag.FlagSet) func(context.Context, Program) error {
		var s settings
		s.runFlags(fs)
		return s.run
	},
}

// run starts the daemon and hands it the signals.
func (s *settings) run(ctx context.Context, p Program) error {
	c, err := s.load()
	if err != nil {
		return err
	}
	if err := privilege.Check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()

	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	log := logger(p.Stderr, c.LogFormat, level)

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	defer signal.Stop(hup)
	reload := make(chan config.Config)
	go s.reload(ctx, hup, reload, level, log)

	manager, err := notify.FromEnvironment()
	if err != nil {
		log.Warn("the service manager will not be told when the daemon is ready", "error", err)
	}
	defer manager.Close()

	err = daemon.Run(ctx, daemon.Options{Config: c, Log: log, Version: p.Version, Reload: reload, Manager: manager})
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // asked to stop is not a failure
	}
	return err
}

// reload reads the configuration again at each SIGHUP. One that is wrong changes
// nothing.
func (s *settings) reload(ctx context.Context, hup <-chan os.Signal, reload chan<- config.Config, level *slog.LevelVar, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		c, err := s.load()
		if err != nil {
			log.Error("configuration is wrong, the old one stays", "error", err)
			continue
		}
		level.Set(c.LogLevel)
		select {
		case <-ctx.Done():
			return
		case reload <- c:
		}
	}
}

// logger writes to standard error. Under systemd that is the journal.
func logger(w io.Writer, format config.LogFormat, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
