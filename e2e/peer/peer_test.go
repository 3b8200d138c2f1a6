package peer_test

import (
	"bytes"
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

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// world is a lab without NAT in which every peer must get everything right.
func world(t *testing.T, p lab.Plan) (context.Context, *lab.Site) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	if err := lab.Check(ctx); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s, err := lab.NewSite(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			var b strings.Builder
			s.Describe(&b)
			t.Log(b.String())
		}
		_ = s.Close()
	})
	return ctx, s
}

func routed(clients, servers int) lab.Plan {
	return lab.Plan{Clients: clients, Servers: servers, Routed: true, Shared: true, Firewall: []lab.Piece{}}
}

func start(t *testing.T, at lab.Station, cfg peer.Config) *peer.Node {
	t.Helper()
	cfg.Network, cfg.Address = at, at.Address
	n, err := peer.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func noFaults(t *testing.T, nodes ...*peer.Node) {
	t.Helper()
	for _, n := range nodes {
		for _, f := range n.Faults() {
			t.Errorf("%s: %s", n.Name(), f)
		}
	}
}

func port(n *peer.Node) netip.AddrPort { return netip.AddrPortFrom(n.Address(), peer.Port) }

func TestOutgoingCalls(t *testing.T) {
	ctx, s := world(t, routed(1, 1))
	server := start(t, s.Servers[0], peer.Config{CallID: peer.Counting(0)})
	client := start(t, s.Clients[0], peer.Config{CallID: peer.Counting(65534), Keepalive: 20 * time.Millisecond})
	if err := server.Listen(peer.Port); err != nil {
		t.Fatal(err)
	}
	session, err := client.Dial(ctx, port(server))
	if err != nil {
		t.Fatal(err)
	}
	other, err := server.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var calls []*peer.Call
	for i, want := range []uint16{65534, 65535, 0, 1} {
		c, err := session.OutgoingCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if c.ID() != want || c.PeerID() != uint16(i) {
			t.Errorf("%v, want %d and %d", c, want, i)
		}
		calls = append(calls, c)
	}
	far, err := server.FindCall(ctx, calls[2].Token())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{calls[2].Echo(ctx, 5, 1000), far.Echo(ctx, 3, 10), calls[2].SetLinkInfo(), far.WANError(), calls[2].HangUp(ctx)} {
		if err != nil {
			t.Error(err)
		}
	}
	if far.Ended() == "" || far.Stats().SetLinkInfo != 1 || far.Stats().Questions != 5 || far.Stats().Answers != 3 {
		t.Errorf("server's end: %q %+v", far.Ended(), far.Stats())
	}
	if calls[2].Stats().WAN != 1 || calls[2].Stats().Gaps+calls[2].Stats().Reordered != 0 {
		t.Errorf("client's end: %+v", calls[2].Stats())
	}
	if len(session.Calls()) != 3 || len(other.Calls()) != 3 {
		t.Errorf("%d and %d calls are left", len(session.Calls()), len(other.Calls()))
	}
	farOne, err := server.FindCall(ctx, calls[1].Token())
	if err != nil {
		t.Fatal(err)
	}
	if err := farOne.HangUp(ctx); err != nil { // the PAC's way
		t.Error(err)
	}
	if err := calls[1].WaitEnd(ctx); err != nil {
		t.Error(err)
	}
	if _, err := session.Wait(ctx, func(m wire.Message) bool { return m.Type() == wire.TypeEchoReply }); err != nil {
		t.Error(err)
	}
	if err := session.Stop(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-other.Done():
	case <-ctx.Done():
		t.Error("the server's end lives on")
	}
	if err := peer.CompareStreams(session.Sent(), other.Read(), true); err != nil {
		t.Error(err)
	}
	if err := peer.CompareStreams(other.Sent(), session.Read(), true); err != nil {
		t.Error(err)
	}
	noFaults(t, client, server)
}

// The PAC announces calls, over a connection that the PNS opened and over one
// that it opened itself.
func TestIncomingCalls(t *testing.T) {
	ctx, s := world(t, routed(1, 1))
	a := start(t, s.Clients[0], peer.Config{CallID: peer.Counting(7)})
	b := start(t, s.Servers[0], peer.Config{CallID: peer.Counting(7)})
	if err := b.Listen(peer.Port); err != nil {
		t.Fatal(err)
	}
	opened, err := a.Dial(ctx, port(b))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := b.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, pac := range []*peer.Session{opened, accepted} {
		c, err := pac.IncomingCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Echo(ctx, 3, 100); err != nil {
			t.Error(err)
		}
		pns := b
		if pac == accepted {
			pns = a
		}
		far, err := pns.FindCall(ctx, c.Token())
		if err != nil {
			t.Fatal(err)
		}
		if err := far.HangUp(ctx); err != nil {
			t.Error(err)
		}
		if err := c.WaitEnd(ctx); err != nil {
			t.Error(err)
		}
	}
	noFaults(t, a, b)
}

func TestRefusedAndUnanswered(t *testing.T) {
	ctx, s := world(t, routed(1, 1))
	answers := make(chan peer.Answer, 2)
	server := start(t, s.Servers[0], peer.Config{Answer: func(wire.Message) peer.Answer { return <-answers }})
	client := start(t, s.Clients[0], peer.Config{Timeout: 200 * time.Millisecond})
	if err := server.Listen(peer.Port); err != nil {
		t.Fatal(err)
	}
	session, err := client.Dial(ctx, port(server))
	if err != nil {
		t.Fatal(err)
	}
	answers <- peer.Answer{Result: wire.ResultBusy, ErrorCode: 9}
	var refused *peer.RefusedError
	if _, err := session.OutgoingCall(ctx); !errors.As(err, &refused) || *refused != (peer.RefusedError{Result: wire.ResultBusy, ErrorCode: 9}) {
		t.Errorf("%v", err)
	}
	answers <- peer.Answer{Silent: true}
	if _, err := session.OutgoingCall(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	noFaults(t, client, server)
}

// Every way of cutting must arrive as what was sent.
func TestSegments(t *testing.T) {
	ctx, s := world(t, routed(1, 1))
	capture, err := s.Router.CaptureIf(func(p *lab.Packet) bool { return p.TCP != nil && len(p.Payload) > 0 }, "lan")
	if err != nil {
		t.Fatal(err)
	}
	server := start(t, s.Servers[0], peer.Config{})
	client := start(t, s.Clients[0], peer.Config{Segments: peer.Segments{Cuts: peer.CutEvery(100), Pause: time.Second}})
	if err := server.Listen(peer.Port); err != nil {
		t.Fatal(err)
	}
	session, err := client.Dial(ctx, port(server))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{100, 56} {
		if _, err := capture.Wait(ctx, func(p *lab.Packet) bool { return !p.Out && len(p.Payload) == size }); err != nil {
			t.Errorf("a start request of 156 bytes came without a segment of %d: %v", size, err)
		}
	}
	if in := capture.Find(func(p *lab.Packet) bool { return !p.Out && len(p.Payload) != 100 && len(p.Payload) != 56 }); len(in) != 0 {
		t.Errorf("besides it came as %v", in)
	}
	session.SetSegments(peer.Segments{Cuts: peer.CutEvery(1)})
	if _, err := session.OutgoingCall(ctx); err != nil {
		t.Error(err)
	}
	session.SetSegments(peer.Segments{})
	calls, err := session.PlaceOutgoingTogether(2)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		if err := c.WaitUp(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, err := capture.Wait(ctx, func(p *lab.Packet) bool { return !p.Out && len(p.Control) == 2 }); err != nil {
		t.Errorf("two messages in one segment: %v", err)
	}
	noFaults(t, client, server)
}

// The peers must notice what a bad translator does. Without these every other
// test could pass for the wrong reason.
func TestFaultsAreSeen(t *testing.T) {
	ctx, s := world(t, routed(2, 1))
	server := start(t, s.Servers[0], peer.Config{})
	one := start(t, s.Clients[0], peer.Config{})
	two := start(t, s.Clients[1], peer.Config{})
	if err := server.Listen(peer.Port); err != nil {
		t.Fatal(err)
	}
	var calls []*peer.Call
	for _, n := range []*peer.Node{one, two} {
		session, err := n.Dial(ctx, port(server))
		if err != nil {
			t.Fatal(err)
		}
		c, err := session.OutgoingCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	expect := func(n *peer.Node, want string) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			for _, f := range n.Faults() {
				if strings.Contains(f, want) {
					return
				}
			}
		}
		t.Errorf("%s did not notice %q: %q", n.Name(), want, n.Faults())
	}
	payload := func(id uint16, p []byte) []byte {
		return wire.EncodeGRE(wire.GRE{CallID: id, HasSeq: true, Payload: p})
	}
	capture, err := s.Router.CaptureIf(func(p *lab.Packet) bool { return p.GRE != nil && len(p.GRE.Payload) > 0 && !p.Out }, "lan")
	if err != nil {
		t.Fatal(err)
	}
	if err := calls[0].Echo(ctx, 1, 100); err != nil {
		t.Fatal(err)
	}
	p, err := capture.Wait(ctx, func(*lab.Packet) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	good := p.GRE.Payload
	bad := append([]byte(nil), good...)
	bad[99] ^= 1
	for want, packet := range map[string][]byte{
		"nobody's here":           payload(4711, good),
		"payload of another call": payload(calls[1].PeerID(), good),
		"byte 99 of 100":          payload(calls[1].PeerID(), bad),
		"never sent":              wire.EncodeGRE(wire.GRE{CallID: calls[1].PeerID(), HasAck: true, Ack: 1000}),
		"flags":                   append([]byte{0xb0, 0x81}, payload(1, good)[2:]...),
	} {
		if err := two.SendGRE(server.Address(), packet); err != nil {
			t.Fatal(err)
		}
		expect(server, want)
	}
	if err := one.SendGRE(server.Address(), peer.PlainGRE(0x0800, good)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); server.OtherGRE() != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("ordinary GRE did not arrive")
		}
	}
	if err := calls[1].Session().Send(&wire.SetLinkInfo{PeerCallID: 999}); err != nil {
		t.Fatal(err)
	}
	expect(server, "SLI peer 999 is about no call")
	if err := calls[1].Session().SendBytes(bytes.Repeat([]byte{1}, 20)); err != nil {
		t.Fatal(err)
	}
	expect(server, "magic cookie")
	noFaults(t, one)
}

func TestCompareStreams(t *testing.T) {
	a := wire.Encode(&wire.OutgoingCallReply{CallID: 1, PeerCallID: 2, Result: 1, Cause: 3})
	b := wire.Encode(&wire.OutgoingCallReply{CallID: 9, PeerCallID: 8, Result: 1, Cause: 3})
	if err := peer.CompareStreams(a, b, false); err != nil {
		t.Error(err)
	}
	if peer.CompareStreams(a, b, true) == nil {
		t.Error("Call IDs differ")
	}
	b[20] ^= 1
	if peer.CompareStreams(a, b, false) == nil || peer.CompareStreams(a, a[:31], false) == nil {
		t.Error("a changed byte and a missing byte went unnoticed")
	}
}

// Hundreds of connections in one process; nothing of them stays.
func TestManyAndNoLeak(t *testing.T) {
	ctx, s := world(t, routed(200, 1))
	before := runtime.NumGoroutine()
	server := start(t, s.Servers[0], peer.Config{CallID: peer.Counting(0)})
	if err := server.Listen(peer.Port); err != nil {
		t.Fatal(err)
	}
	nodes := []*peer.Node{server}
	for i, at := range s.Clients {
		nodes = append(nodes, start(t, at, peer.Config{Name: fmt.Sprintf("client %d", i), CallID: peer.Fixed(0)}))
	}
	var wg sync.WaitGroup
	for _, n := range nodes[1:] {
		wg.Add(1)
		go func() {
			defer wg.Done()
			session, err := n.Dial(ctx, port(server))
			if err != nil {
				t.Error(err)
				return
			}
			c, err := session.OutgoingCall(ctx)
			if err == nil {
				err = c.Echo(ctx, 3, 200)
			}
			if err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if n := len(server.Calls()); n != 200 {
		t.Errorf("%d calls at the server", n)
	}
	noFaults(t, nodes...)
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
	}
}
