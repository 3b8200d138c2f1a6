package cli

import (
	"flag"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"pptp-alg/cmd/pptp-alg/internal/config"
)

// settings are the flags that change the configuration. They override the file,
// also when it is read again.
type settings struct {
	file    string
	changes []func(*config.Config)
}

// load reads the file, if there is one, and applies the flags.
func (s *settings) load() (config.Config, error) {
	c := config.Default()
	if s.file != "" {
		var err error
		if c, err = config.Load(s.file); err != nil {
			return c, err
		}
	}
	for _, change := range s.changes {
		change(&c)
	}
	return c, c.Check()
}

// runFlags are the flags of run.
func (s *settings) runFlags(fs *flag.FlagSet) {
	s.configFlag(fs)
	s.socketFlag(fs)
	s.stateFlag(fs)
	s.queueFlag(fs)
	s.portFlag(fs)
	s.anchorFlag(fs)
	s.fastPathFlag(fs)
	s.logFlags(fs)
	s.captureFlag(fs)
}

func (s *settings) configFlag(fs *flag.FlagSet) {
	fs.StringVar(&s.file, "config", "", "read settings from `FILE` (TOML); flags override it")
}

func (s *settings) queueFlag(fs *flag.FlagSet) {
	setting(s, fs, "queue", "nfnetlink queue `N` (default 1723)", config.ParseQueue,
		func(c *config.Config, n uint16) { c.Queue = n })
}

func (s *settings) portFlag(fs *flag.FlagSet) {
	var ports []uint16
	fs.Func("port", "TCP port `P` of control connections (default 1723); may be repeated", func(v string) error {
		p, err := config.ParsePort(v)
		if err != nil {
			return err
		}
		if slices.Contains(ports, p) {
			return fmt.Errorf("names port %d twice", p)
		}
		if len(ports) == config.MaxPorts {
			return fmt.Errorf("is there more than %d times", config.MaxPorts)
		}
		if ports = append(ports, p); len(ports) == 1 {
			// The flags replace the file's list; later ones extend it.
			s.changes = append(s.changes, func(c *config.Config) { c.Ports = slices.Clone(ports) })
		}
		return nil
	})
}

func (s *settings) anchorFlag(fs *flag.FlagSet) {
	setting(s, fs, "anchor", "conntrack `HELPER` against flow offload: auto, ftp or off (default auto)",
		config.ParseAnchor, func(c *config.Config, a config.Anchor) { c.Anchor = a })
}

func (s *settings) fastPathFlag(fs *flag.FlagSet) {
	setting(s, fs, "fast-path", "`SWITCH` the fast path for packets of calls: on or off (default off)",
		config.ParseFastPath, func(c *config.Config, f config.FastPath) { c.FastPath = f })
}

func (s *settings) socketFlag(fs *flag.FlagSet) {
	setting(s, fs, "socket", "control socket `PATH` (default "+config.DefaultSocket+")", parseSocket,
		func(c *config.Config, path string) { c.Socket = path })
}

func (s *settings) stateFlag(fs *flag.FlagSet) {
	setting(s, fs, "state", "state file `PATH`, \"\" for none (default "+config.DefaultState+")", parseState,
		func(c *config.Config, path string) { c.State = path })
}

func (s *settings) logFlags(fs *flag.FlagSet) {
	setting(s, fs, "log-format", "`FORMAT` of log lines: text or json (default text)", config.ParseLogFormat,
		func(c *config.Config, f config.LogFormat) { c.LogFormat = f })
	setting(s, fs, "log-level", "`LEVEL` from which on to log: debug, info, warn or error (default info)", config.ParseLogLevel,
		func(c *config.Config, l slog.Level) { c.LogLevel = l })
}

func (s *settings) captureFlag(fs *flag.FlagSet) {
	setting(s, fs, "capture", "keep the control packets of connections that fail in `DIR`, for replay", func(v string) (string, error) {
		path, err := filepath.Abs(v)
		if err != nil {
			return "", err
		}
		return config.ParseDirectory(path)
	}, func(c *config.Config, dir string) { c.Capture.Directory = dir })
}

// parseSocket takes a relative path too, as other programs do: the shell's directory
// is known here. The file's path must be absolute.
func parseSocket(v string) (string, error) {
	path, err := filepath.Abs(v)
	if err != nil {
		return "", err
	}
	return config.ParseSocket(path)
}

// parseState takes a relative path like parseSocket, or nothing.
func parseState(v string) (string, error) {
	if v == "" {
		return "", nil
	}
	path, err := filepath.Abs(v)
	if err != nil {
		return "", err
	}
	return config.ParseState(path)
}

// setting defines a flag whose value is checked at once and applied after the file.
func setting[T any](s *settings, fs *flag.FlagSet, name, usage string, parse func(string) (T, error), set func(*config.Config, T)) {
	fs.Func(name, usage, func(v string) error {
		x, err := parse(v)
		if err == nil {
			s.changes = append(s.changes, func(c *config.Config) { set(c, x) })
		}
		return err
	})
}
