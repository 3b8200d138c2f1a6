package rules

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/florianl/go-nfqueue/v2"
	"golang.org/x/sys/unix"
)

var (
	clientPort = netip.AddrPortFrom(client, 40000)
	serverPort = netip.AddrPortFrom(server, 1723)
)

// conversation is a control connection with one of everything. Bytes count up so that conntrack finds the segments in
// its window.
func conversation(c, s netip.AddrPort) []struct {
	what   string
	packet segment
	queued uint64
} {
	return []struct {
		what   string
		packet segment
		queued uint64
	}{
		{"SYN", segment{src: c, dst: s, flags: "S", seq: 100}, 0},
		{"SYN again", segment{src: c, dst: s, flags: "S", seq: 100, words: 10}, 0},
		{"SYN and ACK", segment{src: s, dst: c, flags: "SA", seq: 500, ack: 101}, 1},
		{"bare ACK", segment{src: c, dst: s, flags: "A", seq: 101, ack: 501}, 0},
		{"payload", segment{src: c, dst: s, flags: "PA", seq: 101, ack: 501, payload: strings.Repeat("x", 156)}, 1},
		{"bare ACK with TCP options", segment{src: s, dst: c, flags: "A", seq: 501, ack: 257, words: 8}, 0},
		{"one byte", segment{src: s, dst: c, flags: "A", seq: 501, ack: 257, payload: "x"}, 1},
		{"one byte with TCP options", segment{src: s, dst: c, flags: "A", seq: 502, ack: 257, payload: "x", words: 8}, 1},
		{"four bytes, as long as an option", segment{src: s, dst: c, flags: "A", seq: 503, ack: 257, payload: "xxxx"}, 1},
		{"bare ACK with all options that fit", segment{src: c, dst: s, flags: "A", seq: 257, ack: 507, words: 15}, 0},
		{"bare ACK and PSH", segment{src: c, dst: s, flags: "PA", seq: 257, ack: 507}, 0},
		{"bare ACK with IP options, not worth recognising", segment{src: c, dst: s, flags: "A", seq: 257, ack: 507, ipOptions: true}, 1},
		{"payload with IP options", segment{src: c, dst: s, flags: "A", seq: 257, ack: 507, payload: "xxxx", ipOptions: true}, 1},
		{"FIN", segment{src: c, dst: s, flags: "FA", seq: 261, ack: 507}, 1},
		{"bare ACK of the FIN", segment{src: s, dst: c, flags: "A", seq: 507, ack: 262}, 0},
		{"payload after the FIN", segment{src: s, dst: c, flags: "A", seq: 507, ack: 262, payload: "x"}, 1},
		{"RST", segment{src: s, dst: c, flags: "R", seq: 508}, 1},
	}
}

// The queue rule takes exactly the segments that matter, and with nobody listening all pass as they are: bypass.
func TestControlSegments(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}})
	counters, err := r.kernel.Counters()
	must(t, err)
	for _, s := range conversation(clientPort, serverPort) {
		from := r.inside
		if s.packet.src == serverPort {
			from = r.outer
		}
		r.passes(true, s.what, s.packet.packet(), from)
		counters = r.counts(s.what, counters, map[string]uint64{Queued: s.queued})
	}
	// A segment in the middle of a connection that conntrack does not know is picked up, and established with the answer.
	other := netip.AddrPortFrom(client, 40001)
	r.passes(true, "picked up", segment{src: other, dst: serverPort, flags: "A", seq: 1, ack: 1, payload: "x"}.packet(), r.inside)
	r.passes(true, "picked up, answer", segment{src: serverPort, dst: other, flags: "A", seq: 1, ack: 2, payload: "x"}.packet(), r.outer)
	counters = r.counts("picked up", counters, map[string]uint64{Queued: 1})
	// The same, but the server speaks first: to conntrack it is the one who dialled.
	other = netip.AddrPortFrom(client, 40002)
	r.passes(true, "picked up from the server", segment{src: serverPort, dst: other, flags: "A", seq: 1, ack: 1, payload: "x"}.packet(), r.outer)
	r.passes(true, "and the client's answer", segment{src: other, dst: serverPort, flags: "A", seq: 1, ack: 2, payload: "x"}.packet(), r.inside)
	r.passes(true, "and the server's", segment{src: serverPort, dst: other, flags: "A", seq: 2, ack: 2, payload: "x"}.packet(), r.outer)
	r.counts("picked up from the server", counters, map[string]uint64{Queued: 2})
}

func TestOtherPortsAreLeftAlone(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1724, 1725}})
	for _, port := range []uint16{1723, 1724, 1725, 80} {
		before, err := r.kernel.Counters()
		must(t, err)
		var want uint64
		for _, s := range conversation(clientPort, netip.AddrPortFrom(server, port)) {
			from := r.inside
			if s.packet.src.Addr() == server {
				from = r.outer
			}
			r.passes(true, s.what, s.packet.packet(), from)
			want += s.queued
		}
		if port != 1724 && port != 1725 {
			want = 0
		}
		r.counts(fmt.Sprint("port ", port), before, map[string]uint64{Queued: want})
	}
}

// A port forwarding that changes the port: the packets on the forward hook have 5000, the client dialled 1723.
func TestForwardedPort(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}})
	nft(t, "table ip user { chain in { type nat hook prerouting priority dstnat; ip daddr "+public.String()+" tcp dport 1723 dnat to "+client.String()+":5000; }; }", "-f", "-")
	dialler := netip.AddrPortFrom(server, 40000)
	dialled, real := netip.AddrPortFrom(public, 1723), netip.AddrPortFrom(client, 5000)
	counters, err := r.kernel.Counters()
	must(t, err)
	for _, s := range conversation(dialler, dialled) {
		from := r.outer
		if s.packet.src == dialled {
			s.packet.src, from = real, r.inside
		}
		if r.send(s.packet.packet(), from) == nil {
			t.Errorf("%s: did not pass", s.what)
		}
		counters = r.counts(s.what, counters, map[string]uint64{Queued: s.queued})
	}
}

// The daemon gets only what the user's firewall lets pass.
func TestBehindTheUsersFilter(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}})
	nft(t, "table ip filter { chain forward { type filter hook forward priority filter; tcp flags & psh == psh drop; }; }", "-f", "-")
	counters, err := r.kernel.Counters()
	must(t, err)
	for _, s := range conversation(clientPort, serverPort)[:5] {
		from := r.inside
		if s.packet.src == serverPort {
			from = r.outer
		}
		if s.what == "payload" {
			r.passes(false, s.what, s.packet.packet(), from)
			s.queued = 0
		} else {
			r.passes(true, s.what, s.packet.packet(), from)
		}
		counters = r.counts(s.what, counters, map[string]uint64{Queued: s.queued})
	}
}

// The router's own connections go through the queue as well.
func TestOwnControlConnection(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}})
	counters, err := r.kernel.Counters()
	must(t, err)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: server.As4(), Port: 1723}); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	next := func(what string) []byte {
		t.Helper()
		p := r.receive(r.outer, unix.IPPROTO_TCP, patience)
		if p == nil {
			t.Fatalf("%s did not leave", what)
		}
		return afterIP(p)
	}
	syn := next("SYN")
	counters = r.counts("SYN", counters, nil)
	own := netip.AddrPortFrom(public, binary.BigEndian.Uint16(syn))
	sent := binary.BigEndian.Uint32(syn[4:]) + 1
	r.put(segment{src: serverPort, dst: own, flags: "SA", seq: 500, ack: sent}.packet(), r.outer)
	next("ACK")
	counters = r.counts("SYN and ACK, then ACK", counters, map[string]uint64{Queued: 1})
	_, err = unix.Write(fd, []byte("request"))
	must(t, err)
	next("payload")
	counters = r.counts("payload", counters, map[string]uint64{Queued: 1})
	r.put(segment{src: serverPort, dst: own, flags: "A", seq: 501, ack: sent + 7, payload: "reply"}.packet(), r.outer)
	var b [16]byte
	if n, err := unix.Read(fd, b[:]); string(b[:max(n, 0)]) != "reply" {
		t.Errorf("read %q, %v", b[:max(n, 0)], err)
	}
	r.counts("answer", counters, map[string]uint64{Queued: 1})
}

// Somebody listens: the segments come to the configured queues, and both directions of a connection to the same one.
func TestQueues(t *testing.T) {
	const first, queues, connections = 20, 4, 32
	r := newRouter(t, Config{Queue: first, Queues: queues, Ports: []uint16{1723}})
	type arrival struct {
		queue   uint16
		payload string
	}
	arrivals := make(chan arrival, 4*connections)
	ctx, cancel := context.WithCancel(context.Background())
	var listeners []*nfqueue.Nfqueue
	defer func() {
		cancel() // first: closing waits for the listener's goroutine
		for _, l := range listeners {
			l.Close()
		}
	}()
	for q := range uint16(queues) {
		listener, err := nfqueue.Open(&nfqueue.Config{
			NfQueue: first + q, MaxPacketLen: 0xffff, MaxQueueLen: 100, Copymode: nfqueue.NfQnlCopyPacket,
		})
		must(t, err)
		listeners = append(listeners, listener)
		must(t, listener.RegisterWithErrorFunc(ctx, func(a nfqueue.Attribute) int {
			p := *a.Payload
			tcp := afterIP(p)
			arrivals <- arrival{first + q, string(tcp[int(tcp[tcpOffset]>>4)*4:])}
			_ = listener.SetVerdict(*a.PacketID, nfqueue.NfAccept)
			return 0
		}, func(error) int { return 1 }))
	}
	next := func(payload string) uint16 {
		t.Helper()
		select {
		case a := <-arrivals:
			if a.payload != payload {
				t.Fatalf("%q arrived in place of %q", a.payload, payload)
			}
			return a.queue
		case <-time.After(30 * time.Second):
			t.Fatalf("%q never came to a queue", payload)
			return 0
		}
	}
	used := map[uint16]bool{}
	for i := range connections {
		c := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 77, byte(20 + i)}), 1024)
		there, back := fmt.Sprint("there ", i), fmt.Sprint("back ", i)
		r.send(segment{src: c, dst: serverPort, flags: "S", seq: 1}.packet(), r.inside)
		r.send(segment{src: serverPort, dst: c, flags: "SA", seq: 1, ack: 2}.packet(), r.outer)
		queue := next("")
		used[queue] = true
		r.send(segment{src: c, dst: serverPort, flags: "A", seq: 2, ack: 2, payload: there}.packet(), r.inside)
		if q := next(there); q != queue {
			t.Errorf("connection %d: SYN and ACK in queue %d, payload in %d", i, queue, q)
		}
		r.send(segment{src: serverPort, dst: c, flags: "A", seq: 2, ack: uint32(2 + len(there)), payload: back}.packet(), r.outer)
		if q := next(back); q != queue {
			t.Errorf("connection %d: SYN and ACK in queue %d, the answer in %d", i, queue, q)
		}
	}
	if len(used) < 2 {
		t.Errorf("%d connections went to queues %v only", connections, used)
	}
}
