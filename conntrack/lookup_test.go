package conntrack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
)

// control opens a TCP connection between two namespaces, and returns the addresses that the client's end has
// of its own, and the server's of its own: the true ones.
func control(t *testing.T, client, server *namespace, listen, dial string) (src, dst netip.AddrPort, c, s net.Conn) {
	t.Helper()
	var l net.Listener
	server.must(func() (err error) {
		l, err = net.Listen("tcp4", listen)
		return err
	})
	defer l.Close()
	client.must(func() (err error) {
		c, err = net.DialTimeout("tcp4", dial, 2*time.Second)
		return err
	})
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		s.Close()
	})
	return c.LocalAddr().(*net.TCPAddr).AddrPort(), s.LocalAddr().(*net.TCPAddr).AddrPort(), c, s
}

func TestLookup(t *testing.T) {
	for _, k := range []struct {
		name           string
		rules          []func(*nftables.Conn, *nftables.Table)
		listen, dial   string
		sameHostInside bool // the server is another inside host
		clientOutside  bool // the client is the outside host and the server the inside one
		seenAs         string
		zone           Zone
	}{
		{name: "no NAT", listen: serverAddr + ":1723", dial: serverAddr + ":1723", seenAs: clientAddr},
		{name: "source NAT", rules: []func(*nftables.Conn, *nftables.Table){sourceNAT(clientAddr, publicAddr)},
			listen: serverAddr + ":1723", dial: serverAddr + ":1723", seenAs: publicAddr},
		{name: "destination NAT", rules: []func(*nftables.Conn, *nftables.Table){destinationNAT(publicAddr, clientAddr)},
			listen: clientAddr + ":1723", dial: publicAddr + ":1723", clientOutside: true, seenAs: serverAddr},
		{name: "hairpin", rules: []func(*nftables.Conn, *nftables.Table){destinationNAT(publicAddr, secondAddr), sourceNAT(clientAddr, publicAddr)},
			listen: secondAddr + ":1723", dial: publicAddr + ":1723", sameHostInside: true, seenAs: publicAddr},
		{name: "in a zone", rules: []func(*nftables.Conn, *nftables.Table){zoneAll(9), sourceNAT(clientAddr, publicAddr)},
			listen: serverAddr + ":1723", dial: serverAddr + ":1723", seenAs: publicAddr, zone: Zone{ID: 9}},
	} {
		t.Run(k.name, func(t *testing.T) {
			l := newLab(t)
			for _, r := range k.rules {
				l.router.rules(r)
			}
			client, server := l.client, l.server
			if k.clientOutside {
				client, server = server, client
			}
			if k.sameHostInside {
				server = l.router.connect(secondAddr+"/24", "192.168.78.1/24")
			}
			src, dst, c, _ := control(t, client, server, k.listen, k.dial)
			// Another connection, so that there is something to confuse it with.
			control(t, client, server, k.listen, k.dial)

			want := Connection{
				Original: Tuple{src, addrPort(k.dial)},
				Reply:    Tuple{dst, netip.AddrPortFrom(addr(k.seenAs), src.Port())},
			}
			for _, packet := range []Tuple{{src, dst}, {dst, src}} {
				got, err := l.ct.Lookup(packet.Src, packet.Dst)
				if err != nil {
					t.Fatal(err)
				}
				if got.Original != want.Original || got.Reply != want.Reply || got.Zone != k.zone || got.State != TCPEstablished {
					t.Errorf("Lookup %v: %+v, want %+v", packet, got, want)
				}
				if got.Forward() != (Tuple{src, dst}) {
					t.Errorf("Forward: %v, want %v > %v", got.Forward(), src, dst)
				}
			}
			_ = c

			// Every other way of putting it is not a packet on the forward hook.
			for _, packet := range []Tuple{
				{netip.AddrPortFrom(src.Addr(), src.Port()+1), dst},
				{src, netip.AddrPortFrom(dst.Addr(), 1724)},
				{netip.AddrPortFrom(addr("192.168.77.99"), src.Port()), dst},
			} {
				if got, err := l.ct.Lookup(packet.Src, packet.Dst); !errors.Is(err, ErrNotFound) {
					t.Errorf("Lookup %v: %+v, %v; want ErrNotFound", packet, got, err)
				}
			}
			if k.name == "hairpin" {
				if got, err := l.ct.Lookup(want.Original.Src, want.Original.Dst); !errors.Is(err, ErrNotFound) {
					t.Errorf("Lookup of the untranslated addresses: %+v, %v; want ErrNotFound", got, err)
				}
			}
		})
	}
}

// After a flush the kernel takes who speaks first for the client.
func TestLookupPickedUpTheOtherWayRound(t *testing.T) {
	l := newLab(t)
	src, dst, c, s := control(t, l.client, l.server, serverAddr+":1723", serverAddr+":1723")
	old, err := l.ct.Lookup(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.ct.lookup(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.ct.DeleteFlow(f); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ct.Lookup(src, dst); !errors.Is(err, ErrNotFound) {
		t.Fatalf("Lookup after the delete: %v, want ErrNotFound", err)
	}
	if _, err := fmt.Fprint(s, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	got, err := l.ct.Lookup(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Connection{Original: Tuple{dst, src}, Reply: Tuple{src, dst}}); got.Original != want.Original || got.Reply != want.Reply {
		t.Errorf("Lookup: %v, %v; want the server as the one who opened it", got.Original, got.Reply)
	}
	if old.Original == got.Original {
		t.Error("the connection was not picked up the other way round")
	}
}

// Zones in one direction, and what Lookup cannot know. These entries never saw packets: Lookup only reads the
// table, and the table does not know the difference.
func TestLookupInZones(t *testing.T) {
	_, c := table(t)
	const inside, outside = "10.0.0.1:3000", "203.0.113.2:1723"
	original, reply := tuple4(inside, "203.0.113.2:1723"), tuple4(outside, "203.0.113.1:3000")
	tcp := func(z Zone, original, reply Tuple) {
		foreign(t, c, protocolTCP, original, reply, z, StatusSeenReply|StatusAssured)
	}
	for i, d := range []Direction{Both, OriginalOnly, ReplyOnly} {
		z := Zone{ID: uint16(i + 5), Direction: d}
		port := uint16(3000 + i)
		src := netip.AddrPortFrom(addr("10.0.0.1"), port)
		tcp(z, Tuple{src, original.Dst}, Tuple{reply.Src, netip.AddrPortFrom(addr(publicAddr), port)})
		for _, p := range []Tuple{{src, reply.Src}, {reply.Src, src}} {
			got, err := c.Lookup(p.Src, p.Dst)
			if err != nil || got.Zone != z || got.Original.Src != src || got.Reply.Src != reply.Src {
				t.Errorf("Lookup %v: %+v, %v; want it in %v", p, got, err, z)
			}
		}
	}

	// Two customers with the same inside addresses.
	tcp(Zone{ID: 20, Direction: OriginalOnly}, tuple4("10.0.0.7:4000", outside), tuple4(outside, "203.0.113.1:4000"))
	if _, err := c.Lookup(addrPort("10.0.0.7:4000"), addrPort(outside)); err != nil {
		t.Error(err)
	}
	tcp(Zone{ID: 21, Direction: OriginalOnly}, tuple4("10.0.0.7:4000", outside), tuple4(outside, "203.0.113.1:4001"))
	if got, err := c.Lookup(addrPort("10.0.0.7:4000"), addrPort(outside)); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("Lookup of two equal ones: %+v, %v; want ErrAmbiguous", got, err)
	}
}

// A tuple of the right look that belongs to a connection translated elsewhere is not the packet's.
func TestLookupIgnoresOtherConnectionsTuples(t *testing.T) {
	_, c := table(t)
	src, dst := addrPort("192.168.77.11:3000"), addrPort("203.0.113.1:1723")
	// src dials dst, which is sent on to another server: on the forward hook no packet is src > dst.
	f := foreign(t, c, protocolTCP, Tuple{src, dst}, tuple4("192.168.77.12:1723", "192.168.77.11:3000"), Zone{}, StatusSeenReply)
	if got, err := c.Lookup(src, dst); !errors.Is(err, ErrNotFound) {
		t.Errorf("Lookup: %+v, %v; want ErrNotFound", got, err)
	}
	if got, err := c.Lookup(src, f.Reply.Src); err != nil || got.Original != f.Original {
		t.Errorf("Lookup by the true addresses: %+v, %v", got, err)
	}
	if _, err := c.Lookup(netip.MustParseAddrPort("[::1]:1"), dst); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("Lookup of IPv6: %v, want another error", err)
	}
}

// Kernels that do not filter send everything.
func TestMatches(t *testing.T) {
	a, b := addrPort("192.168.77.11:3000"), addrPort("203.0.113.2:1723")
	f := Flow{Protocol: protocolTCP, Original: Tuple{a, addrPort("203.0.113.9:1723")}, Reply: Tuple{b, addrPort("203.0.113.1:3000")}}
	udp, otherPort, otherEnd, zoned := f, f, f, f
	udp.Protocol = 17
	otherPort.Original.Src = addrPort("192.168.77.11:3001")
	otherEnd.Reply.Src = addrPort("203.0.113.9:1723")
	zoned.Zone.ID = 3
	for _, packet := range []Tuple{{a, b}, {b, a}} {
		m := matches{packet: packet}
		for _, f := range []Flow{udp, otherPort, otherEnd} {
			m.add(f)
		}
		if got, err := m.one(); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %v, %v; want nothing", packet, got, err)
		}
		m.add(f)
		m.add(f)
		if got, err := m.one(); err != nil || got != f {
			t.Errorf("%v: %v, %v; want %v", packet, got, err, f)
		}
		m.add(zoned)
		if got, err := m.one(); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("%v: %v, %v; want ErrAmbiguous", packet, got, err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	_, c := table(b)
	for i := 0; i < 20000; i++ {
		o := Tuple{netip.AddrPortFrom(addr("10.0.0.1"), uint16(i)), addrPort("10.0.0.2:80")}
		foreign(b, c, protocolTCP, o, o.Inverse(), Zone{}, StatusSeenReply|StatusAssured)
	}
	foreign(b, c, protocolTCP, tuple4("10.0.0.3:3000", "203.0.113.1:1723"), tuple4("10.0.0.4:1723", "203.0.113.1:3000"), Zone{}, StatusSeenReply)
	for name, p := range map[string]Tuple{
		"one-tuple":   tuple4("10.0.0.1:77", "10.0.0.2:80"),
		"hairpin-20k": tuple4("10.0.0.3:3000", "10.0.0.4:1723"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Lookup(p.Src, p.Dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
