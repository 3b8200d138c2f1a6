package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// The faults of the kernel's own PPTP helper (nf_conntrack_pptp, nf_nat_pptp).
// Each scenario is played twice by the same code: the daemon has to pass it, and
// the helper has to show the fault, or the scenario proves nothing. The second
// half needs a kernel with the helper.

// helperWait is how long the helper gets for what it never does.
const helperWait = 2 * time.Second

// judge plays a scenario with the daemon and with the helper. build makes the
// lab; play returns an error that names the fault if there is one. Nothing that
// the helper's fault may break may wait longer than wait.
func judge(t *testing.T, build func(*testing.T) *world, play func(w *world, wait time.Duration) error) {
	t.Run("daemon", func(t *testing.T) {
		w := build(t)
		w.start(quickConfig)
		if err := play(w, patience); err != nil {
			t.Error(err)
		}
		w.finish()
	})
	t.Run("kernel helper", func(t *testing.T) {
		w := build(t)
		w.kernelHelper()
		err := play(w, helperWait)
		if err == nil {
			t.Error("the kernel's helper passes: the scenario does not show its fault, or this kernel is without it")
		}
		t.Logf("the kernel's helper: %v", err)
	})
}

// kernelHelper gives the router the kernel's PPTP helper instead of the daemon.
func (w *world) kernelHelper() {
	w.Helper()
	err := w.Router.Firewall(lab.KernelHelper(peer.Port), lab.Masquerade("wan"))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		// Also under CI: that it is missing is no fault of ours.
		w.Skipf("this kernel has no PPTP helper to compare with (CONFIG_NF_CONNTRACK_PPTP, CONFIG_NF_NAT_PPTP): %v", err)
	}
	w.must(err)
}

func pairOfClients(t *testing.T) *world {
	t.Helper()
	return newWorld(t, lab.Plan{Clients: 2, Servers: 1})
}

// both makes server and client nodes for a scenario, and proves with another
// client's ordinary call that calls work at all.
func (w *world) both(wait time.Duration, server, client peer.Config) (s, c *peer.Node) {
	w.Helper()
	server.Timeout, client.Timeout = wait, wait
	s, c = w.server(0, server), w.client(0, client)
	call := w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(1000), Timeout: wait}), s)
	if err := call.Echo(w.ctx, 2, 100); err != nil {
		w.Fatalf("not even an ordinary call works: %v", err)
	}
	return s, c
}

// works says what is wrong with a call.
func (w *world) works(c *peer.Call, server *peer.Node) error {
	far, err := server.FindCall(w.ctx, c.Token())
	if err != nil {
		return err
	}
	return errors.Join(c.Echo(w.ctx, 2, 100), far.Echo(w.ctx, 2, 100))
}

// 1. Two calls on one control connection leave with one Call ID, and clearing
// one of them ends the other.
func TestFaultOneIDForTwoCalls(t *testing.T) {
	judge(t, pairOfClients, func(w *world, wait time.Duration) error {
		server, client := w.both(wait, peer.Config{CallID: peer.Counting(50)}, peer.Config{CallID: peer.Counting(10)})
		session := w.dial(client, server)
		var calls [2]*peer.Call
		var far [2]*peer.Call
		for i := range calls {
			var err error
			if calls[i], err = session.OutgoingCall(w.ctx); err != nil {
				return err
			}
			if far[i], err = server.FindCall(w.ctx, calls[i].Token()); err != nil {
				return err
			}
		}
		var err error
		if far[0].PeerID() == far[1].PeerID() {
			err = fmt.Errorf("both calls were told to the server as %d", far[0].PeerID())
		}
		err = errors.Join(err, calls[0].HangUp(w.ctx), far[0].WaitEnd(w.ctx))
		if far[1].Ended() != "" {
			err = errors.Join(err, fmt.Errorf("the other call ended too: %s", far[1].Ended()))
		}
		return errors.Join(err, w.works(calls[1], server))
	})
}

// 2. Two messages in one segment: the second goes out untranslated.
func TestFaultTwoMessagesInOneSegment(t *testing.T) {
	judge(t, pairOfClients, func(w *world, wait time.Duration) error {
		server, client := w.both(wait, peer.Config{CallID: peer.Counting(50)}, peer.Config{CallID: peer.Counting(10)})
		calls, err := w.dial(client, server).PlaceOutgoingTogether(2)
		w.must(err)
		for _, c := range calls {
			err = errors.Join(err, c.WaitUp(w.ctx))
		}
		if err != nil {
			return err
		}
		return errors.Join(w.works(calls[0], server), w.works(calls[1], server))
	})
}

// 3. A message split after 11 bytes: untranslated, and no call.
func TestFaultSplitMessage(t *testing.T) {
	judge(t, pairOfClients, func(w *world, wait time.Duration) error {
		server, client := w.both(wait, peer.Config{CallID: peer.Counting(50)}, peer.Config{CallID: peer.Counting(10)})
		session := w.dial(client, server)
		session.SetSegments(peer.Segments{Cuts: peer.CutAt(11), Pause: held})
		call, err := session.OutgoingCall(w.ctx)
		if err != nil {
			return err
		}
		return w.works(call, server)
	})
}

// 4. Call-Disconnect-Notify from the server arrives with a wrong ID, so that the
// client ignores it.
func TestFaultDisconnectNotify(t *testing.T) {
	judge(t, pairOfClients, func(w *world, wait time.Duration) error {
		server, client := w.both(wait, peer.Config{CallID: peer.Counting(50)}, peer.Config{CallID: peer.Counting(10)})
		session := w.dial(client, server)
		call := w.call(session)
		if err := errors.Join(w.works(call, server), w.far(call, server).HangUp(w.ctx)); err != nil {
			return err
		}
		m, err := session.Wait(w.ctx, func(m wire.Message) bool { return m.Type() == wire.TypeDisconnectNotify })
		if err != nil {
			return err
		}
		if got := m.(*wire.DisconnectNotify).CallID; got != call.PeerID() {
			err = fmt.Errorf("Call-Disconnect-Notify arrived with Call ID %d instead of %d", got, call.PeerID())
		}
		return errors.Join(err, call.WaitEnd(w.ctx))
	})
}

// 5. After a disconnect one of the two expectations of a call stays: what the
// router holds for a call is to go with it.
func TestFaultLeftBehind(t *testing.T) {
	judge(t, pairOfClients, func(w *world, wait time.Duration) error {
		server := w.server(0, peer.Config{CallID: peer.Counting(50), Timeout: wait})
		session := w.dial(w.client(0, peer.Config{CallID: peer.Counting(10), Timeout: wait}), server)
		call := w.call(session) // no GRE: the expectations wait
		held := func() int {
			n, err := w.Router.Expectations()
			w.must(err)
			return n + len(w.gre())
		}
		before := held()
		if before == 0 {
			w.Fatal("the router holds nothing for a call that is up")
		}
		if err := w.far(call, server).HangUp(w.ctx); err != nil {
			return err
		}
		left := 0
		for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if left = held(); left == 0 {
				return nil
			}
		}
		return fmt.Errorf("of the %d things that the router held for a call %d are left after it", before, left)
	})
}

// 6. Every GRE packet walks a list of all calls, from the oldest: the newest of
// many calls pays for all the others. The two are compared side by side, by the
// best of many short rounds, in which other load on the machine does not show: in
// a lab of namespaces the thread that sends a packet does the router's work too.
func TestFaultListOfCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("sets up hundreds of calls, to compare the cost of a packet")
	}
	const many, clients = 800, 40 // more addresses would fill the kernel's one table of neighbours
	crowd := func(t *testing.T) *world {
		t.Helper()
		return newWorld(t, lab.Plan{Clients: clients, Servers: 1, Shared: true})
	}
	judge(t, crowd, func(w *world, _ time.Duration) error {
		server := w.server(0, peer.Config{CallID: peer.Counting(1)})
		var nodes []*peer.Node
		for i := range clients {
			nodes = append(nodes, w.client(i, peer.Config{CallID: peer.Counting(uint16(1000 * i))}))
		}
		place := func(i int) *peer.Call {
			call := w.dialAndCall(nodes[i%clients], server)
			w.must(w.works(call, server))
			return w.far(call, server)
		}
		oldest := place(0)
		for i := range many - 2 {
			place(i + 1)
		}
		newest := place(many - 1)
		first, last := w.packetTime(server, oldest, newest)
		err := fmt.Errorf("a packet of the oldest call costs %v and one of the newest of %d calls %v", first, many, last)
		w.Log(err)
		if last > first*3/2 {
			return err
		}
		return nil
	})
}

// packetTime gives the least time that one GRE packet of each of two calls
// took in several rounds.
func (w *world) packetTime(server *peer.Node, a, b *peer.Call) (forA, forB time.Duration) {
	w.Helper()
	const rounds, packets = 60, 100
	round := func(far *peer.Call) time.Duration {
		// Neither a sequence number nor an acknowledgement: the client has
		// nothing to check or to answer.
		packet := wire.EncodeGRE(wire.GRE{CallID: far.PeerID()})
		before := time.Now()
		for range packets {
			w.must(server.SendGRE(far.Remote(), packet))
		}
		return time.Since(before) / packets
	}
	forA, forB = time.Hour, time.Hour
	for range rounds {
		forA, forB = min(forA, round(a)), min(forB, round(b))
	}
	return forA, forB
}

// 7. ICMP errors about a call's packets are not translated, so that path MTU
// discovery does not work for the client.
func TestFaultICMP(t *testing.T) {
	build := func(t *testing.T) *world { t.Helper(); return hops(t, true) }
	judge(t, build, func(w *world, wait time.Duration) error {
		clients := w.RawClients
		server := w.rawHost(w.RawServers[0], "far", netip.MustParseAddr("203.0.113.254"))
		p := w.connectRaw(w.rawHost(clients[0], "office", netip.MustParseAddr("10.78.0.1")), server, server.Listen(peer.Port, 1), raw.Options{})
		defer func() { _ = p.up.from.Reset() }()
		// One message a segment, or the helper does not even translate the call.
		p.deliver(&p.up, wire.Encode(&wire.OutgoingCallRequest{CallID: 5}))
		told := last[*wire.OutgoingCallRequest](p, &p.up).CallID
		p.deliver(&p.down, wire.Encode(&wire.OutgoingCallReply{CallID: 100, PeerCallID: told, Result: wire.ResultConnected}))
		serverTold := last[*wire.OutgoingCallReply](p, &p.down).CallID
		p.gre(5, told, 100, serverTold)
		got, err := w.tooBig(p.client, server.Address(), serverTold, wait)
		if want := (quoted{clients[0].Address, server.Address(), serverTold, smallMTU}); err == nil && got != want {
			err = fmt.Errorf("the client got news of %v instead of %v", got, want)
		}
		return err
	})
}

// 8. Calls announced by the PAC come out with Call IDs that do not match.
func TestFaultIncomingCalls(t *testing.T) {
	judge(t, pairOfClients, func(w *world, wait time.Duration) error {
		server, client := w.both(wait, peer.Config{CallID: peer.Counting(50)}, peer.Config{CallID: peer.Counting(10)})
		call, err := w.dial(client, server).IncomingCall(w.ctx)
		if err != nil {
			return err
		}
		return w.works(call, server)
	})
}
