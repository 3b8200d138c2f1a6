package rules

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/florianl/go-nfqueue/v2"
	"golang.org/x/sys/unix"
)

// dropping takes a queue as the daemon does, and drops what has no conntrack entry.
func dropping(t *testing.T, queue uint16) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	q, err := nfqueue.Open(&nfqueue.Config{NfQueue: queue, MaxPacketLen: 0xffff, MaxQueueLen: 100, Copymode: nfqueue.NfQnlCopyPacket})
	must(t, err)
	must(t, q.RegisterWithErrorFunc(ctx, func(a nfqueue.Attribute) int {
		verdict := nfqueue.NfAccept
		if *a.Hook == unix.NF_INET_PRE_ROUTING {
			verdict = nfqueue.NfDrop
		}
		_ = q.SetVerdict(*a.PacketID, verdict)
		return 0
	}, func(error) int { return 1 }))
	return func() {
		cancel() // first: closing waits for the listener's goroutine
		q.Close()
	}
}

// reset puts a segment on the wire and checks whether the router answers it with a reset.
func (r *router) reset(what string, s segment, from *os.File, want bool) {
	r.Helper()
	wait := patience
	if !want {
		wait = glance
	}
	r.put(s.packet(), from)
	p := r.receive(from, unix.IPPROTO_TCP, wait)
	if got := p != nil && afterIP(p)[tcpBits]&flagRST != 0; got != want {
		r.Errorf("%s: reset by the router: %v", what, got)
	}
}

// The entry of a control connection is gone: what its ends say meets neither a reset nor a translation of its own, as long as
// somebody listens who will put the entry back.
func TestStrays(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}})
	nft(t, "table ip user { chain out { type nat hook postrouting priority srcnat; oifname outside masquerade; }; }", "-f", "-")
	publicPort := netip.AddrPortFrom(public, clientPort.Port())
	out := segment{src: clientPort, dst: serverPort, flags: "PA", seq: 101, ack: 501, payload: "x"}
	in := segment{src: serverPort, dst: publicPort, flags: "PA", seq: 501, ack: 101, payload: "x"}
	fin := in
	fin.flags = "FA"
	counters, err := r.kernel.Counters()
	must(t, err)
	strayed := func(what string, strays uint64) {
		t.Helper()
		now, err := r.kernel.Counters()
		must(t, err)
		if n := now[Stray].Packets - counters[Stray].Packets; n != strays {
			t.Errorf("%s: %d strays counted instead of %d", what, n, strays)
		}
		counters = now
	}
	is := func(what string, s segment, want bool, strays uint64) {
		t.Helper()
		r.reset(what, s, r.outer, want)
		strayed(what, strays)
	}
	is("nobody's", in, true, 0)
	is("nobody's end", fin, true, 0)
	// Conntrack has picked this one up, and has seen no answer yet: to it every segment is "new".
	picked := segment{src: netip.AddrPortFrom(client, 40007), dst: serverPort, flags: "PA", seq: 101, ack: 501, payload: "x"}
	if r.send(picked.packet(), r.inside) == nil {
		t.Fatal("a segment of nobody's connection did not pass")
	}
	must(t, r.kernel.AddFlows(Flow{clientPort, serverPort}, Flow{serverPort, publicPort}, Flow{picked.src, serverPort}))
	if r.send(picked.packet(), r.inside) == nil {
		t.Error("a known connection's segment that has an entry did not pass")
	}
	strayed("picked up before, and known", 0)
	is("nobody listens", in, true, 1)

	defer dropping(t, 1723)()
	is("known", in, false, 1)
	is("again", in, false, 1)
	is("known, its end", fin, false, 1) // to conntrack this is invalid
	bare := in
	bare.payload = ""
	is("known, bare acknowledgement", bare, false, 1)
	for what, other := range map[string]segment{
		"another port":   {src: serverPort, dst: netip.AddrPortFrom(public, 40001), flags: "A", seq: 1, ack: 1},
		"another source": {src: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.3"), 1723), dst: publicPort, flags: "A", seq: 1, ack: 1},
		"a SYN":          {src: serverPort, dst: publicPort, flags: "S", seq: 1},
	} {
		is(what, other, true, 0)
	}
	r.passes(false, "the client's", out.packet(), r.inside)
	strayed("the client's", 1)
	if table, err := os.ReadFile("/proc/net/nf_conntrack"); err == nil && strings.Contains(string(table), " sport=40000 ") {
		t.Errorf("it has begun an entry:\n%s", table)
	}

	// The connection as a whole, with its entry.
	for _, s := range conversation(clientPort, serverPort)[:7] {
		from := r.inside
		if s.packet.src == serverPort {
			s.packet.dst, from = publicPort, r.outer
		}
		if r.send(s.packet.packet(), from) == nil {
			t.Errorf("%s: did not pass", s.what)
		}
		strayed(s.what, 0)
	}
	outside := in
	outside.seq += 1 << 30 // outside the window: conntrack translates no such segment
	is("does not fit the entry", outside, false, 1)

	must(t, r.kernel.DeleteFlows(Flow{serverPort, publicPort}, Flow{serverPort, publicPort}, Flow{serverPort, clientPort}))
	is("no longer known", outside, true, 0)
}

// The set has the flows as they arrive. A user's DNAT changes the destination before the set is asked.
func TestStraysArriveSo(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}})
	nft(t, fmt.Sprintf("table ip user { chain in { type nat hook prerouting priority dstnat; ip daddr %v tcp dport 1723 dnat to %v:4711; }; }", public, client), "-f", "-")
	dialler := netip.AddrPortFrom(server, 40000)
	dialled := netip.AddrPortFrom(public, 1723)
	packet := segment{src: dialler, dst: dialled, flags: "PA", seq: 101, ack: 501, payload: "x"}
	defer dropping(t, 1723)()
	must(t, r.kernel.AddFlows(Flow{dialler, dialled}))
	counters, err := r.kernel.Counters()
	must(t, err)
	r.passes(false, "known", packet.packet(), r.outer)
	counters = r.counts("known", counters, map[string]uint64{Stray: 1})
	packet.src = netip.AddrPortFrom(server, 40001)
	if r.send(packet.packet(), r.outer) == nil {
		t.Error("another connection did not pass")
	}
	r.counts("another", counters, nil)
}

func TestFlows(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	flow := func(i int) Flow {
		return Flow{netip.AddrPortFrom(numbered(i).Src, uint16(i)), netip.AddrPortFrom(public, 1723)}
	}
	same := func(want ...Flow) {
		t.Helper()
		got, err := k.Flows()
		must(t, err)
		missing, err := k.MissingFlows(want)
		must(t, err)
		if len(got) != len(want) || len(missing) > 0 {
			t.Errorf("%d flows instead of %d, %v missing", len(got), len(want), missing)
		}
	}
	r := installable(t, k, Config{Queue: 1, Ports: []uint16{1723}})
	if _, err := k.Flows(); err == nil {
		t.Error("flows without a table")
	}
	if err := k.AddFlows(flow(1)); err == nil {
		t.Error("added without a table")
	}
	must(t, k.DeleteFlows(flow(1)))
	must(t, k.ApplyWith(r, Elements{Calls: []Call{numbered(1)}, Flows: []Flow{flow(1), flow(2)}}))
	same(flow(1), flow(2))
	must(t, k.ApplyWith(r, Elements{Flows: []Flow{flow(2), flow(3)}}))
	same(flow(1), flow(2), flow(3))
	if missing, err := k.MissingFlows([]Flow{flow(1), flow(7)}); err != nil || !slices.Equal(missing, []Flow{flow(7)}) {
		t.Errorf("missing %v, %v", missing, err)
	}
	must(t, k.ApplyWith(installable(t, k, Config{Queue: 2, Ports: []uint16{1723}}), Elements{Flows: []Flow{flow(4)}}))
	same(flow(1), flow(2), flow(3), flow(4)) // of a table that is replaced they stay
	sameCalls(t, k, numbered(1))
	must(t, k.DeleteFlows(flow(4), flow(2), flow(2), flow(9)))
	same(flow(1), flow(3))
	if err := k.AddFlows(Flow{}); err == nil || !strings.Contains(err.Error(), "IPv4") {
		t.Errorf("no addresses: %v", err)
	}
	if out := nft(t, "", "list", "set", "ip", TableName, ConnectionsSet); !strings.Contains(out, flow(3).String()) {
		t.Errorf("nft lists the set as\n%s", out)
	}
	// Older versions had no such set, and another layout is of no use.
	nft(t, "delete table ip pptp-alg; table ip pptp-alg { set connections { type ipv4_addr; elements = { 1.2.3.4 }; }; }", "-f", "-")
	if _, err := k.Flows(); err == nil {
		t.Error("elements of another layout were taken for flows")
	}
	must(t, k.ApplyWith(r, Elements{Flows: []Flow{flow(5)}}))
	same(flow(5))
}
