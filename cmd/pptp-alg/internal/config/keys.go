package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A key of the file: its dotted name, and how its value gets into a Config. The
// error of set completes the sentence "KEY must ...".
type key struct {
	name string
	set  func(c *Config, value any) error
}

// keys are all keys of the file.
var keys = []key{
	{"queue", func(c *Config, v any) error { return setUint16(&c.Queue, v, 0) }},
	{"ports", setPorts},
	{"socket", func(c *Config, v any) error { return setPath(&c.Socket, v) }},
	{"state", func(c *Config, v any) error { return setState(&c.State, v) }},
	{"guard", func(c *Config, v any) error { return setWord(&c.Guard, v, GuardCalls, GuardAll) }},
	{"anchor", func(c *Config, v any) error { return setWord(&c.Anchor, v, AnchorAuto, AnchorFTP, AnchorOff) }},
	{"fast_path", func(c *Config, v any) error { return setWord(&c.FastPath, v, FastPathOff, FastPathOn) }},
	{"log_format", func(c *Config, v any) error { return setWord(&c.LogFormat, v, LogText, LogJSON) }},
	{"log_level", setLogLevel},
	{"call_id_range", setCallIDs},
	{"remember", func(c *Config, v any) error { return setInt(&c.Remember, v, 0, 1_000_000) }},

	{"limits.calls_per_client", autoLimit(func(l *Limits) *int { return &l.CallsPerClient })},
	{"limits.calls_per_connection", limit(func(l *Limits) *int { return &l.CallsPerConnection })},
	{"limits.calls", autoLimit(func(l *Limits) *int { return &l.Calls })},
	{"limits.connections_per_client", autoLimit(func(l *Limits) *int { return &l.ConnectionsPerClient })},
	{"limits.segments_per_client", setSegments},
	{"limits.connections", autoLimit(func(l *Limits) *int { return &l.Connections })},

	{"timeouts.half_open", timeout(func(t *Timeouts) *time.Duration { return &t.HalfOpen }, time.Second, time.Hour)},
	{"timeouts.clearing", timeout(func(t *Timeouts) *time.Duration { return &t.Clearing }, time.Second, time.Hour)},
	{"timeouts.grace", timeout(func(t *Timeouts) *time.Duration { return &t.Grace }, 0, 5*time.Minute)},
	{"timeouts.rest", timeout(func(t *Timeouts) *time.Duration { return &t.Rest }, 0, 24*time.Hour)},
	{"timeouts.silence", timeout(func(t *Timeouts) *time.Duration { return &t.Silence }, time.Second, time.Hour)},
	{"timeouts.unheard", timeout(func(t *Timeouts) *time.Duration { return &t.Unheard }, 5*time.Second, 120*time.Hour)},

	{"call_log.to", setCallLog},
	{"call_log.server_address", func(c *Config, v any) error { return setBool(&c.CallLog.ServerAddress, v) }},

	{"capture.directory", setDirectory},
	{"capture.total_megabytes", func(c *Config, v any) error { return setInt(&c.Capture.Total, v, 1, 100_000) }},
	{"capture.connection_kilobytes", func(c *Config, v any) error { return setInt(&c.Capture.Connection, v, 4, 10_000) }},

	{"metrics.listen", setListen},
}

func findKey(name string) (key, bool) {
	for _, k := range keys {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}

// isTable reports whether name is a table of keys, such as "limits".
func isTable(name string) bool {
	return slices.ContainsFunc(keys, func(k key) bool { return strings.HasPrefix(k.name, name+".") })
}

// The functions that follow read the values of flags, with the checks of the file.

// ParseAnchor reads "auto", "ftp" or "off".
func ParseAnchor(s string) (Anchor, error) {
	var a Anchor
	err := demand(setWord(&a, s, AnchorAuto, AnchorFTP, AnchorOff))
	return a, err
}

// ParseFastPath reads "off" or "on".
func ParseFastPath(s string) (FastPath, error) {
	var f FastPath
	err := demand(setWord(&f, s, FastPathOff, FastPathOn))
	return f, err
}

// ParseLogFormat reads "text" or "json".
func ParseLogFormat(s string) (LogFormat, error) {
	var f LogFormat
	err := demand(setWord(&f, s, LogText, LogJSON))
	return f, err
}

// ParseLogLevel reads "debug", "info", "warn" or "error".
func ParseLogLevel(s string) (slog.Level, error) {
	var c Config
	err := demand(setLogLevel(&c, s))
	return c.LogLevel, err
}

// ParseSocket reads an absolute path.
func ParseSocket(s string) (string, error) {
	var path string
	err := demand(setPath(&path, s))
	return path, err
}

// ParseState reads an absolute path, or nothing.
func ParseState(s string) (string, error) {
	var path string
	err := demand(setState(&path, s))
	return path, err
}

// ParsePort reads a TCP port.
func ParsePort(s string) (uint16, error) {
	n, err := parseUint16(s, 1)
	return n, demand(err)
}

// ParseQueue reads a queue number.
func ParseQueue(s string) (uint16, error) {
	n, err := parseUint16(s, 0)
	return n, demand(err)
}

// parseUint16 reads a number from least upwards; its error completes "must ...".
func parseUint16(s string, least uint16) (uint16, error) {
	var value any = s
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		value = v
	}
	var n uint16
	err := setUint16(&n, value, least)
	return n, err
}

// demand turns "be a number" into "must be a number".
func demand(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("must %w", err)
}

// describe names a value of the file in an error.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("the text %q", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case int64, float64, bool:
		return fmt.Sprint(v)
	}
	return "a date or time"
}

func setInt(dst *int, v any, least, most int64) error {
	n, ok := v.(int64)
	if !ok || n < least || n > most {
		return fmt.Errorf("be a whole number from %d to %d, not %s", least, most, describe(v))
	}
	*dst = int(n)
	return nil
}

func setUint16(dst *uint16, v any, least uint16) error {
	var n int
	if err := setInt(&n, v, int64(least), math.MaxUint16); err != nil {
		return err
	}
	*dst = uint16(n)
	return nil
}

func limit(field func(*Limits) *int) func(*Config, any) error {
	return func(c *Config, v any) error { return setInt(field(&c.Limits), v, 0, 10_000_000) }
}

func setSegments(c *Config, v any) error {
	var n int
	err := setInt(&n, v, 0, 10_000_000)
	c.SegmentsPerClient = uint32(n)
	return err
}

func setWord[T ~string](dst *T, v any, words ...T) error {
	s, ok := v.(string)
	if ok && slices.Contains(words, T(s)) {
		*dst = T(s)
		return nil
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(string(w))
	}
	return fmt.Errorf("be %s, not %s", strings.Join(quoted, " or "), describe(v))
}

func setPath(dst *string, v any) error {
	s, ok := v.(string)
	switch {
	case !ok:
		return fmt.Errorf("be a path in quotes, not %s", describe(v))
	case !filepath.IsAbs(s):
		return fmt.Errorf("be an absolute path, not %q", s)
	case isDirectory(s):
		return fmt.Errorf("be the path of a file, not %q", s)
	case len(s) > maxSocketPath:
		return fmt.Errorf("be at most %d bytes long, a limit of Unix sockets", maxSocketPath)
	}
	*dst = s
	return nil
}

// setState takes the path of a file, or nothing.
func setState(dst *string, v any) error {
	s, ok := v.(string)
	if !ok || s != "" && !filepath.IsAbs(s) {
		return fmt.Errorf("be an absolute path in quotes, or empty, not %s", describe(v))
	}
	if isDirectory(s) {
		return fmt.Errorf("be the path of a file, not %q", s)
	}
	*dst = s
	return nil
}

// maxSocketPath is what fits into sockaddr_un, without the closing zero.
const maxSocketPath = 107

// MaxPorts is how many control ports fit into the filter by which the kernel tells of removed connections.
const MaxPorts = 128

func setPorts(c *Config, v any) error {
	list, ok := v.([]any)
	if !ok {
		return fmt.Errorf("be a list such as [1723], not %s", describe(v))
	}
	if len(list) == 0 {
		return errors.New("name at least one port")
	}
	if len(list) > MaxPorts {
		return fmt.Errorf("name at most %d ports, not %d", MaxPorts, len(list))
	}
	var ports []uint16
	for _, e := range list {
		var p uint16
		if err := setUint16(&p, e, 1); err != nil {
			return fmt.Errorf("be a list of ports; each must %w", err)
		}
		if slices.Contains(ports, p) {
			return fmt.Errorf("name each port once; %d is there twice", p)
		}
		ports = append(ports, p)
	}
	c.Ports = ports
	return nil
}

func setLogLevel(c *Config, v any) error {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	var word string
	if err := setWord(&word, v, "debug", "info", "warn", "error"); err != nil {
		return err
	}
	c.LogLevel = levels[word]
	return nil
}

func setCallIDs(c *Config, v any) error {
	s, ok := v.(string)
	first, last, both := strings.Cut(s, "-")
	if !ok || !both {
		return fmt.Errorf("be a range such as \"1-65535\", not %s", describe(v))
	}
	var r CallIDs
	var err error
	if r.First, err = parseUint16(strings.TrimSpace(first), 1); err == nil {
		r.Last, err = parseUint16(strings.TrimSpace(last), 1)
	}
	switch {
	case err != nil:
		return fmt.Errorf("be a range such as \"1-65535\": each end must %w", err)
	case r.First > r.Last:
		return fmt.Errorf("have its smaller end first, not %q", s)
	}
	c.CallIDs = r
	return nil
}

func timeout(field func(*Timeouts) *time.Duration, least, most time.Duration) func(*Config, any) error {
	return func(c *Config, v any) error {
		s, ok := v.(string)
		d, err := time.ParseDuration(s)
		switch {
		case !ok || err != nil:
			return fmt.Errorf("be a duration in quotes, such as \"90s\" or \"2m\", not %s", describe(v))
		case d < least || d > most:
			return fmt.Errorf("be from %s to %s, not %q", short(least), short(most), s)
		}
		*field(&c.Timeouts) = d
		return nil
	}
}

// short writes a duration without its zero parts: 1h, not 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
