package daemon

import (
	"fmt"
	"net/netip"
	"slices"

	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// end is one end of a control connection, and what the other one sees of it.
type end struct{ real, told netip.AddrPort }

// orient finds out which end of a TCP connection is the client, and what the
// way between the two is. The kernel's opinion of who opened the connection
// does not count: after a flush it takes whoever speaks first for that. The
// server is the end with the control port, as it listens or as it was dialled.
func orient(c conntrack.Connection, ports []uint16) (client, server end, path nat.Path) {
	isServer := func(real, dialled netip.AddrPort) bool {
		return slices.Contains(ports, real.Port()) || slices.Contains(ports, dialled.Port())
	}
	original, reply, zone := c.Original, c.Reply, c.Zone
	if !isServer(reply.Src, original.Dst) && isServer(original.Src, reply.Dst) {
		original, reply, zone = reply, original, zone.Opposite()
	}
	path = nat.Path{
		Hosts: [2]nat.Host{
			nat.Client: {Real: original.Src.Addr(), Told: reply.Dst.Addr()},
			nat.Server: {Real: reply.Src.Addr(), Told: original.Dst.Addr()},
		},
		Zone: nat.Zone{ID: zone.ID, Direction: nat.ZoneDirection(zone.Direction)},
		Mark: c.Mark,
	}
	return end{original.Src, reply.Dst}, end{reply.Src, original.Dst}, path
}

// describe names the four addresses of a path for the log.
func describe(p nat.Path) string {
	name := func(h nat.Host) string {
		if h.Real == h.Told {
			return h.Real.String()
		}
		return fmt.Sprintf("%v (seen as %v)", h.Real, h.Told)
	}
	return name(p.Hosts[nat.Client]) + " to " + name(p.Hosts[nat.Server])
}
