package daemon

import (
	"net/netip"
	"testing"

	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// A control connection has four addresses. Whatever the kernel takes for its
// original direction, the server is the end with the control port.
func TestOrient(t *testing.T) {
	ports := []uint16{1723, 11723}
	tuple := func(src, dst string) conntrack.Tuple {
		return conntrack.Tuple{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
	}
	for _, c := range []struct {
		name            string
		original, reply conntrack.Tuple
		zone            conntrack.Zone
		want            [4]string // A, A', B, B'
		wantZone        nat.Zone
	}{
		{"masquerade", tuple("10.0.0.1:4000", "203.0.113.2:1723"), tuple("203.0.113.2:1723", "203.0.113.1:50000"),
			conntrack.Zone{}, [4]string{"10.0.0.1", "203.0.113.1", "203.0.113.2", "203.0.113.2"}, nat.Zone{}},
		{"port forwarding to another port", tuple("198.51.100.9:4000", "203.0.113.1:1723"), tuple("10.0.0.8:999", "198.51.100.9:4000"),
			conntrack.Zone{ID: 3, Direction: conntrack.OriginalOnly},
			[4]string{"198.51.100.9", "198.51.100.9", "10.0.0.8", "203.0.113.1"}, nat.Zone{ID: 3, Direction: nat.ZoneFromClient}},
		{"hairpin", tuple("10.0.0.1:4000", "203.0.113.1:11723"), tuple("10.0.0.8:1723", "10.0.0.254:4000"),
			conntrack.Zone{}, [4]string{"10.0.0.1", "10.0.0.254", "10.0.0.8", "203.0.113.1"}, nat.Zone{}},
		{"no NAT", tuple("10.0.0.1:4000", "10.1.0.1:1723"), tuple("10.1.0.1:1723", "10.0.0.1:4000"),
			conntrack.Zone{}, [4]string{"10.0.0.1", "10.0.0.1", "10.1.0.1", "10.1.0.1"}, nat.Zone{}},
		{"picked up from the server", tuple("203.0.113.2:1723", "203.0.113.1:50000"), tuple("10.0.0.1:4000", "203.0.113.2:1723"),
			conntrack.Zone{ID: 3, Direction: conntrack.OriginalOnly},
			[4]string{"10.0.0.1", "203.0.113.1", "203.0.113.2", "203.0.113.2"}, nat.Zone{ID: 3, Direction: nat.ZoneFromServer}},
		{"control port at both ends", tuple("10.0.0.1:1723", "203.0.113.2:1723"), tuple("203.0.113.2:1723", "203.0.113.1:1723"),
			conntrack.Zone{}, [4]string{"10.0.0.1", "203.0.113.1", "203.0.113.2", "203.0.113.2"}, nat.Zone{}},
	} {
		client, server, path := orient(conntrack.Connection{Original: c.original, Reply: c.reply, Zone: c.zone, Mark: 7}, ports)
		h := path.Hosts
		got := [4]string{h[nat.Client].Real.String(), h[nat.Client].Told.String(), h[nat.Server].Real.String(), h[nat.Server].Told.String()}
		if got != c.want {
			t.Errorf("%s: A, A', B, B' are %v, want %v", c.name, got, c.want)
		}
		if path.Zone != c.wantZone || path.Mark != 7 {
			t.Errorf("%s: zone %+v and mark %d, want %+v and 7", c.name, path.Zone, path.Mark, c.wantZone)
		}
		if client.real.Addr() != h[nat.Client].Real || server.told.Addr() != h[nat.Server].Told {
			t.Errorf("%s: ends %v and %v do not fit the path %v", c.name, client, server, got)
		}
	}
}

// The entry of a mapping follows the one rule, and takes the zone of the
// packets that it is for.
func TestEntryOf(t *testing.T) {
	ip := netip.MustParseAddr
	p := nat.Path{
		Hosts: [2]nat.Host{
			nat.Client: {Real: ip("10.0.0.1"), Told: ip("203.0.113.1")},
			nat.Server: {Real: ip("192.168.0.8"), Told: ip("203.0.113.9")},
		},
		Zone: nat.Zone{ID: 5, Direction: nat.ZoneFromClient}, Mark: 3,
	}
	toClient := entryOf(&nat.Mapping{Path: &p, Side: nat.Client, Real: 7, Told: 70})
	toServer := entryOf(&nat.Mapping{Path: &p, Side: nat.Server, Real: 8, Told: 80})
	want := func(got conntrack.Entry, arrives, leaves conntrack.GRE, d conntrack.Direction) {
		t.Helper()
		if got.Arrives != arrives || got.Leaves != leaves || got.Zone != (conntrack.Zone{ID: 5, Direction: d}) || got.Mark != 3 {
			t.Errorf("%v (mark %d), want %v to %v", got, got.Mark, arrives, leaves)
		}
	}
	want(toClient, conntrack.GRE{Src: ip("192.168.0.8"), Dst: ip("203.0.113.1"), CallID: 70},
		conntrack.GRE{Src: ip("203.0.113.9"), Dst: ip("10.0.0.1"), CallID: 7}, conntrack.ReplyOnly)
	want(toServer, conntrack.GRE{Src: ip("10.0.0.1"), Dst: ip("203.0.113.9"), CallID: 80},
		conntrack.GRE{Src: ip("203.0.113.1"), Dst: ip("192.168.0.8"), CallID: 8}, conntrack.OriginalOnly)

	p.Zone = nat.Zone{}
	twin := entryOf(&nat.Mapping{Path: &p, Side: nat.Client, Real: 7, Told: 71, Twin: 1})
	if twin.Zone != (conntrack.Zone{ID: 65534, Direction: conntrack.ReplyOnly}) {
		t.Errorf("a twin's entry is in %v, want a reply zone of its own", twin.Zone)
	}
}
