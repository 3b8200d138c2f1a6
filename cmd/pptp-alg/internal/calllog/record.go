// Package calllog writes a line for each call that is made and for each that
// ends: what those who run a NAT may have to be able to say, who was behind an
// address at a time.
//
// Whoever gives it a record waits for the sink that the record goes to, so it is
// given them by a goroutine of its own, from a queue that loses what does not
// fit. A sink that is down loses records too; they are counted, and the next line
// that arrives says how many.
package calllog

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Record is a line of the log.
type Record struct {
	Time  time.Time
	Event string // "made", "ended" or "failed", or "lost"
	ID    uint64 // the daemon's number of the call

	Client, Public netip.Addr // inside, and what the server sees
	// Call IDs: what each side uses itself, and what the other one was told.
	ClientCallID, PublicCallID     *uint16
	Server                         netip.Addr // not valid: left out
	ServerCallID, ServerToldCallID *uint16

	// Of a call that is over. Counters are nil where the kernel does not count.
	Duration                           time.Duration
	PacketsFromClient, BytesFromClient *uint64
	PacketsFromServer, BytesFromServer *uint64
	Reason                             string

	Lost uint64 // of "lost": so many records may be missing
}

// field is a name and a value. Names are an interface: scripts rely on them.
type field struct{ name, value string }

// fields are what a record says, in order.
func (r *Record) fields() []field {
	if r.Event == "lost" {
		return []field{{"records", strconv.FormatUint(r.Lost, 10)}}
	}
	var f []field
	add := func(name, value string) { f = append(f, field{name, value}) }
	id := func(name string, v *uint16) {
		if v != nil {
			add(name, strconv.Itoa(int(*v)))
		}
	}
	number := func(name string, v *uint64) {
		if v != nil {
			add(name, strconv.FormatUint(*v, 10))
		}
	}
	add("call", strconv.FormatUint(r.ID, 10))
	add("client", r.Client.String())
	id("client_call_id", r.ClientCallID)
	add("public", r.Public.String())
	id("public_call_id", r.PublicCallID)
	if r.Server.IsValid() {
		add("server", r.Server.String())
	}
	id("server_call_id", r.ServerCallID)
	id("server_told_call_id", r.ServerToldCallID)
	if r.Event != "made" {
		add("duration", strconv.FormatFloat(r.Duration.Seconds(), 'f', 3, 64))
		number("packets_from_client", r.PacketsFromClient)
		number("bytes_from_client", r.BytesFromClient)
		number("packets_from_server", r.PacketsFromServer)
		number("bytes_from_server", r.BytesFromServer)
		add("reason", clean(r.Reason))
	}
	return f
}

// message is the record in one line, without its time.
func (r *Record) message() string {
	var b strings.Builder
	b.WriteString("call " + r.Event)
	if r.Event == "lost" {
		b.Reset()
		b.WriteString("records lost")
	}
	for _, f := range r.fields() {
		if strings.ContainsAny(f.value, ` "=\`) || f.value == "" {
			fmt.Fprintf(&b, " %s=%q", f.name, f.value)
		} else {
			fmt.Fprintf(&b, " %s=%s", f.name, f.value)
		}
	}
	return b.String()
}

// stamp is the record's time: UTC with milliseconds, as in RFC 3339.
func (r *Record) stamp() string { return r.Time.UTC().Format("2006-01-02T15:04:05.000Z") }

// clean keeps a text within a line.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s)
}
