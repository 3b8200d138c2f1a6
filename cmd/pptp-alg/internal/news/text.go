package news

import (
	"fmt"
	"strings"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/status"
)

// String writes the event as a line for people, in local time.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-19s  ", e.Time.Local().Format("2006-01-02 15:04:05.000"), strings.ReplaceAll(string(e.Kind), "_", " "))
	var words []string
	switch {
	case e.Call != nil:
		words = append(words, call(e.Call))
		if e.Kind == CallEnded || e.Kind == CallRefused {
			words = append(words, ending(e.Call)...)
		} else if e.Call.Warning != "" {
			words = append(words, e.Call.Warning)
		}
	case e.Connection != nil:
		c := e.Connection
		words = append(words, fmt.Sprintf("%v to %v", c.Client.Address, c.Server.Address))
		if c.Unparsed != "" {
			words = append(words, "passed on unchanged: "+c.Unparsed)
		}
		if c.Reason != "" {
			words = append(words, c.Reason)
		}
	}
	if e.Message != "" && e.Kind != ConnectionRefused { // its reason says it
		words = append(words, e.Message)
	}
	b.WriteString(strings.Join(words, "; "))
	if e.Lost > 0 {
		fmt.Fprintf(&b, " (%d events before this one were lost: they were read too slowly)", e.Lost)
	}
	return strings.TrimRight(b.String(), " ")
}

// call names a call and its ends.
func call(c *status.Call) string {
	return fmt.Sprintf("call %d %s to %s", c.ID, end(c.Client), end(c.Server))
}

func end(e status.Endpoint) string {
	switch {
	case e.CallID == nil:
		return e.Address.String()
	case e.TranslatedCallID != nil && (*e.TranslatedCallID != *e.CallID || e.TranslatedAddress != e.Address):
		return fmt.Sprintf("%v:%d (seen as %v:%d)", e.Address, *e.CallID, e.TranslatedAddress, *e.TranslatedCallID)
	}
	return fmt.Sprintf("%v:%d", e.Address, *e.CallID)
}

// ending says how a call ended, how long it was up, and what it carried.
func ending(c *status.Call) []string {
	words := []string{c.Reason}
	if c.Diagnosis != "" {
		words = append(words, c.Diagnosis)
	}
	if c.Established.IsZero() {
		return words
	}
	words = append(words, "up for "+c.Ended.Sub(c.Established).Round(time.Second).String())
	if c.PacketsFromClient != nil && c.PacketsFromServer != nil && c.BytesFromClient != nil && c.BytesFromServer != nil {
		words = append(words, fmt.Sprintf("out %d packets, %d bytes", *c.PacketsFromClient, *c.BytesFromClient),
			fmt.Sprintf("in %d packets, %d bytes", *c.PacketsFromServer, *c.BytesFromServer))
	}
	return words
}
