package status

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// WriteTable writes the calls as a table for people, sorted, and what there is to
// say about connections below it. width is the width of the terminal: if a call
// does not fit into one line, each gets two. 0 is a file or a pipe, where a call
// is always one line.
func WriteTable(w io.Writer, s Status, now time.Time, width int) error {
	s.Sort()
	b := bufio.NewWriter(w)
	if len(s.Calls) > 0 {
		ends := table{header: []cell{
			left("CLIENT"), right("CALL ID"), left("PUBLIC"), right("CALL ID"), left("SERVER"), right("CALL ID"),
		}}
		rest := table{header: []cell{
			left("STATE"), right("AGE"), right("PKTS OUT"), right("BYTES OUT"), right("PKTS IN"), right("BYTES IN"),
		}}
		for _, c := range s.Calls {
			ends.add(address(c.Client.Address), callID(c.Client.CallID),
				address(c.Client.TranslatedAddress), callID(c.Client.TranslatedCallID),
				address(c.Server.Address), callID(c.Server.CallID))
			rest.add(c.State, age(now.Sub(c.Since)),
				packets(c.PacketsFromClient), bytesOf(c.BytesFromClient),
				packets(c.PacketsFromServer), bytesOf(c.BytesFromServer))
		}
		a, z := ends.lines(), rest.lines()
		if width == 0 || longest(a)+len(gap)+longest(z) <= width {
			for i := range a {
				fmt.Fprintln(b, a[i]+gap+z[i])
			}
		} else {
			for i := range a {
				fmt.Fprintln(b, strings.TrimRight(a[i], " "))
				fmt.Fprintln(b, "    "+z[i])
			}
		}
		fmt.Fprintln(b)
	}
	fmt.Fprintf(b, "%s on %s\n", count(len(s.Calls), "call"), count(len(s.Connections), "control connection"))
	for _, c := range s.Connections {
		if c.Unparsed != "" {
			fmt.Fprintf(b, "not understood, passed on unchanged: %v to %v: %s\n", c.Client.Address, c.Server.Address, c.Unparsed)
		}
	}
	return b.Flush()
}

// gap stands between columns.
const gap = "  "

// A table aligns columns of text.
type table struct {
	header []cell
	rows   [][]string
}

type cell struct {
	text  string
	right bool // numbers are
}

func left(s string) cell  { return cell{s, false} }
func right(s string) cell { return cell{s, true} }

func (t *table) add(row ...string) { t.rows = append(t.rows, row) }

// lines returns the header and the rows, each of the same length.
func (t *table) lines() []string {
	widths := make([]int, len(t.header))
	for i, h := range t.header {
		widths[i] = len(h.text)
		for _, r := range t.rows {
			widths[i] = max(widths[i], len(r[i]))
		}
	}
	format := func(text func(i int) string) string {
		var b strings.Builder
		for i, h := range t.header {
			if i > 0 {
				b.WriteString(gap)
			}
			n := widths[i]
			if !h.right {
				n = -n
			}
			fmt.Fprintf(&b, "%*s", n, text(i))
		}
		return b.String()
	}
	out := []string{format(func(i int) string { return t.header[i].text })}
	for _, r := range t.rows {
		out = append(out, format(func(i int) string { return r[i] }))
	}
	return out
}

func longest(lines []string) int {
	n := 0
	for _, l := range lines {
		n = max(n, len(l))
	}
	return n
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func callID(id *uint16) string {
	if id == nil {
		return "-"
	}
	return strconv.Itoa(int(*id))
}

// age writes a duration in its two largest units.
func age(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}

func packets(n *uint64) string { return quantity(n, 1000, " kMGTPE") }
func bytesOf(n *uint64) string { return quantity(n, 1024, " KMGTPE") }

// quantity writes a number in full up to five digits, and with three significant
// ones and a unit beyond.
func quantity(n *uint64, base float64, units string) string {
	if n == nil {
		return "-"
	}
	if *n < 100_000 {
		return strconv.FormatUint(*n, 10)
	}
	v, u := float64(*n), 0
	for v >= base && u < len(units)-1 {
		v, u = v/base, u+1
	}
	// 999.7 would round to "1000", a digit too many.
	if v >= 999.5 && u < len(units)-1 {
		v, u = v/base, u+1
	}
	digits := 0
	switch {
	case v < 9.995:
		digits = 2
	case v < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + units[u:u+1]
}
