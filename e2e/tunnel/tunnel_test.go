package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pptp-alg/e2e/inet"
	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/ppp"
	"pptp-alg/e2e/ppp/mppe"
	"pptp-alg/e2e/tunnel"
)

const patience = 30 * time.Second

var inside = netip.MustParseAddr("172.20.0.1")

func secret(user string) (string, bool) { return "sesame", strings.HasPrefix(user, "user") }

func serverConfig(e ppp.Encryption) tunnel.Config {
	return tunnel.Config{PPP: ppp.Config{Demand: []ppp.Method{ppp.MSCHAPv2, ppp.CHAPMD5, ppp.PAP}, Secret: secret, Magic: true,
		PFC: true, ACFC: true, Encryption: e, Address: inside}}
}

func clientConfig(e ppp.Encryption, offer ...ppp.Method) tunnel.Config {
	return tunnel.Config{PPP: ppp.Config{User: "user", Password: "sesame", Offer: offer, Magic: true, PFC: true, ACFC: true, Encryption: e,
		Echo: time.Second, MRU: 1400}}
}

func site(t *testing.T, p lab.Plan) (context.Context, *lab.Site) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	if err := lab.Check(ctx); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	p.Routed, p.Firewall = true, []lab.Piece{}
	s, err := lab.NewSite(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return ctx, s
}

func node(at lab.Station) peer.Config {
	return peer.Config{Network: at, Address: at.Address, Timeout: patience}
}

// serve starts a server for up to count clients.
func serve(t *testing.T, at lab.Station, cfg tunnel.Config, count int) *tunnel.Server {
	t.Helper()
	s, err := tunnel.StartServer(node(at), cfg, count)
	if err == nil {
		err = s.Listen(peer.Port)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func client(t *testing.T, at lab.Station, cfg tunnel.Config) *tunnel.Client {
	t.Helper()
	c, err := tunnel.StartClient(node(at), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func port(at lab.Station) netip.AddrPort { return netip.AddrPortFrom(at.Address, peer.Port) }

// up opens a tunnel and waits for it.
func up(ctx context.Context, t *testing.T, c *tunnel.Client, to lab.Station) *tunnel.Tunnel {
	t.Helper()
	tun, err := c.Open(ctx, port(to))
	if err != nil {
		t.Fatal(err)
	}
	if err := tun.Reach(ctx, ppp.Up); err != nil {
		t.Fatal(err)
	}
	return tun
}

func TestTunnel(t *testing.T) {
	before := runtime.NumGoroutine()
	ctx, s := site(t, lab.Plan{Clients: 1, Servers: 1})
	stateful := ppp.Encryption{Strengths: []mppe.Strength{mppe.Bits128}, Stateful: true, Required: true}
	for _, v := range []struct {
		e      ppp.Encryption
		offer  ppp.Method
		want   string
		change func(*tunnel.Config)
	}{
		{ppp.Encryption{}, ppp.PAP, "none", nil},
		{ppp.Encryption{}, ppp.CHAPMD5, "none", nil},
		{ppp.AnyEncryption(), ppp.MSCHAPv2, "MPPE 128 stateless", nil},
		{stateful, ppp.MSCHAPv2, "MPPE 128 stateful", nil},
	} {
		t.Run(fmt.Sprint(v.offer, v.want), func(t *testing.T) {
			server := serve(t, s.Servers[0], serverConfig(v.e), 1)
			c := client(t, s.Clients[0], clientConfig(v.e, v.offer))
			tun := up(ctx, t, c, s.Servers[0])
			if n, err := c.Ping(ctx, tun, 5, 1000, patience); n != 5 || err != nil {
				t.Errorf("%d of 5 pings answered: %v", n, err)
			}
			far := server.Tunnels()[0]
			if st := tun.State(); st.Local != inside.Next() || st.Remote != inside || st.Encryption != v.want || st.Demanded != v.offer {
				t.Errorf("%+v", st)
			}
			if st := far.State(); st.User != "user" || st.MTU != 1400 || st.PPP.Malformed+st.PPP.Foreign+st.Flow.Late+st.Flow.Lost+st.Dropped > 0 {
				t.Errorf("%+v", st)
			}
			if err := tun.Close(ctx); err != nil {
				t.Error(err)
			}
			<-far.Done()
			if err := far.Err(); !errors.Is(err, ppp.ErrTerminated) && err == nil {
				t.Errorf("the server's end says %v", err)
			}
			for _, f := range append(server.Faults(), c.Faults()...) {
				t.Error(f)
			}
			_, _ = c.Close(), server.Close()
		})
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	var after int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if after = runtime.NumGoroutine(); after <= before {
			return
		}
	}
	t.Errorf("%d goroutines before, %d after", before, after)
}

// Wrong passwords and no address left: both ends say so.
func TestRefused(t *testing.T) {
	ctx, s := site(t, lab.Plan{Clients: 1, Servers: 1})
	serve(t, s.Servers[0], serverConfig(ppp.Encryption{}), 1)
	cfg := clientConfig(ppp.Encryption{}, ppp.MSCHAPv2)
	good := client(t, s.Clients[0], cfg)
	first := up(ctx, t, good, s.Servers[0])
	second, err := good.Open(ctx, port(s.Servers[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Reach(ctx, ppp.Up); !errors.Is(err, ppp.ErrNoIPv4) {
		t.Errorf("no address left: %v", err)
	}
	if err := first.Close(ctx); err != nil {
		t.Error(err)
	}
	_ = good.Close()
	cfg.PPP.Password = "barley"
	bad, err := client(t, s.Clients[0], cfg).Open(ctx, port(s.Servers[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Reach(ctx, ppp.Up); !errors.Is(err, ppp.ErrPassword) {
		t.Errorf("a wrong password: %v", err)
	}
}

// Many tunnels in one process, all up at once, each with pings of its own.
func TestMany(t *testing.T) {
	nodes, each := 20, 15
	if testing.Short() {
		nodes, each = 4, 5
	}
	ctx, s := site(t, lab.Plan{Clients: nodes, Servers: 1, Shared: true})
	server := serve(t, s.Servers[0], serverConfig(ppp.AnyEncryption()), nodes*each)
	var mu sync.Mutex
	addresses := map[netip.Addr]bool{}
	var wg sync.WaitGroup
	for i := range nodes {
		c := client(t, s.Clients[i], clientConfig(ppp.AnyEncryption(), ppp.MSCHAPv2))
		for range each {
			wg.Go(func() {
				tun, err := c.Open(ctx, port(s.Servers[0]))
				if err == nil {
					err = tun.Reach(ctx, ppp.Up)
				}
				if err == nil {
					_, err = c.Ping(ctx, tun, 2, 100, patience)
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if a := tun.State().Local; addresses[a] {
					t.Errorf("%v was given twice", a)
				} else {
					addresses[a] = true
				}
			})
		}
	}
	wg.Wait()
	if n := len(server.Tunnels()); n != nodes*each || len(addresses) != n {
		t.Errorf("%d tunnels, %d addresses", n, len(addresses))
	}
}

// The kernel of the server's host answers pings through a TUN device.
func TestTUN(t *testing.T) {
	ctx, s := site(t, lab.Plan{Clients: 1, Servers: 1})
	at := s.Servers[0]
	remote := inside.Next()
	var tun *inet.TUN
	if err := at.Do(func() (err error) {
		tun, err = inet.OpenTUN("", inside, netip.PrefixFrom(remote, 32), 1300)
		return err
	}); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cfg := serverConfig(ppp.AnyEncryption())
	cfg.Datagram = func(_ *tunnel.Tunnel, b []byte) []byte {
		if _, err := tun.Write(b); err != nil {
			t.Error(err)
		}
		return nil
	}
	server := serve(t, at, cfg, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		buffer := make([]byte, 2000)
		for {
			n, err := tun.Read(buffer)
			if err != nil {
				return
			}
			for _, to := range server.Tunnels() {
				_ = to.Send(buffer[:n])
			}
		}
	})
	c := client(t, s.Clients[0], clientConfig(ppp.AnyEncryption(), ppp.MSCHAPv2))
	if n, err := c.Ping(ctx, up(ctx, t, c, at), 3, 500, patience); n != 3 {
		t.Errorf("%d of 3 pings answered: %v", n, err)
	}
	_ = tun.Close()
	wg.Wait()
}
