package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// One client, all messages of a voluntary tunnel. First with Call IDs that can
// stay what they are; then with two that cannot, since another client has the
// same and the server's is 0: a message that is passed on untranslated would
// be about nobody's call.
func TestOneClient(t *testing.T) {
	t.Run("IDs stay", func(t *testing.T) {
		w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1})
		server := w.server(0, peer.Config{CallID: peer.Counting(4000)})
		w.voluntary(w.client(0, peer.Config{CallID: peer.Counting(77), Keepalive: 50 * time.Millisecond}), server, false)
		w.finish()
	})
	t.Run("IDs change", func(t *testing.T) {
		w, server := crowded(t, 1, peer.Config{CallID: peer.Counting(65535)})
		w.voluntary(w.client(0, peer.Config{CallID: peer.Fixed(crowdedID), Keepalive: 50 * time.Millisecond}), server, true)
		w.finish()
	})
}

// voluntary goes through a client's life.
func (w *world) voluntary(client, server *peer.Node, changed bool) {
	w.Helper()
	session := w.dial(client, server)
	accepted, err := server.Accept(w.ctx)
	w.must(err)
	others := len(w.daemonStatus().Up())
	call := w.call(session)
	w.talk(call, server)
	w.status(others + 1)
	far := w.far(call, server)
	if (call.ID() != far.PeerID()) != changed || (far.ID() != call.PeerID()) != changed {
		w.Errorf("Call IDs %d, told %d, and %d, told %d: expected to be changed: %v", call.ID(), far.PeerID(), far.ID(), call.PeerID(), changed)
	}
	// The ping after each message comes when the message has been handled.
	w.check(call.SetLinkInfo(), session.Ping(w.ctx), far.WANError(), accepted.Ping(w.ctx))
	if n := far.Stats().SetLinkInfo; n != 1 {
		w.Errorf("the server got %d Set-Link-Info for the call", n)
	}
	if n := call.Stats().WAN; n != 1 {
		w.Errorf("the client got %d WAN-Error-Notify for the call", n)
	}
	w.check(call.HangUp(w.ctx))
	w.status(others)
	again := w.call(session) // on the same connection
	w.talk(again, server)
	w.check(w.far(again, server).HangUp(w.ctx), again.WaitEnd(w.ctx)) // the server hangs up
	w.check(session.Stop(w.ctx))
	<-accepted.Done()
	w.check(peer.CompareStreams(session.Sent(), accepted.Read(), false), peer.CompareStreams(accepted.Sent(), session.Read(), false))
}

// Clients with one and the same Call ID, at one server.
func TestEqualCallIDs(t *testing.T) {
	many := 200
	if testing.Short() {
		many = 20
	}
	for _, c := range []struct {
		name    string
		clients int
		shared  bool
		id      uint16
	}{
		{"two", 2, false, 7},
		{"two with 0", 2, false, 0},
		{"two with 65535", 2, false, 65535},
		{"many hosts", many / 4, false, 1},
		{"two hundred addresses", many, true, 1}, // one namespace holds them all
	} {
		t.Run(c.name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: c.clients, Servers: 1, Shared: c.shared})
			server := w.server(0, peer.Config{CallID: peer.Counting(0)})
			var clients []*peer.Node
			for i := range c.clients {
				clients = append(clients, w.client(i, peer.Config{CallID: peer.Fixed(c.id)}))
			}
			calls := make([]*peer.Call, c.clients)
			var wg sync.WaitGroup
			for i, client := range clients {
				wg.Go(func() {
					session, err := client.Dial(w.ctx, control(server))
					if err == nil {
						calls[i], err = session.OutgoingCall(w.ctx)
					}
					if err == nil {
						err = calls[i].Echo(w.ctx, 3, 200)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			w.distinct(calls, server)
			w.matchStatus(calls, server)
			// Every call has its own way back, also when the server begins.
			for _, call := range calls {
				wg.Go(func() {
					far, err := server.FindCall(w.ctx, call.Token())
					if err == nil {
						err = far.Echo(w.ctx, 2, 200)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			// Clearing one leaves the others alone.
			w.check(calls[1].HangUp(w.ctx))
			w.status(c.clients - 1)
			for i, call := range calls {
				if i != 1 {
					w.check(call.Echo(w.ctx, 1, 100))
					if call.Ended() != "" {
						t.Errorf("%v ended with another call: %s", call, call.Ended())
					}
				}
			}
			w.finish()
		})
	}
}

// distinct fails unless the server was told another Call ID for each call, and
// never 0.
func (w *world) distinct(calls []*peer.Call, server *peer.Node) {
	w.Helper()
	told := map[uint16]bool{}
	for _, c := range calls {
		id := w.far(c, server).PeerID()
		if id == 0 || told[id] || c.PeerID() == 0 {
			w.Errorf("%v: the server was told %d (0, or told before)", c, id)
		}
		told[id] = true
	}
}

// matchStatus compares the daemon's status with what the peers know.
func (w *world) matchStatus(calls []*peer.Call, server *peer.Node) {
	w.Helper()
	listed := map[string]lab.CallStatus{}
	for _, c := range w.status(len(calls)).Calls {
		listed[fmt.Sprintf("%v/%d", c.Client.Address, c.Client.CallID)] = c
	}
	for _, c := range calls {
		far := w.far(c, server)
		client := c.Session().Local().Addr()
		got, ok := listed[fmt.Sprintf("%v/%d", client, c.ID())]
		want := lab.CallStatus{
			Client: lab.SideStatus{Address: client, CallID: c.ID(), TranslatedAddress: far.Remote(), TranslatedCallID: far.PeerID()},
			Server: lab.SideStatus{Address: server.Address(), CallID: far.ID(), TranslatedAddress: c.Remote(), TranslatedCallID: c.PeerID()},
		}
		if !ok || got.Client != want.Client || got.Server != want.Server {
			w.Errorf("status of %v is client %v, server %v; the peers say client %v, server %v", c, got.Client, got.Server, want.Client, want.Server)
		}
		if got.PacketsFromClient < 3 || got.PacketsFromServer < 3 || got.BytesFromClient == 0 || got.BytesFromServer == 0 {
			w.Errorf("status of %v counts %d and %d packets", c, got.PacketsFromClient, got.PacketsFromServer)
		}
	}
}

// Several servers that all give the same Call IDs, to clients that all have
// the same.
func TestSeveralServers(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 3, Servers: 3})
	var servers []*peer.Node
	for i := range 3 {
		servers = append(servers, w.server(i, peer.Config{CallID: peer.Counting(0)}))
	}
	var calls []*peer.Call
	for i := range 3 {
		// Own Call IDs are unique only per server: RFC 2637 section 2.7.
		client := w.client(i, peer.Config{CallID: peer.Fixed(0)})
		for _, server := range servers {
			call := w.dialAndCall(client, server)
			calls = append(calls, call)
			w.talk(call, server)
		}
	}
	w.status(9)
	for i, call := range calls {
		w.talk(call, servers[i%3])
		w.check(call.HangUp(w.ctx))
	}
	w.status(0)
	w.finish()
}

// Several calls on one control connection, cleared one by one while the others
// carry traffic of which no packet is lost.
func TestClearOneByOne(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server := w.server(0, peer.Config{CallID: peer.Counting(0)})
	var calls []*peer.Call
	for i := range 2 {
		session := w.dial(w.client(i, peer.Config{CallID: peer.Counting(10)}), server)
		for range 4 {
			calls = append(calls, w.call(session))
		}
	}
	w.distinct(calls, server)
	var traffic []*peer.Traffic
	for _, c := range calls {
		traffic = append(traffic, c.Traffic(5*time.Millisecond, 100))
	}
	for i, c := range calls {
		time.Sleep(50 * time.Millisecond) // some packets of the others
		sent, lost, err := traffic[i].Stop(w.ctx)
		w.check(err)
		if lost != 0 || sent == 0 {
			t.Errorf("%v: %d of %d packets were lost", c, lost, sent)
		}
		if i%2 == 0 {
			w.check(c.HangUp(w.ctx))
		} else {
			w.check(w.far(c, server).HangUp(w.ctx), c.WaitEnd(w.ctx))
		}
		w.status(len(calls) - i - 1)
	}
	w.finish()
}

// A client behind a strict firewall: GRE counts as established.
func TestStrictFirewall(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{})
	var calls []*peer.Call
	for i := range 2 {
		calls = append(calls, w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server))
	}
	for _, c := range calls {
		w.talk(c, server)
		w.check(w.far(c, server).Echo(w.ctx, 1, 1300))
	}
	w.check(calls[0].HangUp(w.ctx))
	w.talk(calls[1], server)
	w.finish()
}

// The server refuses, and the next call works.
func TestRefusedCall(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1})
	answers := make(chan peer.Answer, 1)
	server := w.server(0, peer.Config{Answer: func(wire.Message) peer.Answer { return <-answers }})
	session := w.dial(w.client(0, peer.Config{}), server)
	answers <- peer.Answer{Result: wire.ResultBusy}
	if _, err := session.OutgoingCall(w.ctx); err == nil {
		t.Error("a refused call came up")
	}
	w.status(0)
	answers <- peer.Answer{Result: wire.ResultConnected}
	w.talk(w.call(session), server)
	w.status(1)
	w.finish()
}

// A control connection that breaks ends its calls and nobody else's.
func TestBrokenConnection(t *testing.T) {
	for name, end := range map[string]func(*peer.Session){"FIN": (*peer.Session).Close, "RST": (*peer.Session).Abort} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			server := w.server(0, peer.Config{})
			var calls []*peer.Call
			for i := range 2 {
				calls = append(calls, w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server))
			}
			w.status(2)
			end(calls[0].Session())
			w.status(1)
			w.talk(calls[1], server)
			w.finish()
		})
	}
}
