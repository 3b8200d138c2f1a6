package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pptp-alg/e2e/wire"
)

func require(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	if err := Check(ctx); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return ctx
}

func site(t *testing.T, ctx context.Context, p Plan) *Site {
	t.Helper()
	s, err := NewSite(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// dialOnce proves that TCP passes from a client to a server and tells which
// address the server saw.
func dialOnce(t *testing.T, client, server Station) netip.Addr {
	t.Helper()
	var ln net.Listener
	if err := server.Do(func() (err error) {
		ln, err = net.Listen("tcp4", netip.AddrPortFrom(server.Address, 1723).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var c net.Conn
	err := client.Do(func() (err error) {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: client.Address.AsSlice()}}
		c, err = d.Dial("tcp4", ln.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	return a.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
}

func TestSitesSideBySide(t *testing.T) {
	ctx := require(t)
	for _, name := range []string{"one", "two", "three"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := site(t, ctx, Plan{Clients: 2, Servers: 2})
			for _, c := range s.Clients {
				for _, srv := range s.Servers {
					if saw := dialOnce(t, c, srv); saw != WANRouter {
						t.Errorf("%v came as %v", c.Address, saw)
					}
				}
			}
		})
	}
}

func TestSharedClientsAndRouting(t *testing.T) {
	ctx := require(t)
	s := site(t, ctx, Plan{Clients: 200, Servers: 1, Shared: true, Routed: true, Firewall: []Piece{}})
	if len(s.Clients) != 200 || s.Clients[0].Host != s.Clients[199].Host {
		t.Fatalf("%d clients", len(s.Clients))
	}
	for _, i := range []int{0, 199} {
		if saw := dialOnce(t, s.Clients[i], s.Servers[0]); saw != s.Clients[i].Address {
			t.Errorf("%v came as %v", s.Clients[i].Address, saw)
		}
	}
}

// A lab without its Settle, its rules or its routes would fail here; a lab that
// reaches into the machine's own network too.
func TestRootUntouched(t *testing.T) {
	ctx := require(t)
	look := func() string {
		links, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, l := range links {
			b.WriteString(l.Attrs().Name + " ")
		}
		forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		if err != nil {
			t.Fatal(err)
		}
		return b.String() + string(forward)
	}
	before := look()
	s := site(t, ctx, Plan{Clients: 1, Servers: 1})
	if v, err := s.Router.SysctlGet("net.ipv4.ip_forward"); err != nil || v != "1" {
		t.Errorf("router forwards: %q, %v", v, err)
	}
	if during := look(); during != before {
		t.Errorf("the machine's own network changed from %q to %q", before, during)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory is left: %v", err)
	}
	if err := s.Router.Do(func() error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed host can be entered: %v", err)
	}
}

func namespaceOf(t *testing.T) string {
	t.Helper()
	ns, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestDoComesBack(t *testing.T) {
	ctx := require(t)
	s := site(t, ctx, Plan{})
	home := namespaceOf(t)
	var wg sync.WaitGroup
	for range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_ = s.Router.Do(func() error {
				if namespaceOf(t) == home {
					t.Error("Do ran outside")
				}
				return nil
			})
			if namespaceOf(t) != home {
				t.Error("a thread stayed inside")
			}
		}()
	}
	wg.Wait()
	func() {
		defer func() { _ = recover() }()
		_ = s.Router.Do(func() error { panic("in the host") })
	}()
	for range 50 {
		runtime.Gosched()
		if namespaceOf(t) != home {
			t.Fatal("a thread stayed inside after a panic")
		}
	}
}

func TestStrictForward(t *testing.T) {
	ctx := require(t)
	s := site(t, ctx, Plan{Clients: 1, Servers: 1, Firewall: []Piece{Masquerade("wan"), StrictForward("lan", 1723)}})
	if saw := dialOnce(t, s.Clients[0], s.Servers[0]); saw != WANRouter {
		t.Errorf("came as %v", saw)
	}
	err := s.Clients[0].Do(func() error {
		c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(s.Servers[0].Address, 99).String(), 300*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	})
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("another port should be dropped: %v", err)
	}
}

func TestDNAT(t *testing.T) {
	ctx := require(t)
	inside := netip.AddrPortFrom(nth(LANRouter, 0), 1723)
	s := site(t, ctx, Plan{Clients: 1, Servers: 1, Firewall: []Piece{Masquerade("wan"), DNAT(netip.AddrPortFrom(WANRouter, 1723), inside)}})
	var ln net.Listener
	if err := s.Clients[0].Do(func() (err error) { ln, err = net.Listen("tcp4", ":1723"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err := s.Servers[0].Do(func() error {
		c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(WANRouter, 1723).String(), 5*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestConntrackAndCapture(t *testing.T) {
	ctx := require(t)
	s := site(t, ctx, Plan{Clients: 1, Servers: 1})
	capture, err := s.Router.Capture("lan", "wan")
	if err != nil {
		t.Fatal(err)
	}
	client, server := s.Clients[0], s.Servers[0]
	fd := -1
	if err := client.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_GRE)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	packet := wire.EncodeGRE(wire.GRE{CallID: 4711, HasSeq: true, Payload: []byte("hello")})
	if err := unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: server.Address.As4()}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		device string
		out    bool
		src    netip.Addr
	}{{"lan", false, client.Address}, {"wan", true, WANRouter}} {
		p, err := capture.Wait(ctx, func(p *Packet) bool {
			return p.Device == want.device && p.GRE != nil && p.Out == want.out
		})
		if err != nil {
			t.Fatal(err)
		}
		if p.Src != want.src || p.Dst != server.Address || p.GRE.CallID != 4711 || string(p.GRE.Payload) != "hello" {
			t.Errorf("%v", p)
		}
	}
	flows, err := s.Router.GRE()
	if err != nil || len(flows) != 1 {
		t.Fatalf("%v, %v", flows, err)
	}
	f := flows[0]
	if f.Original != (Tuple{client.Address, server.Address, 0, 4711}) || f.Reply.Dst != WANRouter || f.Ours() || f.Packets != 1 {
		t.Errorf("entry %v", f)
	}
	if err := s.Router.DeleteFlow(f); err != nil {
		t.Error(err)
	}
	if flows, err := s.Router.GRE(); err != nil || len(flows) != 0 {
		t.Errorf("after deleting: %v, %v", flows, err)
	}
}

func TestStructure(t *testing.T) {
	ctx := require(t)
	s := site(t, ctx, Plan{Clients: 1, Servers: 1})
	one, err := s.Router.Structure()
	if err != nil || !strings.Contains(one, "table ip lab") || !strings.Contains(one, "masq") {
		t.Fatalf("%v\n%s", err, one)
	}
	if tables, err := s.Router.Tables(); err != nil || len(tables) != 0 {
		t.Errorf("tables besides the lab's own: %v, %v", tables, err)
	}
	dialOnce(t, s.Clients[0], s.Servers[0])
	if two, _ := s.Router.Structure(); two != one {
		t.Errorf("traffic changed the structure to\n%s", two)
	}
	if err := s.Router.Firewall(Masquerade("wan")); err != nil {
		t.Fatal(err)
	}
	if two, _ := s.Router.Structure(); two == one {
		t.Error("loading the same rules again should show in the handles")
	}
	var b strings.Builder
	s.Describe(&b)
	for _, want := range []string{"router: nftables ruleset", "masquerade", "conntrack entries\nproto 6"} {
		if !strings.Contains(b.String(), want) && (want != "masquerade" || hasNft()) {
			t.Errorf("description lacks %q:\n%s", want, b.String())
		}
	}
}

func hasNft() bool { _, err := exec.LookPath("nft"); return err == nil }
