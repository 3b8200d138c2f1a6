package news

import (
	"time"

	"pptp-alg/cmd/pptp-alg/internal/status"
)

// A Kind says what happened. The words are part of the interface that scripts rely on.
type Kind string

// Kinds of events. Those of connections carry Event.Connection, those of calls
// Event.Call.
const (
	ConnectionOpened   Kind = "connection_opened"
	ConnectionUnparsed Kind = "connection_unparsed" // its bytes pass unread from here on
	ConnectionClosed   Kind = "connection_closed"
	ConnectionRefused  Kind = "connection_refused" // by this router: a limit, or a twin

	CallRequested   Kind = "call_requested"
	CallEstablished Kind = "call_established"
	CallWarning     Kind = "call_warning"   // it is up, and something is wrong: Call.Warning
	CallRecovered   Kind = "call_recovered" // what was wrong no longer is
	CallEnded       Kind = "call_ended"     // with the final counters, Reason and Diagnosis
	CallRefused     Kind = "call_refused"   // the same, by this router

	Ready         Kind = "ready" // the daemon translates from now on
	Reloaded      Kind = "configuration_reloaded"
	Stopping      Kind = "stopping" // the daemon ends; calls that are up stay up
	TableRestored Kind = "table_restored"
	EntryRestored Kind = "entry_restored" // others removed an entry of a call
	NewsLost      Kind = "kernel_news_lost"
)

// Concerns says which of its fields an event of this kind has.
func (k Kind) Concerns() (call, connection bool) {
	switch k {
	case CallRequested, CallEstablished, CallWarning, CallRecovered, CallEnded, CallRefused, EntryRestored:
		return true, false
	case ConnectionOpened, ConnectionUnparsed, ConnectionClosed, ConnectionRefused:
		return false, true
	}
	return false, false
}

// An Event is something that happened. It shares nothing with the daemon's state;
// its subscribers share it with each other, and only read.
type Event struct {
	Time       time.Time          `json:"time"`
	Kind       Kind               `json:"event"`
	Call       *status.Call       `json:"call,omitempty"`
	Connection *status.Connection `json:"connection,omitempty"`
	Message    string             `json:"message,omitempty"` // in words, where there is more to say

	// Lost is how many events the subscriber missed just before this one, because it
	// took them too slowly.
	Lost uint64 `json:"lost,omitempty"`
}
