package conntrack

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// receive returns the events until there are n, or none comes for a while.
func receive(t *testing.T, e *Events, n int) []Event {
	t.Helper()
	var list []Event
	for len(list) < n {
		if err := e.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := e.Receive()
		if err != nil {
			t.Fatalf("after %d of %d events: %v", len(list), n, err)
		}
		list = append(list, got...)
	}
	return list
}

// silent fails the test if an event comes.
func silent(t *testing.T, e *Events) {
	t.Helper()
	if err := e.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if got, err := e.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("event %v, %v; want silence", got, err)
	}
}

func TestEventsOfOurEntries(t *testing.T) {
	l := newLab(t)
	l.router.must(func() error { return SetAccounting(true) })
	e := l.router.listen(1723)
	toClient, toServer := masquerade(5, 777, 9, 888)
	create(t, l.ct, toClient, toServer)
	l.atServer.send(publicAddr, 777, "0123456789")
	l.atClient.expect(toClient.Leaves, "0123456789")

	// Deleted by ourselves.
	if err := l.ct.Delete(toClient); err != nil {
		t.Fatal(err)
	}
	ev := receive(t, e, 1)[0]
	s, ok := ev.Stored()
	if !ok || !s.Equal(toClient) || !ev.By(l.ct) || ev.PortID != l.ct.PortID() {
		t.Errorf("event %v by %d, want %v by %d", ev, ev.PortID, toClient, l.ct.PortID())
	}
	if want := (Counters{1, 42}); s.Counters != want {
		t.Errorf("last counters %v, want %v", s.Counters, want)
	}

	// Replaced: the old one ends.
	if err := l.ct.Replace(toServer); err != nil {
		t.Fatal(err)
	}
	ev = receive(t, e, 1)[0]
	if s, ok := ev.Stored(); !ok || !s.Equal(toServer) || !ev.By(l.ct) {
		t.Errorf("event %v by %d, want %v by %d", ev, ev.PortID, toServer, l.ct.PortID())
	}

	// Deleted by somebody else.
	other := l.router.client()
	if err := other.Delete(toServer); err != nil {
		t.Fatal(err)
	}
	ev = receive(t, e, 1)[0]
	if s, ok := ev.Stored(); !ok || !s.Equal(toServer) || ev.By(l.ct) || !ev.By(other) {
		t.Errorf("event %v by %d, want %v by %d", ev, ev.PortID, toServer, other.PortID())
	}
	silent(t, e)

	// One's own deletions can be left out.
	if err := e.Ignore(l.ct); err != nil {
		t.Fatal(err)
	}
	for _, by := range []*Client{l.ct, other} {
		if err := errors.Join(l.ct.Create(toServer), by.Delete(toServer)); err != nil {
			t.Fatal(err)
		}
	}
	if ev = receive(t, e, 1)[0]; !ev.By(other) {
		t.Errorf("an event by %d, want by %d only", ev.PortID, other.PortID())
	}
	silent(t, e)
}

// The filter is the kernel's: what it holds back does not come out of the socket either.
func TestEventFilter(t *testing.T) {
	n, c := table(t)
	e := n.listen(1723, 4711)
	end := func(protocol uint8, original, reply string, status Status) Flow {
		t.Helper()
		o, r := parseTuple(t, original), parseTuple(t, reply)
		f := foreign(t, c, protocol, o, r, Zone{}, status)
		if err := c.DeleteFlow(f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	const other = "10.0.0.1:1111 10.0.0.2:2222"
	for _, k := range []struct {
		name            string
		protocol        uint8
		original, reply string
		status          Status
		want            bool
	}{
		{"TCP, other ports", protocolTCP, other, "10.0.0.2:2222 10.0.0.1:1111", 0, false},
		{"TCP to the port", protocolTCP, "10.0.0.1:1111 10.0.0.2:1723", "10.0.0.2:1723 10.0.0.1:1111", 0, true},
		{"TCP to the second port", protocolTCP, "10.0.0.1:1111 10.0.0.2:4711", "10.0.0.2:4711 10.0.0.1:1111", 0, true},
		{"TCP from the port", protocolTCP, "10.0.0.1:1723 10.0.0.2:2222", "10.0.0.2:2222 10.0.0.1:1723", 0, true},
		{"TCP forwarded to the port", protocolTCP, other, "10.0.0.3:1723 10.0.0.1:1111", 0, true},
		{"TCP, source translated to the port", protocolTCP, other, "10.0.0.2:2222 10.0.0.9:1723", 0, true},
		{"TCP, the port's bytes exchanged", protocolTCP, "10.0.0.1:1111 10.0.0.2:47878", "10.0.0.2:47878 10.0.0.1:1111", 0, false},
		{"UDP to the port", unix.IPPROTO_UDP, "10.0.0.1:1111 10.0.0.2:1723", "10.0.0.2:1723 10.0.0.1:1111", 0, false},
		{"ordinary GRE", protocolGRE, "10.0.0.1:0 10.0.0.2:1723", "10.0.0.2:1723 10.0.0.1:0", StatusSeenReply | StatusAssured, false},
		{"our GRE", protocolGRE, "10.0.0.1:0 10.0.0.2:77", "10.0.0.2:77 10.0.0.1:0", StatusOurs, true},
	} {
		want := end(k.protocol, k.original, k.reply, k.status)
		if k.want {
			got := receive(t, e, 1)[0]
			if got.Original != want.Original || got.Protocol != want.Protocol || got.ID != want.ID || got.Status&StatusDying == 0 {
				t.Errorf("%s: event %v, want %v", k.name, got, want)
			}
		}
	}
	silent(t, e) // nothing of what was not wanted has come

	// IPv6 is not our business, not even to the port.
	addresses := func(src, dst byte) []byte {
		a := append([]byte{0x20, 0x01, 0x0d, 0xb8}, make([]byte, 12)...)
		b := bytes.Clone(a)
		a[15], b[15] = src, dst
		return nla(ctaTupleIP|nested, nla(ctaIPv6Src, a), nla(ctaIPv6Dst, b))
	}
	ports := func(src, dst uint16) []byte {
		return nla(ctaTupleProto|nested, nla(ctaProtoNum, []byte{protocolTCP}),
			nla(ctaProtoSrcPort, []byte{byte(src >> 8), byte(src)}), nla(ctaProtoDstPort, []byte{byte(dst >> 8), byte(dst)}))
	}
	original := append([]byte{10 /* AF_INET6 */, 0, 0, 0}, nla(ctaTupleOrig|nested, addresses(1, 2), ports(1111, 1723))...)
	entry := append(bytes.Clone(original), bytes.Join([][]byte{
		nla(ctaTupleReply|nested, addresses(2, 1), ports(1723, 1111)),
		nla(ctaTimeout, []byte{0, 0, 0, 99}), nla(ctaStatus, []byte{0, 0, 0, 8}),
		nla(ctaProtoinfo|nested, nla(ctaProtoinfoTCP|nested, nla(ctaProtoinfoTCPState, []byte{3})))}, nil)...)
	answers, err := c.transact(request(msgNew, netlink.Acknowledge|netlink.Create, entry), request(msgDelete, netlink.Acknowledge, original))
	if err != nil || answers[0].err != nil || answers[1].err != nil {
		t.Fatal(err, answers)
	}
	silent(t, e)
}

func parseTuple(t *testing.T, s string) Tuple {
	t.Helper()
	for i := range s {
		if s[i] == ' ' {
			return tuple4(s[:i], s[i+1:])
		}
	}
	t.Fatalf("tuple %q", s)
	return Tuple{}
}

// A control connection, closed by its ends: nobody asked for the end of its entry.
func TestEventsOfRealConnections(t *testing.T) {
	l := newLab(t)
	e := l.router.listen(1723)
	l.router.must(func() error { // the last state of TCP lasts two minutes otherwise
		for _, state := range []string{"close", "time_wait", "last_ack"} {
			if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_"+state, []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	src, dst, c, s := control(t, l.client, l.server, serverAddr+":1723", serverAddr+":1723")
	conn, err := l.ct.Lookup(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	c.Close()
	// The kernel looks for what has expired once in a while only, unless it comes across it.
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := l.ct.Lookup(src, dst); errors.Is(err, ErrNotFound) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the connection's entry does not expire")
		}
		time.Sleep(100 * time.Millisecond)
	}
	ev := receive(t, e, 1)[0]
	got, ok := ev.Connection()
	if !ok || got.Original != conn.Original || got.Reply != conn.Reply || ev.PortID != 0 {
		t.Errorf("event %v by %d, want %v by nobody", ev, ev.PortID, conn)
	}
}

func TestEventsWithoutPorts(t *testing.T) {
	n, c := table(t)
	e := n.listen()
	f := foreign(t, c, protocolTCP, tuple4("10.0.0.1:1", "10.0.0.2:0"), tuple4("10.0.0.2:0", "10.0.0.1:1"), Zone{}, 0)
	if err := c.DeleteFlow(f); err != nil {
		t.Fatal(err)
	}
	silent(t, e)
	var err error
	n.must(func() error { _, err = Listen(make([]uint16, MaxPorts)); return err })
	n.must(func() error { _, err = Listen(make([]uint16, MaxPorts+1)); return nil })
	if err == nil {
		t.Error("Listen for too many ports: no error")
	}
}

func TestEventOverflow(t *testing.T) {
	n, c := table(t)
	e := n.listen(1723)
	if err := e.SetReadBuffer(1); err != nil { // the kernel makes the least it can of it
		t.Fatal(err)
	}
	for i := uint16(1); i <= 200; i++ {
		toClient, _ := masquerade(i, i, i, i)
		create(t, c, toClient)
		if err := c.Delete(toClient); err != nil {
			t.Fatal(err)
		}
	}
	overflow := false
	for i := 0; i < 300 && !overflow; i++ {
		if err := e.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := e.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		overflow = errors.Is(err, ErrOverflow)
	}
	if !overflow {
		t.Fatal("200 events in a buffer for one, and no ErrOverflow")
	}
	// It goes on after that.
	for {
		if err := e.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Receive(); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	toClient, _ := masquerade(5, 777, 9, 888)
	create(t, c, toClient)
	if err := c.Delete(toClient); err != nil {
		t.Fatal(err)
	}
	if s, ok := receive(t, e, 1)[0].Stored(); !ok || !s.Equal(toClient) {
		t.Errorf("event after the overflow: %v", s)
	}
}

func TestCloseEndsReceive(t *testing.T) {
	e := newNamespace(t).listen(1723)
	done := make(chan error)
	go func() {
		_, err := e.Receive()
		done <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("Receive after Close: %v, want os.ErrClosed", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Receive still waits after Close")
	}
}

// A socket may be opened in another namespace than the thread's.
func TestInNamespace(t *testing.T) {
	n := newNamespace(t)
	c, err := Dial(InNamespace(n.fd))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e, err := Listen([]uint16{1723}, InNamespace(n.fd))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	toClient, _ := masquerade(5, 777, 9, 888)
	create(t, c, toClient)
	if s, err := n.client().Get(toClient); err != nil || !s.Equal(toClient) {
		t.Errorf("Get from inside: %v, %v", s, err)
	}
	if err := c.Delete(toClient); err != nil {
		t.Fatal(err)
	}
	if ev := receive(t, e, 1)[0]; ev.Original.Dst != netip.AddrPortFrom(addr(publicAddr), 777) {
		t.Errorf("event %v", ev)
	}
}
