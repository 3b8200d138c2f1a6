package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/google/gopacket/layers"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// What hosts outside can forge: they know everything but the sequence numbers.

// Segments of a control connection that are outside its window, from its own
// addresses: conntrack calls them invalid, the daemon does not see them, and the
// call stays up. The raw server forges them itself, which is as good as anybody
// who can send with its address.
func TestForgedSegmentsOutsideTheWindow(t *testing.T) {
	p := rawWorld(t, raw.Options{})
	told, serverTold := p.call(5, 900)
	before := p.daemonStatus()
	far := 1 << 28
	for i := range 20 {
		at := far + i*(1<<20)
		for _, s := range []raw.Segment{
			{Offset: at, Flags: raw.RST},
			{Offset: at, Flags: raw.RST | raw.ACK, Ack: at},
			{Offset: at, Flags: raw.FIN | raw.ACK, Ack: at},
			{Offset: at, Flags: raw.PSH | raw.ACK, Ack: at, Payload: wire.Encode(&wire.DisconnectNotify{CallID: 900, Result: wire.DisconnectRequest})},
			{Offset: at, Flags: raw.PSH | raw.ACK, Ack: at, Payload: wire.Encode(&wire.StopRequest{Reason: 1})},
		} {
			p.must(p.down.from.SendSegment(s), p.up.from.SendSegment(s))
		}
	}
	p.gre(5, told, 900, serverTold)
	after := p.status(2) // and that of the other client
	if a, b := after.Counter("messages"), before.Counter("messages"); a != b {
		t.Errorf("the daemon read %d messages outside the window", a-b)
	}
	// The connection itself is as it was.
	p.deliver(&p.up, wire.Encode(&wire.EchoRequest{Identifier: 9}))
	p.deliver(&p.down, wire.Encode(&wire.EchoReply{Identifier: 9, Result: wire.EchoOK}))
	p.consistent("after the forgeries")
}

// ICMP errors about GRE that nobody sent, with the right addresses but another
// Call ID, and with a call's Call ID about packets of somebody else: nothing
// arrives inside, and calls stay up.
func TestForgedICMP(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, RawServers: 1, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(0, peer.Config{CallID: peer.Fixed(77)}), server)
	far := w.far(call, server)
	w.talk(call, server)
	stranger := w.rawHost(w.RawServers[0], "wan", lab.WANRouter)
	inside, err := w.Clients[0].CaptureIf(func(p *lab.Packet) bool { return !p.Out && p.ICMP != nil }, "lan")
	w.must(err)
	quote := func(src, dst [4]byte, id uint16) []byte {
		gre := wire.EncodeGRE(wire.GRE{CallID: id, HasSeq: true, Payload: make([]byte, 100)})
		ip := []byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 47, 0, 0}
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(gre)))
		ip = append(append(ip, src[:]...), dst[:]...)
		binary.BigEndian.PutUint16(ip[10:], ^sum16(ip))
		return append(ip, gre[:8]...)
	}
	router, srv, strange := lab.WANRouter.As4(), server.Address().As4(), stranger.Address().As4()
	for _, about := range [][]byte{
		quote(router, srv, far.ID()+1),                   // no such call
		quote(router, strange, far.ID()),                 // the call's ID, to somebody else
		quote(strange, srv, far.ID()),                    // from somebody else
		quote(w.Clients[0].Address.As4(), srv, far.ID()), // with the inside address
		quote(srv, router, far.PeerID()+1),
		{0x45, 0, 0, 20}, nil, bytes.Repeat([]byte{0x45}, 28),
	} {
		for _, kind := range []uint16{0x0300, 0x0301, 0x0302, 0x0304, 0x0b00, 0x0500, 0x0c00} {
			icmp := binary.BigEndian.AppendUint16(nil, kind)
			icmp = append(icmp, 0, 0, 0, 0, 0x02, 0x40) // checksum, and an MTU of 576
			icmp = append(icmp, about...)
			binary.BigEndian.PutUint16(icmp[2:], ^sum16(icmp))
			w.must(stranger.SendIP(lab.WANRouter, layers.IPProtocolICMPv4, icmp))
		}
	}
	w.talk(call, server)
	if list := inside.Packets(); len(list) > 0 {
		t.Errorf("%d ICMP messages arrived inside, first %v", len(list), list[0])
	}
	w.status(1)
	w.check(call.HangUp(w.ctx))
	w.noFaults()
	w.stop()
}

// sum16 adds up b as RFC 1071 has it.
func sum16(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// Enhanced GRE for Call IDs all over the range, from a host that has no call:
// nothing arrives inside. The entries of the call let in what comes from its server
// and nothing else, and whatever the kernel makes of the stranger's packets does not
// get in the call's way.
func TestForgedGREOfManyCallIDs(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1, RawServers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{})
	stranger := w.rawHost(w.RawServers[0], "wan", lab.WANRouter)
	client := w.client(0, peer.Config{CallID: peer.Counting(77)})
	call := w.dialAndCall(client, server)
	inside, err := w.Clients[0].CaptureIf(func(p *lab.Packet) bool { return !p.Out && p.Protocol == 47 }, "lan")
	w.must(err)
	const step = 31
	for id := 0; id <= 0xffff; id += step {
		w.must(stranger.SendGRE(lab.WANRouter, wire.GRE{CallID: uint16(id), HasSeq: true, Payload: []byte("forged")}))
	}
	w.must(stranger.SendGRE(lab.WANRouter, wire.GRE{CallID: w.far(call, server).PeerID(), HasSeq: true, Payload: []byte("forged")}))
	w.talk(call, server)
	for _, p := range inside.Packets() {
		if p.Src != server.Address() {
			t.Fatalf("%v came in", p)
		}
	}
	// A call that begins afterwards.
	w.talk(w.dialAndCall(client, server), server)
	w.noFaults()
	w.stop()
}

// The queue is another program's: the daemon says whose, and changes nothing. While
// the daemon has it, nobody can take it away.
func TestQueueTaken(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 1})
	const number = 1723
	take := func() (release func(), err error) {
		var q *nfqueue.Nfqueue
		err = w.Router.Do(func() (err error) {
			q, err = nfqueue.Open(&nfqueue.Config{NfQueue: number, MaxPacketLen: 0xffff, MaxQueueLen: 10, Copymode: nfqueue.NfQnlCopyPacket, AfFamily: 2})
			return err
		})
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(w.ctx)
		release = sync.OnceFunc(func() { cancel(); _ = q.Close() })
		t.Cleanup(release)
		return release, q.RegisterWithErrorFunc(ctx, func(nfqueue.Attribute) int { return 0 }, func(error) int { return 1 })
	}
	release, err := take()
	w.must(err)
	refused, err := w.Router.StartDaemon(lab.DaemonOptions{Program: program(t)})
	w.must(err)
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	code, err := refused.ExitCode(ctx)
	if err != nil || code != exitFailure || !strings.Contains(refused.Log(), fmt.Sprintf("queue 1723 is taken by process %d,", os.Getpid())) ||
		!strings.Contains(refused.Log(), "--queue") {
		t.Errorf("beside another program's queue the daemon ended with %d, %v, saying %q", code, err, refused.Log())
	}
	if s := w.structure(); s != w.before {
		t.Errorf("the refused daemon changed the rules to\n%s", s)
	}
	release()
	w.start(quickConfig)
	if _, err := take(); err == nil {
		t.Error("another program took the daemon's queue")
	}
	server := w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(0, peer.Config{}), server)
	w.talk(call, server)
	w.check(call.HangUp(w.ctx))
	w.finish()
}

// Two daemons in two network namespaces are nobody's mistake.
func TestDaemonsInTwoNamespaces(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1})
	elsewhere, err := w.Lab.Router("elsewhere")
	w.must(err)
	second, err := elsewhere.StartDaemon(lab.DaemonOptions{Program: program(t)})
	w.must(err)
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	w.must(second.Ready(ctx))
	server := w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(0, peer.Config{}), server)
	w.talk(call, server)
	w.check(second.Stop(ctx))
	w.talk(call, server)
	w.check(call.HangUp(w.ctx))
	w.finish()
}
