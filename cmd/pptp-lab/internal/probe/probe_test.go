package probe_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-lab/internal/probe"
	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/ppp"
	"pptp-alg/e2e/tunnel"
	"pptp-alg/e2e/wire"
)

var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("PPTP_ALG_BIN"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "pptp-alg-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "pptp-alg")
	cmd := exec.Command("go", "build", "-o", path, "pptp-alg/cmd/pptp-alg")
	cmd.Stderr = os.Stderr
	return path, cmd.Run()
})

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv("PPTP_ALG_BIN") == "" {
		if path, err := program(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
	os.Exit(code)
}

// patience is for what is expected to happen, short for what is not.
const (
	patience = 20 * time.Second
	short    = 3 * time.Second
)

var inside = netip.MustParseAddr("172.20.0.1")

// scene is what stands between a probe and its answer.
type scene struct {
	name     string
	firewall []lab.Piece // after plain masquerading
	daemon   bool
	server   func(t *testing.T, s *lab.Site) // nil: a good one
	user     string
	password string
	target   netip.Addr // default: the server
	patience time.Duration
	want     probe.Outcome
	say      string // part of what the probe says
}

func node(at lab.Station) peer.Config {
	return peer.Config{Network: at, Address: at.Address, Timeout: patience, CallID: peer.Counting(500)}
}

func serve(t *testing.T, cfg peer.Config, end tunnel.Config) *tunnel.Server {
	t.Helper()
	if end.PPP.Secret == nil {
		end.PPP = ppp.Config{Demand: []ppp.Method{ppp.MSCHAPv2}, Magic: true, Address: inside, Encryption: ppp.AnyEncryption(),
			Secret: func(user string) (string, bool) { return "sesame", user == "ali" }}
	}
	s, err := tunnel.StartServer(cfg, end, 10)
	if err == nil {
		err = s.Listen(peer.Port)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func good(t *testing.T, s *lab.Site) { serve(t, node(s.Servers[0]), tunnel.Config{}) }

func refusing(result, code uint8) func(*testing.T, *lab.Site) {
	return func(t *testing.T, s *lab.Site) {
		cfg := node(s.Servers[0])
		cfg.Answer = func(wire.Message) peer.Answer { return peer.Answer{Result: result, ErrorCode: code} }
		serve(t, cfg, tunnel.Config{})
	}
}

// talks accepts TCP and says something to whatever it hears first.
func talks(answer []byte) func(*testing.T, *lab.Site) {
	return func(t *testing.T, s *lab.Site) {
		var l net.Listener
		if err := s.Servers[0].Do(func() (err error) {
			l, err = net.Listen("tcp4", netip.AddrPortFrom(s.Servers[0].Address, peer.Port).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				var b [200]byte
				_, _ = conn.Read(b[:])
				_, _ = conn.Write(answer)
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
	}
}

// carrying is a server whose calls answer every packet with what reply makes.
func carrying(reply func(n *peer.Node, c *peer.Call, g wire.GRE)) func(*testing.T, *lab.Site) {
	return func(t *testing.T, s *lab.Site) {
		cfg := node(s.Servers[0])
		var n *peer.Node
		cfg.Carry = func(c *peer.Call) func(wire.GRE) {
			return func(g wire.GRE) { reply(n, c, g) }
		}
		var err error
		if n, err = peer.Start(cfg); err == nil {
			err = n.Listen(peer.Port)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
	}
}

// otherAnswer acknowledges an LCP request that nobody sent: what a client gets
// that receives another one's packets.
func otherAnswer(_ *peer.Node, c *peer.Call, g wire.GRE) {
	if len(g.Payload) > 6 {
		b := bytes.Clone(g.Payload)
		b[4], b[5] = 2, b[5]+100 // Configure-Ack
		_ = c.SendGRE(wire.GRE{HasSeq: true, Sequence: g.Sequence, Payload: b})
	}
}

// otherCall answers with a Call ID that is nobody's here.
func otherCall(n *peer.Node, c *peer.Call, g wire.GRE) {
	_ = n.SendGRE(c.Remote(), wire.EncodeGRE(wire.GRE{CallID: c.PeerID() + 1, HasSeq: true, Payload: g.Payload}))
}

func scenes() []scene {
	refusedStart := wire.Encode(&wire.StartReply{ProtocolVersion: wire.Version, Result: 4})
	return []scene{
		{name: "all is well", daemon: true, want: probe.Works, say: "demands MS-CHAPv2"},
		{name: "logged in", daemon: true, user: "ali", password: "sesame", want: probe.Works, say: "MPPE 128 stateless"},
		{name: "pings", daemon: true, user: "ali", password: "sesame", want: probe.Works, say: "3 of 3 pings"},
		{name: "wrong password", daemon: true, user: "ali", password: "barley", want: probe.NotAuthenticated, say: "refused"},
		{name: "nobody listens", server: func(*testing.T, *lab.Site) {}, want: probe.TCPRefused, say: "refused"},
		{name: "no such host", target: netip.MustParseAddr("198.18.77.77"), server: func(*testing.T, *lab.Site) {}, want: probe.Unreachable, say: "198.18.77.77"},
		{name: "TCP filtered", firewall: []lab.Piece{lab.DropTCP("lan", peer.Port)}, patience: short, want: probe.TCPFiltered, say: "Nothing answered"},
		{name: "TCP rejected", firewall: []lab.Piece{lab.RejectTCP("lan", peer.Port)}, want: probe.TCPFiltered, say: "administratively prohibited"},
		{name: "control connection refused", server: talks(refusedStart), want: probe.ControlRefused, say: "not authorized (result 4)"},
		{name: "another service", server: talks([]byte("SSH-2.0-of-course\r\n and more of the kind")), want: probe.ControlSilent},
		{name: "a silent service", server: talks(nil), patience: short, want: probe.ControlSilent},
		{name: "busy", daemon: true, server: refusing(wire.ResultBusy, 0), want: probe.CallRefused, say: "busy (result 4)"},
		{name: "no resources", daemon: true, server: refusing(wire.ResultError, wire.ErrorNoResource), want: probe.CallRefused, say: "error 4: no resources"},
		{name: "no answer to the call", patience: short, server: func(t *testing.T, s *lab.Site) {
			cfg := node(s.Servers[0])
			cfg.Answer = func(wire.Message) peer.Answer { return peer.Answer{Silent: true} }
			serve(t, cfg, tunnel.Config{})
		}, want: probe.CallSilent},
		// Masquerading knows no Call IDs: what the server sends has nowhere to go.
		{name: "a router without the daemon", patience: short, want: probe.GRENotReturning, say: "does not know PPTP"},
		{name: "GRE is dropped on the way in", daemon: true, firewall: []lab.Piece{lab.DropGRE("wan")}, patience: short, want: probe.GRENotReturning},
		{name: "GRE is dropped on the way out", daemon: true, firewall: []lab.Piece{lab.DropGRE("lan")}, patience: short, want: probe.GRENotLeaving, say: "acknowledged none"},
		{name: "GRE is turned back", daemon: true, firewall: []lab.Piece{lab.RejectGRE("lan")}, patience: short, want: probe.GRENotLeaving},
		{name: "answers meant for another", daemon: true, server: carrying(otherAnswer), patience: short, want: probe.WrongPeer, say: "never sent"},
		{name: "the wrong Call ID", firewall: []lab.Piece{forwarded}, server: carrying(otherCall), patience: short, want: probe.WrongPeer, say: "Nothing came for our call"},
		{name: "no keys for the encryption that the server wants", daemon: true, patience: short, server: func(t *testing.T, s *lab.Site) {
			// Without MS-CHAPv2 there are none.
			serve(t, node(s.Servers[0]), tunnel.Config{PPP: ppp.Config{Offer: nil, Demand: []ppp.Method{ppp.NoMethod}, Address: inside,
				Secret: func(string) (string, bool) { return "", false }, Encryption: required()}})
		}, user: "ali", want: probe.PPPFailed},
	}
}

func required() ppp.Encryption {
	e := ppp.AnyEncryption()
	e.Required = true
	return e
}

// forwarded stands for lab.ForwardGRE to the first client; the address is the
// same in all labs.
var forwarded = lab.ForwardGRE("wan", lab.Station{Address: netip.MustParseAddr("10.77.1.1")})

func TestOutcomes(t *testing.T) {
	if err := lab.Check(t.Context()); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range scenes() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			s, err := lab.NewSite(ctx, lab.Plan{Clients: 1, Servers: 1, Firewall: append([]lab.Piece{lab.Masquerade("wan")}, c.firewall...)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			if c.daemon {
				d, err := s.Router.StartDaemon(lab.DaemonOptions{Program: bin})
				if err == nil {
					err = d.Ready(ctx)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if c.server == nil {
				c.server = good
			}
			c.server(t, s)
			cfg := probe.Config{Server: netip.AddrPortFrom(s.Servers[0].Address, peer.Port), Network: s.Clients[0], User: c.user, Password: c.password,
				CallID: -1, Patience: c.patience, Verbose: t.Logf}
			if c.target.IsValid() {
				cfg.Server = netip.AddrPortFrom(c.target, peer.Port)
			}
			if cfg.Patience == 0 {
				cfg.Patience = patience
			}
			var out bytes.Buffer
			if got := probe.Run(ctx, &out, cfg); got != c.want {
				t.Errorf("outcome %d (%v) instead of %d:\n%s", got, got, c.want, out.String())
				if c.daemon {
					var b strings.Builder
					s.Describe(&b)
					t.Log(b.String())
				}
			}
			if !strings.Contains(out.String(), c.say) {
				t.Errorf("the probe does not say %q:\n%s", c.say, out.String())
			}
			t.Logf("%s", out.String())
		})
	}
}
