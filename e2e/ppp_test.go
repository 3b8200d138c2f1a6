package e2e

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/ppp"
	"pptp-alg/e2e/ppp/mppe"
	"pptp-alg/e2e/tunnel"
)

// Whole clients with one Call ID behind one address: they log in, encrypt, and
// ping through their tunnels; one hangs up, the others go on. Encryption with
// another call's key would show as pings unanswered.
func TestTunnels(t *testing.T) {
	for _, v := range []struct {
		e        ppp.Encryption
		announce bool // the clients are PACs, and announce their calls
	}{
		{ppp.Encryption{Strengths: []mppe.Strength{mppe.Bits128}, Stateless: true, Required: true}, false},
		{ppp.Encryption{Strengths: []mppe.Strength{mppe.Bits56}, Stateful: true, Required: true}, false},
		{ppp.Encryption{Strengths: []mppe.Strength{mppe.Bits40}, Stateless: true, Required: true}, true},
	} {
		e := v.e
		t.Run(fmt.Sprintf("MPPE %d", e.Strengths[0]), func(t *testing.T) {
			const count, pings = 5, 5
			w := withDaemon(t, lab.Plan{Clients: count, Servers: 1, Firewall: strict()})
			inside := netip.MustParseAddr("172.20.0.1")
			at := w.Servers[0]
			server, err := tunnel.StartServer(peer.Config{Network: at, Address: at.Address, Timeout: patience, CallID: peer.Counting(0)},
				tunnel.Config{PPP: ppp.Config{Demand: []ppp.Method{ppp.MSCHAPv2}, Magic: true, PFC: true, ACFC: true, Encryption: e, Address: inside,
					Secret: func(user string) (string, bool) { return "password of " + user, user != "" }}}, count)
			w.must(err)
			w.Cleanup(func() { _ = server.Close() })
			w.must(server.Listen(peer.Port))
			clients, tunnels := make([]*tunnel.Client, count), make([]*tunnel.Tunnel, count)
			each := func(do func(i int) error) {
				t.Helper()
				var wg sync.WaitGroup
				for i := range count {
					wg.Go(func() {
						if err := do(i); err != nil {
							t.Errorf("client %d: %v", i+1, err)
						}
					})
				}
				wg.Wait()
				if t.Failed() {
					t.FailNow()
				}
			}
			ping := func(i int) error {
				n, err := clients[i].Ping(w.ctx, tunnels[i], pings, 1000, patience)
				if err == nil && n != pings {
					err = fmt.Errorf("%d of %d pings were answered", n, pings)
				}
				return err
			}
			for i := range count {
				at, user := w.Clients[i], fmt.Sprintf("user%d", i)
				clients[i], err = tunnel.StartClient(peer.Config{Network: at, Address: at.Address, Timeout: patience, CallID: peer.Fixed(7)},
					tunnel.Config{PPP: ppp.Config{User: user, Password: "password of " + user, Offer: []ppp.Method{ppp.MSCHAPv2}, Magic: true,
						PFC: true, ACFC: true, Encryption: e}})
				w.must(err)
				w.Cleanup(func() { _ = clients[i].Close() })
			}
			each(func(i int) (err error) {
				session, err := clients[i].Dial(w.ctx, netip.AddrPortFrom(at.Address, peer.Port))
				if err != nil {
					return err
				}
				call := clients[i].Call
				if v.announce {
					call = clients[i].Announce
				}
				if tunnels[i], err = call(w.ctx, session); err != nil {
					return err
				}
				if err = tunnels[i].Reach(w.ctx, ppp.Up); err != nil {
					return err
				}
				return ping(i)
			})
			users := map[string]bool{}
			for _, far := range server.Tunnels() {
				st := far.State()
				users[st.User] = true
				if st.PPP.Foreign+st.PPP.Undecoded+st.Flow.Foreign+st.Flow.Lost > 0 {
					t.Errorf("the server's end for %s: %+v", st.User, st)
				}
			}
			if len(users) != count {
				t.Errorf("the server knows the users %v", users)
			}
			w.status(count)
			w.check(tunnels[1].Close(w.ctx))
			w.status(count - 1)
			each(func(i int) error {
				if i == 1 {
					return nil
				}
				return ping(i)
			})
			w.check(clients[1].Close())
			each(func(i int) error { return tunnels[i].Close(w.ctx) })
			for _, n := range append([]*peer.Node{server.Node}, clients[0].Node, clients[2].Node) {
				for _, f := range n.Faults() {
					t.Errorf("%s: %s", n.Name(), f)
				}
			}
			for _, c := range clients {
				_ = c.Close()
			}
			w.finish()
		})
	}
}
