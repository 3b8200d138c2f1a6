// Package metrics writes the text format of Prometheus and answers those who
// ask for it over HTTP.
//
// Both are small on purpose. net/http would add 3.2 MB to a program of 6, and
// the client library of Prometheus more; what is needed is one kind of request
// and three kinds of line.
package metrics

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Kind is what Prometheus does with a metric.
type Kind string

// Kinds of metrics. A counter only grows; its name ends with _total.
const (
	Counter Kind = "counter"
	Gauge   Kind = "gauge"
)

// A Family is a metric, with a sample for each combination of labels.
type Family struct {
	Name    string
	Help    string
	Kind    Kind
	Samples []Sample
}

// A Sample is a value. Labels are names and values in turn.
type Sample struct {
	Labels []string
	Value  float64
}

// One makes a family of one sample without labels.
func One(name, help string, kind Kind, value float64) Family {
	return Family{name, help, kind, []Sample{{nil, value}}}
}

// ContentType is that of what Encode writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Encode writes families in the text exposition format, version 0.0.4.
func Encode(families []Family) []byte {
	var b strings.Builder
	for _, f := range families {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.Name, helpEscapes.Replace(f.Help), f.Name, f.Kind)
		for _, s := range f.Samples {
			b.WriteString(f.Name)
			for i := 0; i+1 < len(s.Labels); i += 2 {
				sep := ","
				if i == 0 {
					sep = "{"
				}
				fmt.Fprintf(&b, `%s%s="%s"`, sep, s.Labels[i], labelEscapes.Replace(s.Labels[i+1]))
			}
			if len(s.Labels) > 1 {
				b.WriteByte('}')
			}
			b.WriteByte(' ')
			b.WriteString(number(s.Value))
			b.WriteByte('\n')
		}
	}
	return []byte(b.String())
}

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// number writes whole numbers as such: people read them too.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
