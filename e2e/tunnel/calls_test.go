package tunnel_test

import (
	"context"
	"testing"
	"time"

	"pptp-alg/e2e/inet"
	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/ppp"
	"pptp-alg/e2e/tunnel"
	"pptp-alg/e2e/wire"
)

// A call that the PAC announces carries a tunnel as one does that the PNS
// requests, whichever of the two opened the control connection; each side can
// end it.
func TestIncomingCall(t *testing.T) {
	ctx, s := site(t, lab.Plan{Clients: 1, Servers: 1})
	server := serve(t, s.Servers[0], serverConfig(ppp.AnyEncryption()), 4)
	c := client(t, s.Clients[0], clientConfig(ppp.AnyEncryption(), ppp.MSCHAPv2))
	session, err := c.Dial(ctx, port(s.Servers[0]))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := server.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	announce := map[string]func() (*tunnel.Tunnel, error){
		"by the client": func() (*tunnel.Tunnel, error) { return c.Announce(ctx, session) },
		"by the server": func() (*tunnel.Tunnel, error) {
			call, err := accepted.IncomingCall(ctx)
			if err != nil {
				return nil, err
			}
			far, err := c.FindCall(ctx, call.Token())
			return c.Tunnel(far), err
		},
	}
	for name, place := range announce {
		for _, ends := range []string{"the client", "the server"} {
			t.Run(name+", "+ends+" hangs up", func(t *testing.T) {
				tun, err := place()
				if err != nil {
					t.Fatal(err)
				}
				if err := tun.Reach(ctx, ppp.Up); err != nil {
					t.Fatal(err)
				}
				if n, err := c.Ping(ctx, tun, 5, 1000, patience); n != 5 || err != nil {
					t.Errorf("%d of 5 pings answered: %v", n, err)
				}
				far := server.To(tun.State().Local)
				if far == nil {
					t.Fatalf("the server knows no tunnel to %v", tun.State().Local)
				}
				if st := far.State(); st.User != "user" || st.Encryption != "MPPE 128 stateless" || st.Flow.Lost+st.PPP.Undecoded > 0 {
					t.Errorf("%+v", st)
				}
				closing := tun
				if ends == "the server" {
					closing = far
				}
				if err := closing.Close(ctx); err != nil {
					t.Error(err)
				}
				<-tun.Done()
				<-far.Done()
			})
		}
	}
	for _, f := range append(server.Faults(), c.Faults()...) {
		t.Error(f)
	}
}

// Each side tells how many packets it takes unacknowledged, and the other keeps
// to that, and makes use of it: in all four messages that set a call up.
func TestReceiveWindow(t *testing.T) {
	for _, announced := range []bool{false, true} {
		ctx, s := site(t, lab.Plan{Clients: 1, Servers: 1})
		const servers, clients = 3, 2 // the server answers up to three at a time
		cfg := serverConfig(ppp.Encryption{})
		cfg.Flow.ReceiveWindow = servers
		server := serve(t, s.Servers[0], cfg, 1)
		cfg = clientConfig(ppp.Encryption{}, ppp.PAP)
		cfg.Flow.ReceiveWindow = clients
		c := client(t, s.Clients[0], cfg)
		session, err := c.Dial(ctx, port(s.Servers[0]))
		if err != nil {
			t.Fatal(err)
		}
		place := c.Call
		if announced {
			place = c.Announce
		}
		tun, err := place(ctx, session)
		if err == nil {
			err = tun.Reach(ctx, ppp.Up)
		}
		if err != nil {
			t.Fatal(err)
		}
		far := server.Tunnels()[0]
		if a, b := tun.Call().Window(), far.Call().Window(); a != servers || b != clients {
			t.Errorf("the client was told of a window of %d, the server of %d", a, b)
		}
		// Bursts that are answered: the windows of both directions fill.
		most := func() (int, int) { return tun.State().Flow.MostOut, far.State().Flow.MostOut }
		st := tun.State()
		for i := uint16(0); ctx.Err() == nil; i++ {
			for range 50 {
				echo := inet.Echo{Src: st.Local, Dst: st.Remote, ID: 1, Seq: i, Data: make([]byte, 100)}
				if err := tun.Send(echo.Datagram()); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := c.Ping(ctx, tun, 1, 0, time.Second); n != 1 {
				t.Log(err) // too many were waiting
			}
			if a, b := most(); a >= servers && b >= clients {
				break
			}
		}
		if a, b := most(); a != servers || b != clients {
			t.Errorf("announced %v: the client had %d packets out, the server %d; the windows are %d and %d", announced, a, b, servers, clients)
		}
	}
}

// The PNS of an announced call waits for Incoming-Call-Connected before it
// speaks: only then does it know the other side's window.
func TestNotConnected(t *testing.T) {
	ctx, s := site(t, lab.Plan{Clients: 1, Servers: 1})
	server := serve(t, s.Servers[0], serverConfig(ppp.Encryption{}), 1)
	n, err := peer.Start(node(s.Clients[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	session, err := n.Dial(ctx, port(s.Servers[0]))
	if err != nil {
		t.Fatal(err)
	}
	requestOnly(ctx, t, session)
	if tunnels := server.Tunnels(); len(tunnels) != 1 || tunnels[0].State().Phase != ppp.Dead {
		t.Errorf("tunnels before Incoming-Call-Connected: %v", tunnels)
	}
	select {
	case <-server.Tunnels()[0].Call().Complete():
		t.Error("a call is set up without Incoming-Call-Connected")
	default:
	}
}

// requestOnly sends Incoming-Call-Request, waits for the reply, and for one more
// round on the connection.
func requestOnly(ctx context.Context, t *testing.T, s *peer.Session) {
	t.Helper()
	err := s.Send(&wire.IncomingCallRequest{CallID: 5, SerialNumber: 1, Bearer: 1})
	if err == nil {
		_, err = s.Wait(ctx, func(m wire.Message) bool { return m.Type() == wire.TypeIncomingCallReply })
	}
	if err == nil {
		err = s.Ping(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
}
