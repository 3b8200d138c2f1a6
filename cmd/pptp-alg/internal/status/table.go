package status

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// gap stands between columns.
const gap = "  "

// A colour of text on a terminal: the number of SGR, "Select Graphic Rendition", of
// ECMA-48.
type colour int

const (
	plain  colour = 0
	bold   colour = 1
	red    colour = 31
	green  colour = 32
	yellow colour = 33
)

// paint also takes out what a terminal would follow as a command: some words come
// from elsewhere, the names of other processes for instance.
func (c colour) paint(s string, on bool) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
	if !on || c == plain || s == "" {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, s)
}

// A column of a table. Where the line is too long for the terminal, columns with
// the highest spare number go first, all of one number at once; those with 0 stay.
type column struct {
	title string
	right bool // numbers are
	spare int
}

func left(title string, spare int) column  { return column{title, false, spare} }
func right(title string, spare int) column { return column{title, true, spare} }

// A row has a cell for each column, and lines of text to stand below it.
type row struct {
	cells []cell
	below []cell
}

type cell struct {
	text   string
	colour colour
}

func text(s string) cell { return cell{s, plain} }

type table struct {
	columns []column
	rows    []row
}

// write aligns the columns, as many as fit into width; 0 is no limit.
func (t *table) write(b *bufio.Writer, width int, colours bool) {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = len(c.title)
		for _, r := range t.rows {
			widths[i] = max(widths[i], len(r.cells[i].text))
		}
	}
	shown := t.fit(widths, width)
	line := func(at func(i int) cell) {
		var s strings.Builder
		for n, i := range shown {
			c := at(i)
			pad := strings.Repeat(" ", widths[i]-len(c.text))
			if n > 0 {
				s.WriteString(gap)
			}
			if t.columns[i].right {
				s.WriteString(pad)
			}
			s.WriteString(c.colour.paint(c.text, colours))
			if !t.columns[i].right {
				s.WriteString(pad)
			}
		}
		fmt.Fprintln(b, strings.TrimRight(s.String(), " "))
	}
	line(func(i int) cell { return cell{t.columns[i].title, bold} })
	indent := strings.Repeat(" ", widths[0]) + gap
	for _, r := range t.rows {
		line(func(i int) cell { return r.cells[i] })
		for _, c := range r.below {
			for _, l := range wrap(c.text, width-len(indent)) {
				fmt.Fprintln(b, indent+c.colour.paint(l, colours))
			}
		}
	}
}

// fit returns the columns that fit into the width.
func (t *table) fit(widths []int, width int) []int {
	var shown []int
	for i := range t.columns {
		shown = append(shown, i)
	}
	for width > 0 {
		total, worst := -len(gap), 0
		for _, i := range shown {
			total += widths[i] + len(gap)
			worst = max(worst, t.columns[i].spare)
		}
		if total <= width || worst == 0 {
			break
		}
		shown = slices.DeleteFunc(shown, func(i int) bool { return t.columns[i].spare == worst })
	}
	return shown
}

// wrap breaks text between words into lines of at most width bytes; a width that is
// not worth it is none.
func wrap(s string, width int) []string {
	if width < 20 {
		return []string{s}
	}
	var lines []string
	for len(s) > width {
		cut := strings.LastIndexByte(s[:width+1], ' ')
		if cut <= 0 {
			break
		}
		lines, s = append(lines, s[:cut]), s[cut+1:]
	}
	return append(lines, s)
}
