package replay

import (
	"bufio"
	"fmt"
	"io"
	"time"
)

// clockLayout is how an event's time reads: UTC, in microseconds.
const clockLayout = "15:04:05.000000"

// Text writes what is reported for people.
type Text struct {
	w   *bufio.Writer
	day string
}

// NewText returns a Text that writes to w. Its errors come from Flush.
func NewText(w io.Writer) *Text { return &Text{w: bufio.NewWriter(w)} }

// Event writes an event as a line.
func (t *Text) Event(e *Event) {
	if day := e.Time.Format("2006-01-02 UTC"); day != t.day {
		t.day = day
		fmt.Fprintln(t.w, day)
	}
	number := ""
	if e.Connection > 0 {
		number = fmt.Sprintf("#%d", e.Connection)
	}
	from := ""
	if e.Kind == KindMessage {
		from = e.From
	}
	fmt.Fprintf(t.w, "%s  %-4s %-6s  %s\n", e.Time.Format(clockLayout), number, from, e.Text)
}

// Summary writes the end.
func (t *Text) Summary(s Summary) error {
	c := s.Counters
	fmt.Fprintf(t.w, "\n%s in %s: %d of control connections, %d GRE of calls\n",
		plural(c.Packets, "packet"), duration(s.Last.Sub(s.First)), c.Control, c.GRE)
	for _, o := range []struct {
		n    int
		what string
	}{
		{c.StrayGRE, "GRE packets of no call that is known"},
		{c.OtherGRE, "packets of other GRE, not PPTP's"},
		{c.Malformed, "packets that can't be read"},
		{c.Cut, "control segments that the capture cut"},
		{c.Fragments, "IP fragments"},
		{c.Twice, "packets that are there twice"},
		{c.Backwards, "packets whose time lies before the one before; they count as of that time"},
		{c.UnknownLinks, "packets of link types that are not known"},
		{c.Changed, "control segments that the router changes"},
		{c.Dropped, "control segments that the router drops, for their sender to send again"},
	} {
		if o.n > 0 {
			fmt.Fprintf(t.w, "  %d %s\n", o.n, o.what)
		}
	}
	if s.Incomplete != "" {
		fmt.Fprintf(t.w, "  not read to the end: %s\n", s.Incomplete)
	}
	for _, o := range s.Connections {
		t.connection(o)
		for _, call := range s.Calls {
			if call.Connection == o.Number {
				t.call(call)
			}
		}
	}
	for i, o := range s.Strays {
		if i == 0 {
			fmt.Fprintln(t.w, "\nGRE of no call that is known: its control connection is not in the capture, or its Call ID is wrong")
		}
		fmt.Fprintf(t.w, "    %v > %v Call ID %d: %s\n", o.Source, o.Destination, o.CallID, plural(int(o.GRE.Packets), "packet"))
	}
	if len(s.Connections) == 0 && len(s.Strays) == 0 {
		fmt.Fprintln(t.w, "\nNo PPTP in this capture. Another port than 1723 is named with --port.")
	}
	return t.w.Flush()
}

func (t *Text) connection(o Connection) {
	fmt.Fprintf(t.w, "\n#%d  %v > %v", o.Number, o.Client, o.Server)
	if o.PublicClient != o.Client {
		fmt.Fprintf(t.w, ", seen as %v", o.PublicClient)
	}
	fmt.Fprintf(t.w, "\n    %s\n", o.State)
	if o.Midstream {
		fmt.Fprintln(t.w, "    its beginning is not in the capture")
	}
	if o.Unparsed != "" {
		fmt.Fprintf(t.w, "    not understood: %s\n", o.Unparsed)
	}
	if o.Same > 0 {
		fmt.Fprintf(t.w, "    the same as #%d, on the other side of a NAT\n", o.Same)
	}
}

func (t *Text) call(c Call) {
	fmt.Fprintf(t.w, "    call %d, %s: client %s, server %s\n", c.Number, c.Direction, c.Client.callID(), c.Server.callID())
	fmt.Fprintf(t.w, "        %s", c.State)
	if !c.Up.IsZero() {
		fmt.Fprintf(t.w, ", up after %s", duration(c.Up.Sub(c.Since)))
	}
	if !c.Ended.IsZero() {
		fmt.Fprintf(t.w, ", ended after %s: %s", duration(c.Ended.Sub(c.Since)), c.Reason)
	}
	fmt.Fprintf(t.w, "\n        GRE: %s from the client, %s from the server\n", c.Client.GRE.text(), c.Server.GRE.text())
	fmt.Fprintf(t.w, "        %s\n", c.Diagnosis)
}

func (e Endpoint) callID() string {
	switch {
	case e.CallID == nil:
		return "Call ID unknown"
	case *e.CallID == *e.TranslatedCallID:
		return fmt.Sprintf("Call ID %d", *e.CallID)
	}
	return fmt.Sprintf("Call ID %d (told %d)", *e.CallID, *e.TranslatedCallID)
}

func (s Seen) text() string {
	if s.Packets == 0 {
		return "none"
	}
	return fmt.Sprintf("%s (%d bytes)", plural(int(s.Packets), "packet"), s.Bytes)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// duration writes a span of time with milliseconds, where it has some.
func duration(d time.Duration) string { return d.Round(time.Millisecond).String() }
