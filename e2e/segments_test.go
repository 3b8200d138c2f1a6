package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// These scenarios send segments that no kernel would. Both ends are raw hosts,
// so that what leaves and what arrives is known to the byte.

// half is one direction of a connection between raw hosts.
type half struct {
	from, to *raw.Conn
	sent     []byte // the stream so far
}

// pair is a control connection between raw hosts, seen from both ends.
type pair struct {
	*world
	client, server *raw.Host
	up, down       half // client to server, server to client
}

// rawWorld has two raw clients and a raw server; another client holds the Call
// ID crowdedID, so that the daemon must change that of the pair.
func rawWorld(t *testing.T, o raw.Options, args ...string) *pair {
	t.Helper()
	w := withDaemon(t, lab.Plan{RawClients: 2, RawServers: 1}, args...)
	server := w.rawHost(w.RawServers[0], "wan", lab.WANRouter)
	listener := server.Listen(peer.Port, 0xfffffff0)
	first := w.connectRaw(w.rawHost(w.RawClients[1], "lan", lab.LANRouter), server, listener, raw.Options{})
	if told, _ := first.call(crowdedID, 700); told != crowdedID {
		t.Errorf("the first client's Call ID %#x was free and became %#x", crowdedID, told)
	}
	return w.connectRaw(w.rawHost(w.RawClients[0], "lan", lab.LANRouter), server, listener, o)
}

func (w *world) connectRaw(client, server *raw.Host, listener *raw.Listener, o raw.Options) *pair {
	w.Helper()
	c, err := client.Dial(w.ctx, netip.AddrPortFrom(server.Address(), peer.Port), o)
	w.must(err)
	s, err := listener.Accept(w.ctx)
	w.must(err)
	p := &pair{world: w, client: client, server: server, up: half{from: c, to: s, sent: bytes.Clone(o.Data)}, down: half{from: s, to: c}}
	start := wire.Encode(&wire.StartRequest{ProtocolVersion: wire.Version})
	p.deliver(&p.up, start[len(o.Data):])
	p.deliver(&p.down, wire.Encode(&wire.StartReply{ProtocolVersion: wire.Version, Result: wire.StartOK}))
	return p
}

// deliver sends bytes as pieces given by their ends, in that order, and what is
// still missing then in one piece until all of it has arrived.
func (p *pair) deliver(h *half, b []byte, pieces ...[2]int) {
	p.Helper()
	base := len(h.sent)
	h.sent = append(h.sent, b...)
	h.from.SetNext(len(h.sent))
	for _, piece := range pieces {
		p.must(h.from.Send(base+piece[0], b[piece[0]:piece[1]]))
	}
	for first := true; ; first = false {
		if at := h.from.Acked(); !first || len(pieces) == 0 {
			if at >= len(h.sent) {
				return
			}
			p.must(h.from.Send(max(at, base), h.sent[max(at, base):]))
		}
		short, cancel := context.WithTimeout(p.ctx, 300*time.Millisecond)
		err := h.from.WaitAcked(short, len(h.sent))
		cancel()
		if err == nil {
			return
		}
		p.must(p.ctx.Err())
	}
}

// consistent fails unless every segment that arrived, in whatever order and
// however often, carries the bytes that the stream has in its place, and unless
// the stream is what was sent but for Call IDs.
func (p *pair) consistent(name string) {
	p.Helper()
	for way, h := range map[string]*half{"to the server": &p.up, "to the client": &p.down} {
		stream := h.to.Received()
		if err := peer.CompareStreams(h.sent, stream, false); err != nil {
			p.Errorf("%s: %s: %v", name, way, err)
		}
		wrong := 0
		for i, s := range h.to.Segments() {
			if s.Flags&raw.SYN != 0 || s.Offset < 0 || s.Offset+len(s.Payload) > len(stream) {
				continue
			}
			if want := stream[s.Offset : s.Offset+len(s.Payload)]; !bytes.Equal(s.Payload, want) {
				if wrong++; wrong == 1 {
					p.Errorf("%s: %s: segment %d, at %d with %d bytes, has %x where the stream has %x", name, way, i, s.Offset, len(s.Payload), s.Payload, want)
				}
			}
		}
		if wrong > 1 {
			p.Errorf("%s: %s: %d segments in all differ from the stream", name, way, wrong)
		}
	}
}

// last gives the last message of a kind in what arrived.
func last[M wire.Message](p *pair, h *half) M {
	p.Helper()
	var found M
	rest := h.to.Received()
	for len(rest) > 0 {
		m, n, err := wire.Decode(rest)
		p.must(err)
		if m, ok := m.(M); ok {
			found = m
		}
		rest = rest[n:]
	}
	return found
}

// request and reply are a call's two messages, each between two others.
func request(id uint16) []byte {
	echo := wire.Encode(&wire.EchoRequest{Identifier: 0x01020304})
	return slices.Concat(echo, wire.Encode(&wire.OutgoingCallRequest{CallID: id, SerialNumber: 0xabab, PhoneNumber: wire.MakeText("1234")}), echo)
}

func reply(id, told uint16) []byte {
	echo := wire.Encode(&wire.EchoReply{Identifier: 0x01020304, Result: wire.EchoOK})
	return slices.Concat(echo, wire.Encode(&wire.OutgoingCallReply{CallID: id, PeerCallID: told, Result: wire.ResultConnected}), echo)
}

// call places a call in whole segments. It gives the ID that the server was
// told and the one that the client was told.
func (p *pair) call(id, serverID uint16) (told, serverTold uint16) {
	p.Helper()
	p.deliver(&p.up, request(id))
	told = last[*wire.OutgoingCallRequest](p, &p.up).CallID
	p.deliver(&p.down, reply(serverID, told))
	answer := last[*wire.OutgoingCallReply](p, &p.down)
	if answer.PeerCallID != id {
		p.Fatalf("the client's Call ID %d came back as %d", id, answer.PeerCallID)
	}
	return told, answer.CallID
}

// gre proves that the call carries GRE both ways.
func (p *pair) gre(id, told, serverID, serverTold uint16) {
	p.Helper()
	for _, way := range []struct {
		from, to      *raw.Host
		dst           netip.Addr
		sentTo, wants uint16
	}{{p.client, p.server, p.server.Address(), serverTold, serverID}, {p.server, p.client, lab.WANRouter, told, id}} {
		payload := fmt.Appendf(nil, "from %v, number %d", way.from.Address(), rand.Uint64())
		p.must(way.from.SendGRE(way.dst, wire.GRE{CallID: way.sentTo, HasSeq: true, Payload: payload}))
		short, cancel := context.WithTimeout(p.ctx, patience)
		got, err := way.to.WaitGRE(short, func(g raw.GRE) bool { return bytes.Equal(g.Payload, payload) })
		cancel()
		p.must(err)
		if got.CallID != way.wants {
			p.Errorf("GRE arrived with Call ID %d instead of %d", got.CallID, way.wants)
		}
	}
}

// Ways to cut, repeat and mix up request (200 bytes, Call ID at 28) and reply
// (72 or 60 bytes, the IDs at 32 and 34).
func orders(size int, r *rand.Rand) map[string][][2]int {
	all := map[string][][2]int{
		"twice":                     {{0, size}, {0, size}},
		"in a Call ID, then whole":  {{0, 29}, {29, size}, {0, size}},
		"again with another cut":    {{0, 33}, {33, size}, {0, 29}, {29, 35}, {35, size}},
		"second half first":         {{size / 2, size}, {0, size / 2}},
		"beyond a gap":              {{35, size}, {0, 33}, {33, 35}},
		"gap in a Call ID":          {{0, 29}, {30, size}, {29, 30}},
		"gap in both Call IDs":      {{34, size}, {0, 33}, {29, 36}},
		"overlapping":               {{0, 29}, {20, 34}, {28, size}},
		"inside what was there":     {{0, size}, {28, 30}, {29, 36}, {33, 34}},
		"end first, then backwards": nil,
		"byte by byte":              nil,
		"byte by byte, all twice":   nil,
		"at random":                 nil,
	}
	for i := size; i > 0; i -= 10 {
		all["end first, then backwards"] = append(all["end first, then backwards"], [2]int{max(i-10, 0), i})
	}
	for i := range size {
		all["byte by byte"] = append(all["byte by byte"], [2]int{i, i + 1})
		all["byte by byte, all twice"] = append(all["byte by byte, all twice"], [2]int{i, i + 1}, [2]int{max(i-1, 0), i + 1})
	}
	for range 40 {
		from := r.IntN(size)
		all["at random"] = append(all["at random"], [2]int{from, from + 1 + r.IntN(min(size-from, 40))})
	}
	return all
}

// Every order for the request, and every order for the reply; afterwards the
// same segments once more, with the call up and with the call gone.
func TestSegmentOrders(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const id, serverID = crowdedID, 0x1234
	requests, replies := orders(len(request(0)), r), orders(len(reply(0, 0)), r)
	for name := range requests {
		t.Run(name, func(t *testing.T) {
			// The sequence numbers wrap around in the middle of the request.
			p := rawWorld(t, raw.Options{Sequence: 0xffffffff - 156 - 29})
			base := len(p.up.sent)
			p.deliver(&p.up, request(id), requests[name]...)
			told := last[*wire.OutgoingCallRequest](p, &p.up).CallID
			if told == id || told == 0 {
				t.Errorf("the server was told the Call ID %#x", told)
			}
			downBase := len(p.down.sent)
			p.deliver(&p.down, reply(serverID, told), replies[name]...)
			answer := last[*wire.OutgoingCallReply](p, &p.down)
			if answer.PeerCallID != id {
				t.Errorf("the client's Call ID %#x came back as %#x", id, answer.PeerCallID)
			}
			p.consistent("call placed")
			p.gre(id, told, serverID, answer.CallID)
			again := func() {
				t.Helper()
				for _, piece := range requests[name] {
					p.must(p.up.from.Send(base+piece[0], p.up.sent[base+piece[0]:base+piece[1]]))
				}
				for _, piece := range replies[name] {
					p.must(p.down.from.Send(downBase+piece[0], p.down.sent[downBase+piece[0]:downBase+piece[1]]))
				}
				// Another message behind them: then they have arrived.
				p.deliver(&p.up, wire.Encode(&wire.EchoRequest{}))
				p.deliver(&p.down, wire.Encode(&wire.EchoReply{}))
			}
			again()
			p.consistent("repeated with the call up")
			p.deliver(&p.up, wire.Encode(&wire.ClearRequest{CallID: id}))
			if got := last[*wire.ClearRequest](p, &p.up).CallID; got != told {
				t.Errorf("the server was told %#x and is to clear %#x", told, got)
			}
			p.deliver(&p.down, wire.Encode(&wire.DisconnectNotify{CallID: serverID, Result: wire.DisconnectRequest}))
			if got := last[*wire.DisconnectNotify](p, &p.down).CallID; got != answer.CallID {
				t.Errorf("the client was told %#x and is disconnected from %#x", answer.CallID, got)
			}
			p.status(1)
			again()
			p.consistent("repeated with the call gone")
		})
	}
}

// FIN with the last message, and a RST in the middle of one.
func TestRawEnds(t *testing.T) {
	t.Run("FIN with data", func(t *testing.T) {
		p := rawWorld(t, raw.Options{})
		told, _ := p.call(crowdedID, 800)
		clear := wire.Encode(&wire.ClearRequest{CallID: crowdedID})
		at := len(p.up.sent)
		p.up.sent = append(p.up.sent, clear...)
		p.must(p.up.from.SendSegment(raw.Segment{Offset: at, Flags: raw.FIN | raw.PSH | raw.ACK, Ack: len(p.down.sent), Payload: clear}))
		p.must(p.up.to.WaitEnd(p.ctx))
		if got := last[*wire.ClearRequest](p, &p.up).CallID; got != told {
			t.Errorf("the server was told %#x and is to clear %#x", told, got)
		}
		p.consistent("FIN with data")
		p.must(p.up.to.Finish())
		p.status(1)
	})
	t.Run("RST in a message", func(t *testing.T) {
		p := rawWorld(t, raw.Options{})
		told, _ := p.call(crowdedID, 800)
		p.status(2)
		id := uint16(crowdedID + 1)
		if id == told {
			id++ // this one is told as it is, and as much of a message as there is can be compared
		}
		p.deliver(&p.up, request(id)[:40])
		p.must(p.up.from.Reset())
		p.must(p.up.to.WaitEnd(p.ctx))
		p.status(1)
		p.consistent("RST in a message")
	})
}

// A connection whose first bytes are in the SYN, which never comes to the
// daemon. Where whole messages are missing it works like any other. Where the
// rest of one comes first nothing is promised but that all bytes arrive and
// that nobody else suffers.
func TestDataInSYN(t *testing.T) {
	start := wire.Encode(&wire.StartRequest{ProtocolVersion: wire.Version})
	for _, n := range []int{len(start), 5, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := rawWorld(t, raw.Options{Data: start[:n]})
			if n == len(start) {
				told, serverTold := p.call(crowdedID, 800)
				p.gre(crowdedID, told, 800, serverTold)
				p.status(2)
			} else {
				p.deliver(&p.up, request(crowdedID))
				p.deliver(&p.down, reply(800, last[*wire.OutgoingCallRequest](p, &p.up).CallID))
			}
			p.consistent("data in SYN")
			if !slices.ContainsFunc(p.daemonStatus().Up(), func(c lab.CallStatus) bool { return c.Client.Address == p.RawClients[1].Address }) {
				t.Error("the other client's call is gone")
			}
		})
	}
}

// Checksums that are easily got wrong: 0, 0xffff (which means the same), and a
// wrong one, which must stay wrong.
func TestChecksums(t *testing.T) {
	p := rawWorld(t, raw.Options{})
	for i, sum := range []uint16{0, 0xffff, 1, 0xfffe} {
		id := crowdedID + uint16(i)
		base, b := len(p.up.sent), request(id)
		p.up.sent = append(p.up.sent, b...)
		p.up.from.SetNext(len(p.up.sent))
		p.must(p.up.from.SendSegment(raw.Segment{Offset: base, Flags: raw.PSH | raw.ACK, Ack: len(p.down.sent), Payload: b, Checksum: &sum}))
		p.must(p.up.from.WaitAcked(p.ctx, len(p.up.sent)))
		told := last[*wire.OutgoingCallRequest](p, &p.up).CallID
		p.deliver(&p.down, reply(uint16(900+i), told))
		p.consistent(fmt.Sprintf("checksum %#x", sum)) // the raw hosts verify every checksum
	}
}
