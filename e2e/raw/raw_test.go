package raw_test

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

func world(t *testing.T, p lab.Plan) (context.Context, *lab.Site) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
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
	t.Cleanup(func() { _ = s.Close() })
	return ctx, s
}

func open(t *testing.T, ctx context.Context, at lab.Station, device string, gateway netip.Addr) *raw.Host {
	t.Helper()
	h, err := raw.Open(ctx, at, device, at.Address, gateway)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range h.Faults() {
			t.Error(f)
		}
		_ = h.Close()
	})
	return h
}

// A raw client, behind masquerading, against the kernel's TCP: out of order,
// twice, overlapping, across the wrap-around of sequence numbers.
func TestAgainstKernel(t *testing.T) {
	ctx, s := world(t, lab.Plan{RawClients: 1, Servers: 1})
	server, err := peer.Start(peer.Config{Network: s.Servers[0], Address: s.Servers[0].Address})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := server.Listen(peer.Port); err != nil {
		t.Fatal(err)
	}
	h := open(t, ctx, s.RawClients[0], "lan", lab.LANRouter)
	capture, err := s.Router.Capture("lan")
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Dial(ctx, netip.AddrPortFrom(server.Address(), peer.Port), raw.Options{Sequence: 0xffffff80})
	if err != nil {
		t.Fatal(err)
	}
	start := wire.Encode(&wire.StartRequest{ProtocolVersion: wire.Version})
	zero, ones := uint16(0), uint16(0xffff)
	for _, seg := range []raw.Segment{
		{Offset: 100, Payload: start[100:]}, {Offset: 100, Payload: start[100:]}, // before its time, and twice
		{Offset: 3, Payload: start[3:60], Corrupt: true}, // must not count
		{Offset: 0, Payload: start[:10], Checksum: &zero},
		{Offset: 5, Payload: start[5:101], Checksum: &ones}, // fills the gap and overlaps on both sides
	} {
		seg.Flags = raw.PSH | raw.ACK
		if err := c.SendSegment(seg); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WaitAcked(ctx, len(start)); err != nil {
		t.Fatal(err)
	}
	reply, err := c.WaitBytes(ctx, wire.Size(wire.TypeStartReply))
	if err != nil {
		t.Fatal(err)
	}
	if m, _, err := wire.Decode(reply); err != nil || m.Type() != wire.TypeStartReply {
		t.Errorf("%v, %v", m, err)
	}
	for _, want := range []uint16{zero, ones} {
		if _, err := capture.Wait(ctx, func(p *lab.Packet) bool {
			return p.TCP != nil && !p.Out && len(p.Payload) > 0 && p.TCP.Checksum == want
		}); err != nil {
			t.Errorf("no segment with the checksum %#x: %v", want, err)
		}
	}
	session, err := server.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(session.Read(), start) {
		t.Errorf("server read %x", session.Read())
	}
	c.SetNext(len(start))
	if at, err := c.Write(ctx, wire.Encode(&wire.EchoRequest{Identifier: 9})); err != nil || at != len(start) {
		t.Errorf("%d, %v", at, err)
	}
	if err := c.Finish(); err != nil {
		t.Error(err)
	}
	if err := c.WaitEnd(ctx); err != nil {
		t.Error(err)
	}
	if f := server.Faults(); f != nil {
		t.Error(f)
	}
}

// Two raw ends: data in the SYN, GRE, a reset.
func TestRawToRaw(t *testing.T) {
	ctx, s := world(t, lab.Plan{RawClients: 1, RawServers: 1})
	client := open(t, ctx, s.RawClients[0], "lan", lab.LANRouter)
	server := open(t, ctx, s.RawServers[0], "wan", lab.WANRouter)
	listener := server.Listen(1723, 5000)
	c, err := client.Dial(ctx, netip.AddrPortFrom(server.Address(), 1723), raw.Options{Data: []byte("early")})
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if far.Remote().Addr() != lab.WANRouter {
		t.Errorf("masquerading gave %v", far.Remote())
	}
	if b, err := far.WaitBytes(ctx, 5); err != nil || string(b) != "early" {
		t.Errorf("%q, %v", b, err)
	}
	c.SetNext(5)
	if _, err := c.Write(ctx, []byte(" and late")); err != nil {
		t.Error(err)
	}
	if _, err := far.Write(ctx, []byte("answer")); err != nil {
		t.Error(err)
	}
	if b := far.Received(); string(b) != "early and late" {
		t.Errorf("%q", b)
	}
	if b := c.Received(); string(b) != "answer" {
		t.Errorf("%q", b)
	}
	if err := client.SendGRE(server.Address(), wire.GRE{CallID: 7, HasSeq: true, Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	g, err := server.WaitGRE(ctx, func(g raw.GRE) bool { return g.CallID == 7 })
	if err != nil || g.From != lab.WANRouter {
		t.Errorf("%v, %v", g, err)
	}
	if err := c.Reset(); err != nil {
		t.Error(err)
	}
	if err := far.WaitEnd(ctx); err != nil {
		t.Error(err)
	}
}
