package nat

import "net/netip"

// Side names one end of a control connection. Client is the end that opened
// the TCP connection, whether it is PNS or PAC.
type Side uint8

// The two ends of a control connection.
const (
	Client Side = iota
	Server
)

// Other returns the opposite side.
func (s Side) Other() Side { return s ^ 1 }

func (s Side) String() string {
	if s == Client {
		return "client"
	}
	return "server"
}

// Host is the address of one end in its two forms.
type Host struct {
	Real netip.Addr // where the host is, as its own network sees it
	Told netip.Addr // what the other side sees
}

// Zone is the conntrack zone that a control connection lives in, if any. The
// zero value is the default zone.
type Zone struct {
	ID        uint16
	Direction ZoneDirection
}

// ZoneDirection says to which packets of a control connection a zone applies.
// The values are those of package conntrack for a connection that the client
// opened.
type ZoneDirection uint8

// Directions of a zone.
const (
	ZoneBoth       ZoneDirection = iota
	ZoneFromClient               // only what the client sends
	ZoneFromServer               // only what the server sends
)

// from returns the zone of packets that a side sends.
func (z Zone) from(s Side) uint16 {
	if z.Direction == ZoneFromClient && s == Server || z.Direction == ZoneFromServer && s == Client {
		return 0
	}
	return z.ID
}

// Path is the way between the two ends of a control connection, taken from
// the connection's own conntrack entry. It is valid for all its calls.
type Path struct {
	Hosts [2]Host // indexed by Side
	Zone  Zone
	Mark  uint32 // conntrack mark of the control connection, for policy routing
}

// Tuple is what tells one direction of one call from all others in a packet:
// the addresses and the Call ID in the GRE key.
type Tuple struct {
	Src, Dst netip.Addr
	CallID   uint16
}

// arrives returns the tuple of GRE towards side x as it comes to the router.
func (p *Path) arrives(x Side, told uint16) Tuple {
	return Tuple{Src: p.Hosts[x.Other()].Real, Dst: p.Hosts[x].Told, CallID: told}
}

// leaves returns the tuple of GRE towards side x as it goes on from the router.
func (p *Path) leaves(x Side, real uint16) Tuple {
	return Tuple{Src: p.Hosts[x.Other()].Told, Dst: p.Hosts[x].Real, CallID: real}
}

// Valid reports whether all four addresses are IPv4. PPTP's enhanced GRE
// exists for IPv4 only (RFC 2637, section 4.1).
func (p *Path) Valid() bool {
	for _, h := range p.Hosts {
		if !h.Real.Is4() || !h.Told.Is4() {
			return false
		}
	}
	return true
}
