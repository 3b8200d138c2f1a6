package config

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// values give what each key has, in the form in which a file has it.
var values = map[string]func(*Config) any{
	"queue":         func(c *Config) any { return c.Queue },
	"ports":         func(c *Config) any { return c.Ports },
	"socket":        func(c *Config) any { return c.Socket },
	"guard":         func(c *Config) any { return string(c.Guard) },
	"anchor":        func(c *Config) any { return string(c.Anchor) },
	"fast_path":     func(c *Config) any { return string(c.FastPath) },
	"log_format":    func(c *Config) any { return string(c.LogFormat) },
	"log_level":     func(c *Config) any { return levelName(c.LogLevel) },
	"call_id_range": func(c *Config) any { return fmt.Sprintf("%d-%d", c.CallIDs.First, c.CallIDs.Last) },
	"state":         func(c *Config) any { return c.State },
	"remember":      func(c *Config) any { return c.Remember },

	"limits.calls_per_client":       func(c *Config) any { return c.Limits.CallsPerClient },
	"limits.calls_per_connection":   func(c *Config) any { return c.Limits.CallsPerConnection },
	"limits.calls":                  func(c *Config) any { return c.Limits.Calls },
	"limits.connections_per_client": func(c *Config) any { return c.Limits.ConnectionsPerClient },
	"limits.segments_per_client":    func(c *Config) any { return c.SegmentsPerClient },
	"limits.connections":            func(c *Config) any { return c.Limits.Connections },

	"timeouts.half_open": func(c *Config) any { return c.Timeouts.HalfOpen },
	"timeouts.clearing":  func(c *Config) any { return c.Timeouts.Clearing },
	"timeouts.grace":     func(c *Config) any { return c.Timeouts.Grace },
	"timeouts.rest":      func(c *Config) any { return c.Timeouts.Rest },
	"timeouts.silence":   func(c *Config) any { return c.Timeouts.Silence },
	"timeouts.unheard":   func(c *Config) any { return c.Timeouts.Unheard },

	"call_log.to":             func(c *Config) any { return c.CallLog.To },
	"call_log.server_address": func(c *Config) any { return c.CallLog.ServerAddress },

	"capture.directory":            func(c *Config) any { return c.Capture.Directory },
	"capture.total_megabytes":      func(c *Config) any { return c.Capture.Total },
	"capture.connection_kilobytes": func(c *Config) any { return c.Capture.Connection },

	"metrics.listen": func(c *Config) any { return c.Metrics.Listen },
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

// String is the configuration as a file that Parse reads, with every key.
func (c Config) String() string {
	var b strings.Builder
	table, automatic := "", Default()
	for _, k := range keys {
		name := k.name
		if in, rest, nested := strings.Cut(name, "."); nested {
			if in != table {
				table = in
				fmt.Fprintf(&b, "\n[%s]\n", table)
			}
			name = rest
		}
		remark := ""
		if v := values[k.name]; k.byMemory() && v(&c) == v(&automatic) {
			remark = "  # as \"auto\" has it, by the machine's memory"
		}
		fmt.Fprintf(&b, "%s = %s%s\n", name, literal(values[k.name](&c)), remark)
	}
	return b.String()
}

// literal writes a value as TOML has it.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return quoteText(v)
	case time.Duration:
		return quoteText(short(v))
	case []uint16:
		texts := make([]string, len(v))
		for i, n := range v {
			texts[i] = fmt.Sprint(n)
		}
		return "[" + strings.Join(texts, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// quoteText writes a basic string of TOML.
func quoteText(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
