package conntrack

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// natPort is a source or destination translation that changes the port too.
func natPort(kind expr.NATType, offset uint32, match, to string) func(*nftables.Conn, *nftables.Table) {
	return func(c *nftables.Conn, t *nftables.Table) {
		chain := &nftables.Chain{Name: "dnat", Table: t, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest}
		if kind == expr.NATTypeSourceNAT {
			chain.Name, chain.Hooknum, chain.Priority = "snat", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource
		}
		chain = c.AddChain(chain)
		target := addrPort(to)
		exprs := append(matchAddress(offset, match), matchTCP()...)
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(exprs,
			&expr.Immediate{Register: 1, Data: target.Addr().AsSlice()},
			&expr.Immediate{Register: 2, Data: []byte{byte(target.Port() >> 8), byte(target.Port())}},
			&expr.NAT{Type: kind, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2})})
	}
}

// say sends bytes one way, more than a window without its scale would let pass, and wants them at the other end.
func say(t *testing.T, from, to net.Conn, what string) {
	t.Helper()
	text := []byte(strings.Repeat(what, 20000/len(what)))
	go func() { _, _ = from.Write(text) }()
	if err := to.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != string(text) {
		t.Fatalf("%s: %v", what, err)
	}
}

// restorable are the topologies of a control connection.
var restorable = []struct {
	name                          string
	rules                         []func(*nftables.Conn, *nftables.Table)
	listen, dial                  string
	sameHostInside, clientOutside bool
	zoneOriginal                  uint16
}{
	{name: "no NAT", listen: serverAddr + ":1723", dial: serverAddr + ":1723"},
	{name: "source NAT", rules: []func(*nftables.Conn, *nftables.Table){sourceNAT(clientAddr, publicAddr)},
		listen: serverAddr + ":1723", dial: serverAddr + ":1723"},
	{name: "source NAT to another port", rules: []func(*nftables.Conn, *nftables.Table){natPort(expr.NATTypeSourceNAT, 12, clientAddr, publicAddr+":61000")},
		listen: serverAddr + ":1723", dial: serverAddr + ":1723"},
	{name: "forwarded", rules: []func(*nftables.Conn, *nftables.Table){destinationNAT(publicAddr, clientAddr)},
		listen: clientAddr + ":1723", dial: publicAddr + ":1723", clientOutside: true},
	{name: "forwarded to another port", rules: []func(*nftables.Conn, *nftables.Table){natPort(expr.NATTypeDestNAT, 16, publicAddr, clientAddr+":4711")},
		listen: clientAddr + ":4711", dial: publicAddr + ":1723", clientOutside: true},
	{name: "hairpin", rules: []func(*nftables.Conn, *nftables.Table){destinationNAT(publicAddr, secondAddr), sourceNAT(clientAddr, publicAddr)},
		listen: secondAddr + ":1723", dial: publicAddr + ":1723", sameHostInside: true},
	{name: "hairpin with other ports", rules: []func(*nftables.Conn, *nftables.Table){natPort(expr.NATTypeDestNAT, 16, publicAddr, secondAddr+":4711"),
		natPort(expr.NATTypeSourceNAT, 12, clientAddr, publicAddr+":61000")},
		listen: secondAddr + ":4711", dial: publicAddr + ":1723", sameHostInside: true},
	{name: "zone", rules: []func(*nftables.Conn, *nftables.Table){zoneAll(9), sourceNAT(clientAddr, publicAddr)},
		listen: serverAddr + ":1723", dial: serverAddr + ":1723"},
	{name: "zone of the original direction", rules: []func(*nftables.Conn, *nftables.Table){sourceNAT(clientAddr, publicAddr)},
		listen: serverAddr + ":1723", dial: serverAddr + ":1723", zoneOriginal: 5},
}

const secondAddr = "192.168.78.12" // another inside host

// restoreLab makes the i-th topology with a connection in it.
func restoreLab(t *testing.T, i int) (l *lab, conn Connection, c, s net.Conn) {
	t.Helper()
	k := restorable[i]
	l = newLab(t)
	l.router.must(func() error { return SetAccounting(true) })
	for _, r := range k.rules {
		l.router.rules(r)
	}
	if k.zoneOriginal != 0 {
		l.router.zoneOriginal(clientAddr, k.zoneOriginal)
	}
	client, server := l.client, l.server
	if k.clientOutside {
		client, server = server, client
	}
	if k.sameHostInside {
		server = l.router.connect(secondAddr+"/24", "192.168.78.1/24")
	}
	src, dst, c, s := control(t, client, server, k.listen, k.dial)
	conn, err := l.ct.Lookup(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	if conn.Original.Src != src || conn.Reply.Src != dst {
		t.Fatalf("the connection is %+v", conn)
	}
	say(t, c, s, "before")
	return l, conn, c, s
}

// flowOf returns the entry of a connection.
func flowOf(t *testing.T, c *Client, conn Connection) Flow {
	t.Helper()
	f, err := c.get(ctaTupleOrig, protocolTCP, conn.Original, conn.Zone)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRestoreConnection(t *testing.T) {
	for i, k := range restorable {
		t.Run(k.name, func(t *testing.T) {
			l, conn, c, s := restoreLab(t, i)
			if err := l.ct.DeleteFlow(flowOf(t, l.ct, conn)); err != nil {
				t.Fatal(err)
			}
			if there, err := l.ct.HasConnection(conn); there || err != nil {
				t.Fatalf("after the delete: %v, %v", there, err)
			}
			conn.Mark = 0x2a
			if restored, err := l.ct.RestoreConnection(conn); !restored || err != nil {
				t.Fatal(restored, err)
			}
			f := flowOf(t, l.ct, conn)
			const status = StatusSeenReply | StatusAssured | StatusConfirmed
			if f.Original != conn.Original || f.Reply != conn.Reply || f.Mark != 0x2a || f.TCPState != TCPEstablished || f.Status&status != status {
				t.Errorf("restored as %+v, want %+v", f, conn)
			}
			say(t, s, c, "the server first")
			say(t, c, s, "then the client")
			if f = flowOf(t, l.ct, conn); f.FromOriginal.Packets == 0 || f.FromReply.Packets == 0 {
				t.Errorf("not by this entry: %+v", f)
			}
			if there, err := l.ct.HasConnection(conn); !there || err != nil {
				t.Errorf("HasConnection: %v, %v", there, err)
			}
			if restored, err := l.ct.RestoreConnection(conn); restored || err != nil {
				t.Errorf("restored what was there: %v, %v", restored, err)
			}
			// What the kernel follows further is not stuck in a state.
			c.Close()
			if _, err := s.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("after the close: %v", err)
			}
			if err := l.ct.DeleteConnection(conn); err != nil {
				t.Error(err)
			}
			if err := l.ct.DeleteConnection(conn); !errors.Is(err, ErrNotFound) {
				t.Errorf("deleted twice: %v", err)
			}
		})
	}
}

// Somebody has spoken before the entry was back, and the kernel has made one of that which translates alike: it stays, also
// where it has the two ends the other way round. (Where it does not, the segment went astray and was answered with a reset.)
func TestRestoreConnectionAfterAPacket(t *testing.T) {
	for i, k := range restorable {
		for _, who := range []string{"client", "server"} {
			if who == "server" && k.name != "no NAT" && k.name != "forwarded" {
				continue
			}
			t.Run(k.name+", "+who, func(t *testing.T) {
				l, conn, c, s := restoreLab(t, i)
				from, to := c, s
				if who == "server" {
					from, to = s, c
				}
				if k.clientOutside && who == "server" {
					l.router.rules(sourceNAT(clientAddr, publicAddr)) // as on a router that masquerades as well
				}
				if err := l.ct.DeleteFlow(flowOf(t, l.ct, conn)); err != nil {
					t.Fatal(err)
				}
				say(t, from, to, "fast")
				if restored, err := l.ct.RestoreConnection(conn); restored || err != nil {
					t.Errorf("replaced what was good: %v, %v", restored, err)
				}
				if there, err := l.ct.HasConnection(conn); !there || err != nil {
					t.Errorf("HasConnection: %v, %v", there, err)
				}
				say(t, s, c, "the server")
				say(t, c, s, "the client")
			})
		}
	}
}

// Flows that have the tuples of a connection give way, at both ends.
func TestRestoreConnectionClearsTheWay(t *testing.T) {
	l, conn, c, s := restoreLab(t, 1)
	if err := l.ct.DeleteFlow(flowOf(t, l.ct, conn)); err != nil {
		t.Fatal(err)
	}
	foreign(t, l.ct, protocolTCP, conn.Original, tuple4(serverAddr+":1723", "203.0.113.77:7777"), Zone{}, StatusSeenReply)
	foreign(t, l.ct, protocolTCP, conn.Reply, conn.Reply.Inverse(), Zone{}, 0)
	if there, err := l.ct.HasConnection(conn); there || err != nil {
		t.Errorf("HasConnection of another translation: %v, %v", there, err)
	}
	if err := l.ct.DeleteConnection(conn); !errors.Is(err, ErrNotFound) {
		t.Errorf("DeleteConnection of another translation: %v", err)
	}
	if restored, err := l.ct.RestoreConnection(conn); !restored || err != nil {
		t.Fatal(restored, err)
	}
	say(t, s, c, "the server")
	say(t, c, s, "the client")
}

func TestRestoreConnectionRefuses(t *testing.T) {
	l, conn, _, _ := restoreLab(t, 1)
	if err := l.ct.DeleteFlow(flowOf(t, l.ct, conn)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Connection){
		"no timeout":  func(c *Connection) { c.Timeout = 0 },
		"no address":  func(c *Connection) { c.Reply.Dst = netip.AddrPort{} },
		"no original": func(c *Connection) { c.Original = Tuple{} },
	} {
		bad := conn
		change(&bad)
		if restored, err := l.ct.RestoreConnection(bad); restored || err == nil {
			t.Errorf("%s: restored", name)
		}
	}
	bad := conn
	bad.Helper = "no-such-helper"
	var unsupported *UnsupportedError
	if _, err := l.ct.RestoreConnection(bad); !errors.As(err, &unsupported) {
		t.Errorf("unknown helper: %v", err)
	}
	if _, err := l.ct.get(ctaTupleOrig, protocolTCP, conn.Original, conn.Zone); !errors.Is(err, ErrNotFound) {
		t.Errorf("something was made all the same: %v", err)
	}
}

func TestEstablishedTimeout(t *testing.T) {
	newNamespace(t).must(func() error {
		if err := os.WriteFile(sysctlEstablished, []byte("7440"), 0); err != nil {
			return err
		}
		if d := EstablishedTimeout(); d != 7440*time.Second {
			return fmt.Errorf("it is %v", d)
		}
		return nil
	})
}
