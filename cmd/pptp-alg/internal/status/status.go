package status

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
	"time"
)

// Status is the whole document.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"` // the daemon, not the calls: they outlive it
	Anchor  string    `json:"anchor"`  // the conntrack helper that control connections get; "none"
	// FastPath is "on", or why there is none though it is wanted; absent where it is not.
	FastPath    string            `json:"fast_path,omitempty"`
	Calls       []Call            `json:"calls"`
	Connections []Connection      `json:"connections"`
	Ended       []Call            `json:"ended"` // the last ended calls, latest first
	Counters    map[string]uint64 `json:"counters"`
}

// Call is one call. The client is the side that opened the TCP connection,
// whichever side announced the call.
type Call struct {
	ID        uint64    `json:"id"`
	Direction string    `json:"direction"` // "outgoing" or "incoming", as RFC 2637 has it
	State     string    `json:"state"`
	Initiator string    `json:"initiator"` // "client" or "server": who announced it
	Since     time.Time `json:"since"`     // when it was announced
	Client    Endpoint  `json:"client"`
	Server    Endpoint  `json:"server"`

	// GRE from each side, as the kernel counts it; null where it does not
	// (net.netfilter.nf_conntrack_acct is 0).
	PacketsFromClient *uint64 `json:"packets_from_client"`
	BytesFromClient   *uint64 `json:"bytes_from_client"`
	PacketsFromServer *uint64 `json:"packets_from_server"`
	BytesFromServer   *uint64 `json:"bytes_from_server"`

	// Established is when both sides had agreed; absent if they never did.
	Established time.Time `json:"established,omitzero"`
	// Warning says what is wrong with a call that is up, in words.
	Warning string `json:"warning,omitempty"`

	// FastPath says which packets of the call need not take the ordinary path; absent where the fast path is off.
	FastPath *FastPath `json:"fast_path,omitempty"`

	// Of an ended call. Reason is what the protocol said or did, Diagnosis what the
	// GRE that was seen, or was not, says about it.
	Ended     time.Time `json:"ended,omitzero"`
	Reason    string    `json:"reason,omitempty"`
	Diagnosis string    `json:"diagnosis,omitempty"`
	Refused   bool      `json:"refused,omitempty"` // by this router
}

// FastPath says in which directions a call's packets are carried at the devices, and why in the others they are not.
type FastPath struct {
	ToServer bool   `json:"to_server"`
	ToClient bool   `json:"to_client"`
	Reason   string `json:"reason,omitempty"`
}

// Endpoint is one side of a call: what it is and uses itself, and what the other
// side sees in its place.
type Endpoint struct {
	Address netip.Addr `json:"address"`
	// CallID is null until the side has said it: a half-open call has no
	// server Call ID. 0 is a Call ID like others.
	CallID            *uint16    `json:"call_id"`
	TranslatedAddress netip.Addr `json:"translated_address"`
	TranslatedCallID  *uint16    `json:"translated_call_id"`
}

// Connection is one control connection.
type Connection struct {
	Client Peer      `json:"client"`
	Server Peer      `json:"server"`
	State  string    `json:"state"`
	Since  time.Time `json:"since"`
	Calls  int       `json:"calls"` // live ones

	// Unparsed says why the connection's bytes pass unread; it is empty, and
	// absent in JSON, while they are understood.
	Unparsed string `json:"unparsed,omitempty"`

	// Reason says why it was refused, is being stopped or was closed.
	Reason string `json:"reason,omitempty"`
}

// Peer is one end of a control connection, and what the other end sees of it.
type Peer struct {
	Address           netip.AddrPort `json:"address"`
	TranslatedAddress netip.AddrPort `json:"translated_address"`
}

// Known makes a value that is known, where the document may have null.
func Known[T uint16 | uint64](v T) *T { return &v }

// MarshalJSON writes empty lists as [] and {}, so that scripts need no case for
// null.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status
	p := plain(s)
	if p.Calls == nil {
		p.Calls = []Call{}
	}
	if p.Connections == nil {
		p.Connections = []Connection{}
	}
	if p.Ended == nil {
		p.Ended = []Call{}
	}
	if p.Counters == nil {
		p.Counters = map[string]uint64{}
	}
	return json.Marshal(p)
}

// Sort puts calls and connections in the order in which people look for them: by
// client, then by age. Ended calls are sorted by their end, latest first.
func (s *Status) Sort() {
	slices.SortFunc(s.Calls, func(a, b Call) int {
		return cmp.Or(a.Client.Address.Compare(b.Client.Address), a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(s.Connections, func(a, b Connection) int {
		return cmp.Or(a.Client.Address.Compare(b.Client.Address), a.Since.Compare(b.Since),
			a.Server.Address.Compare(b.Server.Address))
	})
	slices.SortFunc(s.Ended, func(a, b Call) int {
		return cmp.Or(b.Ended.Compare(a.Ended), cmp.Compare(b.ID, a.ID))
	})
}
