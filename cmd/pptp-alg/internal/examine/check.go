// Package examine is `pptp-alg check`: it looks at everything that PPTP needs to get through a router, and says
// what is missing, why, and which command mends it. It changes nothing: what has to
// be tried is tried in a network namespace of its own that goes at once.
package examine

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Level is how bad a finding is.
type Level string

// Levels, the worst last.
const (
	OK      Level = "ok"
	Warning Level = "warning" // works, or may: something is missing or can't be decided
	Fail    Level = "fail"    // calls do not get through
)

// A Finding is one condition and how it is met.
type Finding struct {
	Name  string `json:"name"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Fix   *Fix   `json:"fix,omitempty"`
}

// A Fix is what to do, as commands.
type Fix struct {
	Debian  string `json:"debian"`
	OpenWrt string `json:"openwrt"`
}

// A Report is all findings.
type Report struct {
	Level    Level     `json:"level"` // the worst
	Findings []Finding `json:"findings"`
}

// Config says for which settings of the daemon to look.
type Config struct {
	Queue uint16
	Ports []uint16
	// Table is the daemon's own nftables table.
	Table string
	// Running says whether a daemon answers, and if not, why.
	Running    bool
	NotRunning string
	// FastPath says whether it is wanted, and TryFastPath why this kernel cannot have it.
	FastPath    bool
	TryFastPath func() error
}

// Run looks at everything, in the calling thread's network namespace.
func Run(c Config) Report {
	var r Report
	for _, look := range []func(Config) []Finding{
		capabilities, kernel, helpers, accounting, forwarding, tables, firewall, listeners, otherALG, fastPath, running,
	} {
		r.Findings = append(r.Findings, look(c)...)
	}
	r.Level = OK
	for _, f := range r.Findings {
		r.Level = slices.MaxFunc([]Level{r.Level, f.Level}, func(a, b Level) int { return cmp.Compare(rank(a), rank(b)) })
	}
	return r
}

func rank(l Level) int { return slices.Index([]Level{OK, Warning, Fail}, l) }

func ok(name, format string, args ...any) Finding {
	return Finding{Name: name, Level: OK, Text: fmt.Sprintf(format, args...)}
}

func warning(name string, fix *Fix, format string, args ...any) Finding {
	return Finding{name, Warning, fmt.Sprintf(format, args...), fix}
}

func fail(name string, fix *Fix, format string, args ...any) Finding {
	return Finding{name, Fail, fmt.Sprintf(format, args...), fix}
}

// both is a fix that is the same everywhere.
func both(command string) *Fix { return &Fix{command, command} }

// Write writes the report for people. openWrt chooses which commands are shown.
func (r Report) Write(w io.Writer, openWrt, colours bool) error {
	var b strings.Builder
	for _, f := range r.Findings {
		level := fmt.Sprintf("%-7s", f.Level)
		if colours {
			level = fmt.Sprintf("\x1b[%dm%s\x1b[0m", map[Level]int{OK: 32, Warning: 33, Fail: 31}[f.Level], level)
		}
		fmt.Fprintf(&b, "%s  %s: %s\n", level, f.Name, f.Text)
		if f.Fix != nil {
			command := f.Fix.Debian
			if openWrt {
				command = f.Fix.OpenWrt
			}
			for line := range strings.Lines(command) {
				fmt.Fprintf(&b, "           %s\n", strings.TrimSuffix(line, "\n"))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes the report as one document.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
