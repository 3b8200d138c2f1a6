package config

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// Capture says where the control packets of failing connections are kept.
type Capture struct {
	Directory  string // empty: nowhere
	Total      int    // megabytes that the directory may hold
	Connection int    // kilobytes that are kept of a connection
}

// CallLog says where a line goes for each call that is made and that ends.
type CallLog struct {
	// To is empty (nowhere), "journal", "syslog", "udp:HOST:PORT",
	// "tcp:HOST:PORT", or the path of a file.
	To            string
	ServerAddress bool // whether the server's address is in it
}

// Metrics says where they can be asked for.
type Metrics struct {
	Listen string // HOST:PORT, the path of a Unix socket, or empty: nowhere
}

func setDirectory(c *Config, v any) error {
	s, ok := v.(string)
	if !ok || s != "" && !filepath.IsAbs(s) {
		return fmt.Errorf("be the absolute path of a directory, or empty, not %s", describe(v))
	}
	c.Capture.Directory = s
	return nil
}

// ParseDirectory reads the absolute path of a directory.
func ParseDirectory(s string) (string, error) {
	var c Config
	err := demand(setDirectory(&c, s))
	return c.Capture.Directory, err
}

func setCallLog(c *Config, v any) error {
	s, ok := v.(string)
	kind, address, remote := strings.Cut(s, ":")
	switch {
	case !ok:
	case filepath.IsAbs(s) && isDirectory(s):
		return fmt.Errorf("be the path of a file, not %q", s)
	case s == "" || s == "journal" || s == "syslog" || filepath.IsAbs(s),
		remote && (kind == "udp" || kind == "tcp") && hostPort(address, true):
		c.CallLog.To = s
		return nil
	}
	return fmt.Errorf(`be "journal", "syslog", "udp:HOST:PORT", "tcp:HOST:PORT", the absolute path of a file, or empty, not %s`, describe(v))
}

func setListen(c *Config, v any) error {
	s, ok := v.(string)
	switch {
	case ok && (s == "" || hostPort(s, false)):
	case ok && filepath.IsAbs(s):
		if isDirectory(s) {
			return fmt.Errorf("be the path of a Unix socket, not %q", s)
		}
		if len(s) > maxSocketPath {
			return fmt.Errorf("be at most %d bytes long, a limit of Unix sockets", maxSocketPath)
		}
	default:
		return fmt.Errorf(`be an address such as "127.0.0.1:9723", the absolute path of a Unix socket, or empty, not %s`, describe(v))
	}
	c.Metrics.Listen = s
	return nil
}

// hostPort reports whether s is HOST:PORT. An empty host means all addresses,
// where somebody listens.
func hostPort(s string, host bool) bool {
	h, p, err := net.SplitHostPort(s)
	port, e := strconv.ParseUint(p, 10, 16)
	return err == nil && e == nil && port > 0 && (h != "" || !host)
}

func setBool(dst *bool, v any) error {
	b, ok := v.(bool)
	if !ok {
		return fmt.Errorf("be true or false, not %s", describe(v))
	}
	*dst = b
	return nil
}
