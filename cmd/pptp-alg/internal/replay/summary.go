package replay

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"pptp-alg/nat"
)

// Summary is what a capture has, in the end.
type Summary struct {
	Kind        string       `json:"kind"` // "summary"
	First       time.Time    `json:"first,omitzero"`
	Last        time.Time    `json:"last,omitzero"`
	Counters    Counters     `json:"counters"`
	Connections []Connection `json:"connections"`
	Calls       []Call       `json:"calls"`
	Strays      []Stray      `json:"stray_gre"`
	// Incomplete says why the file was not read to its end.
	Incomplete string `json:"incomplete,omitempty"`
}

// Connection is a control connection.
type Connection struct {
	Number       int            `json:"number"`
	Client       netip.AddrPort `json:"client"`
	PublicClient netip.AddrPort `json:"public_client"` // what the server sees
	Server       netip.AddrPort `json:"server"`
	First        time.Time      `json:"first"`
	Last         time.Time      `json:"last"`
	State        string         `json:"state"`
	Midstream    bool           `json:"midstream,omitempty"` // its beginning is not in the capture
	Unparsed     string         `json:"unparsed,omitempty"`
	Same         int            `json:"same_as,omitempty"` // on the other side of a NAT
	Cut          int            `json:"cut_segments,omitempty"`
}

// Call is a call. The Call IDs are each side's own; Told is what the other side
// is told by the router.
type Call struct {
	Number     uint64    `json:"number"`
	Connection int       `json:"connection"`
	Direction  string    `json:"direction"`
	State      string    `json:"state"`
	Since      time.Time `json:"since"`
	Up         time.Time `json:"established,omitzero"`
	Ended      time.Time `json:"ended,omitzero"`
	Reason     string    `json:"reason,omitempty"`
	Client     Endpoint  `json:"client"`
	Server     Endpoint  `json:"server"`
	Diagnosis  string    `json:"diagnosis"`
}

// Endpoint is one end of a call.
type Endpoint struct {
	Address          netip.Addr `json:"address"`
	TranslatedAddr   netip.Addr `json:"translated_address"`
	CallID           *uint16    `json:"call_id"`
	TranslatedCallID *uint16    `json:"translated_call_id"`
	GRE              Seen       `json:"gre"` // what it sent
}

// Stray is enhanced GRE of no call that is known.
type Stray struct {
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	CallID      uint16     `json:"call_id"`
	GRE         Seen       `json:"gre"`
}

// summary sums up, before anything is closed.
func (r *Replay) summary() Summary {
	s := Summary{Kind: "summary", First: r.first, Last: r.now, Counters: r.counts,
		Connections: []Connection{}, Calls: []Call{}, Strays: []Stray{}}
	for _, c := range r.all {
		o := Connection{
			Number: c.n, Client: c.flow.Client, PublicClient: c.told, Server: c.flow.Server,
			First: c.first, Last: c.last, State: c.state(), Cut: c.cut,
		}
		if c.alg != nil {
			o.Midstream, o.Unparsed = c.alg.Midstream, c.alg.Unparsed
		}
		if c.same != nil {
			o.Same = c.same.n
		}
		s.Connections = append(s.Connections, o)
	}
	for _, c := range r.inOrder {
		n := c.nat
		s.Calls = append(s.Calls, Call{
			Number: n.ID, Connection: c.conn.n, Direction: n.Direction.String(), State: n.State.String(),
			Since: n.Since, Up: n.Up, Ended: n.Over, Reason: n.Reason,
			Client: c.endpoint(nat.Client), Server: c.endpoint(nat.Server), Diagnosis: r.diagnosis(c),
		})
	}
	for _, t := range r.sortedStrays() {
		s.Strays = append(s.Strays, Stray{t.key.src, t.key.dst, t.key.callID, t.seen})
	}
	return s
}

func (c *call) endpoint(side nat.Side) Endpoint {
	h := c.nat.Connection.Path.Hosts[side]
	e := Endpoint{Address: h.Real, TranslatedAddr: h.Told, GRE: c.sent[side]}
	if m := c.nat.End(side); m != nil {
		real, told := m.Real, m.Told
		e.CallID, e.TranslatedCallID = &real, &told
	}
	return e
}

// sortedStrays returns stray GRE in the order in which it came.
func (r *Replay) sortedStrays() []*stray {
	all := make([]*stray, 0, len(r.strays))
	for _, s := range r.strays {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *stray) int {
		return cmp.Or(a.seen.First.Compare(b.seen.First), a.key.src.Compare(b.key.src),
			a.key.dst.Compare(b.key.dst), cmp.Compare(a.key.callID, b.key.callID))
	})
	return all
}
