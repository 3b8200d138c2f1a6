package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFile bounds the file. The longest sensible one has a few kilobytes.
const maxFile = 1 << 20

// An Error is one fault of a file.
type Error struct {
	File   string
	Line   int    // 0 when unknown
	Key    string // dotted; empty when the fault is not about a key
	Reason string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + " ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Load reads a file. Keys it does not have keep their defaults. The error joins
// an [*Error] for each fault.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxFile {
		return Config{}, fmt.Errorf("read configuration: %s is larger than %d bytes", path, maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a file's content; name is for errors.
func Parse(name string, data []byte) (Config, error) {
	var raw map[string]any
	if err := toml.Unmarshal(data, &raw); err != nil {
		return Config{}, syntaxError(name, err)
	}
	c := Default()
	var faults []*Error
	lines := lineIndex(data)
	apply(&c, "", raw, func(key, reason string) {
		faults = append(faults, &Error{File: name, Line: lines[key], Key: key, Reason: reason})
	})
	if len(faults) == 0 {
		c.conflicts(func(key, reason string) {
			faults = append(faults, &Error{File: name, Line: lines[key], Key: key, Reason: reason})
		})
	}
	if len(faults) == 0 {
		return c, nil
	}
	slices.SortFunc(faults, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Key, b.Key)
	})
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = f
	}
	return Config{}, errors.Join(errs...)
}

// apply sets the keys of a table, and of the tables in it.
func apply(c *Config, prefix string, table map[string]any, fault func(key, reason string)) {
	for name, v := range table {
		name = prefix + quote(name)
		k, known := findKey(name)
		sub, nested := v.(map[string]any)
		switch {
		case known:
			if err := k.set(c, v); err != nil {
				fault(name, demand(err).Error())
			}
		case isTable(name) && nested:
			apply(c, name+".", sub, fault)
		case isTable(name):
			fault(name, "must be a table, not "+describe(v))
		default:
			fault(name, "is not a key"+suggest(name))
		}
	}
}

// quote keeps a key with a dot or a blank in its name apart from a dotted one.
func quote(part string) string {
	if part == "" || strings.ContainsAny(part, ". \t\n\"'") {
		return fmt.Sprintf("%q", part)
	}
	return part
}

func syntaxError(name string, err error) error {
	var d *toml.DecodeError
	if errors.As(err, &d) {
		line, _ := d.Position()
		reason := strings.TrimPrefix(d.Error(), "toml: ")
		return &Error{File: name, Line: line, Reason: "not valid TOML: " + reason}
	}
	return &Error{File: name, Reason: "not valid TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
}

// lineIndex finds the line of every key and table. The decoder does not tell, so
// the expressions are walked once more.
func lineIndex(data []byte) map[string]int {
	lines := map[string]int{}
	var p unstable.Parser
	p.Reset(data)
	prefix := ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			prefix = note(lines, &p, "", e) + "."
		case unstable.KeyValue:
			noteValue(lines, &p, prefix, e)
		}
	}
	return lines
}

// noteValue notes a key and, for an inline table, the keys in it.
func noteValue(lines map[string]int, p *unstable.Parser, prefix string, e *unstable.Node) {
	name := note(lines, p, prefix, e)
	if v := e.Value(); v.Kind == unstable.InlineTable {
		for it := v.Children(); it.Next(); {
			if n := it.Node(); n.Kind == unstable.KeyValue {
				noteValue(lines, p, name+".", n)
			}
		}
	}
}

// note notes the line of a dotted key and of each table it implies.
func note(lines map[string]int, p *unstable.Parser, prefix string, e *unstable.Node) string {
	name := strings.TrimSuffix(prefix, ".")
	for it := e.Key(); it.Next(); {
		n := it.Node()
		if name != "" {
			name += "."
		}
		name += quote(string(n.Data))
		if _, seen := lines[name]; !seen {
			lines[name] = p.Shape(n.Raw).Start.Line
		}
	}
	return name
}

// suggest completes "KEY is not a key" with the nearest one.
func suggest(name string) string {
	best, least := "", len(name)/3+2
	for _, k := range keys {
		candidates := []string{k.name}
		// A key in the wrong table, or its table under another name.
		if base(k.name) == base(name) {
			return fmt.Sprintf(" (did you mean %s?)", k.name)
		}
		if table, _, ok := strings.Cut(k.name, "."); ok {
			candidates = append(candidates, table)
		}
		for _, s := range candidates {
			if d := distance(name, s); d < least {
				best, least = s, d
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

func base(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// distance is how many letters must be changed, added or removed to make b of a.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
