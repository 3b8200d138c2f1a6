package config

import "strings"

// atStart are the keys, and the tables with a dot, that a running daemon does not change: what they
// name was opened before it gave its privileges up, or is known to others by this name.
var atStart = []string{"queue", "ports", "socket", "state", "fast_path", "log_format", "call_log.", "capture.", "metrics."}

func atStartOnly(name string) bool {
	for _, s := range atStart {
		if name == s || strings.HasSuffix(s, ".") && strings.HasPrefix(name, s) {
			return true
		}
	}
	return false
}

// TakeOver makes c, which was read again, what a daemon can go on with that runs by old:
// what changes at the next start only stays as it is there. It returns the keys that changed,
// and those that would have.
func (c *Config) TakeOver(old Config) (changed, later []string) {
	for _, k := range keys {
		value := values[k.name]
		switch {
		case literal(value(c)) == literal(value(&old)):
		case atStartOnly(k.name):
			later = append(later, k.name)
		default:
			changed = append(changed, k.name)
		}
	}
	c.Queue, c.Socket, c.State, c.FastPath, c.LogFormat = old.Queue, old.Socket, old.State, old.FastPath, old.LogFormat
	c.Ports = old.Clone().Ports
	c.CallLog, c.Capture, c.Metrics = old.CallLog, old.Capture, old.Metrics
	return changed, later
}
