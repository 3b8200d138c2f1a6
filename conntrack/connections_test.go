package conntrack

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
)

// Connections finds a port at whichever end, in whichever tuple, in every zone, and nothing else. The kernel
// compares, not this package: what it sends is counted.
func TestConnections(t *testing.T) {
	l := newLab(t)
	l.router.rules(func(c *nftables.Conn, table *nftables.Table) {
		zoneAll(9)(c, table)
		sourceNAT(clientAddr, publicAddr)(c, table)
	})
	src, dst, _, _ := control(t, l.client, l.server, serverAddr+":1723", serverAddr+":1723")
	control(t, l.client, l.server, serverAddr+":1724", serverAddr+":1724")

	// One that is in the table the wrong way round, and one that was dialled at another port.
	far := netip.MustParseAddr(serverAddr)
	near := netip.MustParseAddr(clientAddr)
	put := func(original, reply Tuple) Connection {
		conn := Connection{Original: original, Reply: reply, Timeout: time.Hour}
		if _, err := l.ct.RestoreConnection(conn); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	at := netip.AddrPortFrom
	reversed := put(Tuple{at(far, 1723), at(near, 5000)}, Tuple{at(near, 5000), at(far, 1723)})
	elsewhere := put(Tuple{at(near, 5001), at(far, 4000)}, Tuple{at(far, 1723), at(near, 5001)})
	backwards := put(Tuple{at(far, 4001), at(near, 5002)}, Tuple{at(near, 5002), at(far, 1723)})

	got, err := l.ct.Connections([]uint16{1723, 4000})
	if err != nil {
		t.Fatal(err)
	}
	want := map[Tuple]Tuple{
		{src, dst}:         {dst, at(netip.MustParseAddr(publicAddr), src.Port())},
		reversed.Original:  reversed.Reply,
		elsewhere.Original: elsewhere.Reply,
		backwards.Original: backwards.Reply,
	}
	if len(got) != len(want) {
		t.Errorf("%d connections, want %d", len(got), len(want))
	}
	for _, c := range got {
		if want[c.Original] != c.Reply || c.State != TCPEstablished {
			t.Errorf("%+v, want the reply tuple %v", c, want[c.Original])
		}
		if (c.Original.Src == src) != (c.Zone == Zone{ID: 9}) {
			t.Errorf("%v is in %v", c.Original, c.Zone)
		}
	}
	if got, err = l.ct.Connections([]uint16{1}); err != nil || len(got) != 0 {
		t.Errorf("connections with a port that none has: %v, %v", got, err)
	}
	for _, f := range [...]portFilter{{ctaTupleOrig, ctaProtoDstPort, 1724}, {ctaTupleReply, ctaProtoSrcPort, 1724}} {
		n := 0
		if err := l.ct.dumpPort(f, func(Flow) { n++ }); err != nil || n != 1 {
			t.Errorf("%+v: the kernel sent %d, %v", f, n, err)
		}
	}
}
