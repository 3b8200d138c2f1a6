package status

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"time"
)

// A View says how tables are written for people.
type View struct {
	Now     time.Time
	Width   int  // of the terminal; 0 is a file or a pipe, where lines have any length
	Colours bool // of the terminal

	Filter Filter
	// Before is an earlier status, to compute rates from; nil for totals only.
	Before *Status
	// Elapsed is the time between Before and the status that is shown.
	Elapsed time.Duration
}

// Calls writes the calls that are live, sorted, and what is wrong with them.
func (v View) Calls(w io.Writer, s Status) error {
	s.Sort()
	b := bufio.NewWriter(w)
	t := table{columns: []column{
		right("CALL", 0), left("CLIENT", 0), right("CALL ID", 4), left("PUBLIC", 5), right("CALL ID", 5),
		left("SERVER", 0), right("CALL ID", 4), left("STATE", 0), right("AGE", 1),
	}}
	before := map[uint64]Call{}
	if v.Before == nil {
		t.columns = append(t.columns, right("PKTS OUT", 3), right("BYTES OUT", 0), right("PKTS IN", 3), right("BYTES IN", 0))
	} else {
		t.columns = append(t.columns, right("PKT/S OUT", 2), right("BIT/S OUT", 0), right("BYTES OUT", 3),
			right("PKT/S IN", 2), right("BIT/S IN", 0), right("BYTES IN", 3))
		for _, c := range v.Before.Calls {
			before[c.ID] = c
		}
	}
	paths := slices.ContainsFunc(s.Calls, func(c Call) bool { return c.FastPath != nil })
	if paths {
		t.columns = append(t.columns, left("PATH", 1))
	}
	for _, c := range s.Calls {
		if !v.Filter.Call(c) {
			continue
		}
		r := row{cells: []cell{
			text(fmt.Sprint(c.ID)), text(address(c.Client.Address)), text(callID(c.Client.CallID)),
			text(address(c.Client.TranslatedAddress)), text(callID(c.Client.TranslatedCallID)),
			text(address(c.Server.Address)), text(callID(c.Server.CallID)), state(c), text(age(v.Now.Sub(c.Since))),
		}}
		if v.Before == nil {
			r.cells = append(r.cells, text(packets(c.PacketsFromClient)), text(bytesOf(c.BytesFromClient)),
				text(packets(c.PacketsFromServer)), text(bytesOf(c.BytesFromServer)))
		} else {
			old, known := before[c.ID]
			rate := func(old, now *uint64, factor uint64) cell {
				if !known {
					return text("-")
				}
				return text(packets(v.rate(old, now, factor)))
			}
			r.cells = append(r.cells,
				rate(old.PacketsFromClient, c.PacketsFromClient, 1), rate(old.BytesFromClient, c.BytesFromClient, 8), text(bytesOf(c.BytesFromClient)),
				rate(old.PacketsFromServer, c.PacketsFromServer, 1), rate(old.BytesFromServer, c.BytesFromServer, 8), text(bytesOf(c.BytesFromServer)))
		}
		if paths {
			r.cells = append(r.cells, text(c.FastPath.word()))
			if why := c.FastPath.why(c.State); why != "" {
				r.below = append(r.below, text(why))
			}
		}
		if c.Warning != "" {
			r.below = append(r.below, cell{c.Warning, yellow})
		}
		t.rows = append(t.rows, r)
	}
	if len(t.rows) > 0 {
		t.write(b, v.Width, v.Colours)
		fmt.Fprintln(b)
	}
	if n := len(s.Calls); v.Filter.empty() {
		fmt.Fprintf(b, "%s on %s\n", count(n, "call"), count(len(s.Connections), "control connection"))
	} else {
		fmt.Fprintf(b, "%d of %s\n", len(t.rows), count(n, "call"))
	}
	if s.FastPath != "" && s.FastPath != "on" {
		for _, l := range wrap(s.FastPath, v.Width) {
			fmt.Fprintln(b, yellow.paint(l, v.Colours))
		}
	}
	for _, c := range s.Connections {
		if c.Unparsed != "" && v.Filter.Connection(c) {
			line := fmt.Sprintf("passed on unchanged: %v to %v: %s", c.Client.Address, c.Server.Address, c.Unparsed)
			for _, l := range wrap(line, v.Width) {
				fmt.Fprintln(b, yellow.paint(l, v.Colours))
			}
		}
	}
	return b.Flush()
}

func state(c Call) cell {
	switch {
	case c.Warning != "":
		return cell{c.State, yellow}
	case c.State == "established":
		return cell{c.State, green}
	}
	return text(c.State)
}

// rate returns how much of a counter came in a second. The kernel's counters may
// have begun anew.
func (v View) rate(old, now *uint64, factor uint64) *uint64 {
	if old == nil || now == nil || *now < *old || v.Elapsed <= 0 {
		return nil
	}
	return Known(uint64(float64(*now-*old) * float64(factor) / v.Elapsed.Seconds()))
}

// Ended writes the calls that ended or failed last, each with the reason.
func (v View) Ended(w io.Writer, s Status) error {
	s.Sort()
	b := bufio.NewWriter(w)
	t := table{columns: []column{
		right("CALL", 0), left("CLIENT", 0), left("PUBLIC", 3), left("SERVER", 0), left("ENDED", 0), right("UP FOR", 0),
		right("PKTS OUT", 1), right("BYTES OUT", 2), right("PKTS IN", 1), right("BYTES IN", 2),
	}}
	for _, c := range s.Ended {
		if !v.Filter.Call(c) {
			continue
		}
		up, tint := "-", red
		if !c.Established.IsZero() {
			up, tint = age(c.Ended.Sub(c.Established)), plain
		}
		r := row{cells: []cell{
			text(fmt.Sprint(c.ID)), text(address(c.Client.Address)), text(address(c.Client.TranslatedAddress)),
			text(address(c.Server.Address)), text(age(v.Now.Sub(c.Ended)) + " ago"), text(up),
			text(packets(c.PacketsFromClient)), text(bytesOf(c.BytesFromClient)),
			text(packets(c.PacketsFromServer)), text(bytesOf(c.BytesFromServer)),
		}, below: []cell{{c.Reason, tint}}}
		if c.Diagnosis != "" {
			r.below = append(r.below, cell{c.Diagnosis, yellow})
		}
		t.rows = append(t.rows, r)
	}
	if len(t.rows) > 0 {
		t.write(b, v.Width, v.Colours)
	} else {
		fmt.Fprintln(b, "no call has ended")
	}
	return b.Flush()
}

// Connections writes the control connections.
func (v View) Connections(w io.Writer, s Status) error {
	s.Sort()
	b := bufio.NewWriter(w)
	t := table{columns: []column{
		left("CLIENT", 0), left("PUBLIC", 2), left("SERVER", 0), left("STATE", 0), right("AGE", 1), right("CALLS", 0),
	}}
	for _, c := range s.Connections {
		if !v.Filter.Connection(c) {
			continue
		}
		r := row{cells: []cell{
			text(c.Client.Address.String()), text(c.Client.TranslatedAddress.String()), text(c.Server.Address.String()),
			text(c.State), text(age(v.Now.Sub(c.Since))), text(fmt.Sprint(c.Calls)),
		}}
		if c.Unparsed != "" {
			r.below = append(r.below, cell{"passed on unchanged: " + c.Unparsed, yellow})
		}
		if c.Reason != "" {
			r.below = append(r.below, cell{c.Reason, yellow})
		}
		t.rows = append(t.rows, r)
	}
	if len(t.rows) > 0 {
		t.write(b, v.Width, v.Colours)
	} else {
		fmt.Fprintln(b, "no control connection")
	}
	return b.Flush()
}
