package alg_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// TestRetransmissionAfterTheCallIsGone repeats a whole conversation long after
// its calls ended and their Call IDs were given away, cut differently.
func TestRetransmissionAfterTheCallIsGone(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	var sent, went [2][]byte
	talk(t, r, func(_ int, side nat.Side, b []byte) []byte {
		got := c.send(side, b)
		sent[side], went[side] = append(sent[side], b...), append(went[side], got...)
		return got
	})
	r.wait(2 * time.Hour)
	other := r.connect(3)
	for n := range 30 { // most of the range
		other.send(client, message(ocrq, n, -1))
	}
	for side := client; side <= server; side++ {
		for _, size := range []int{1, 7, 13, 100, 1400} {
			for a := 0; a < len(sent[side]); a += size {
				b := min(a+size, len(sent[side]))
				s := c.at(side, a, sent[side][a:b], alg.ACK)
				s.went(t)
				same(t, "retransmission", s.Payload, went[side][a:b])
			}
		}
	}
	r.empty()
}

// TestFirstCopyWins: a sender that changes its mind when it repeats itself
// changes nothing: neither what the router judged nor what the receiver gets.
func TestFirstCopyWins(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	first := c.send(client, message(ocrq, 5, -1))
	s := c.at(client, 0, bytes.Repeat([]byte{0xaa}, 200), alg.ACK)
	s.went(t)
	same(t, "what was said before", s.Payload[:168], first)
	if r.table.Len() != 1 || c.Unparsed == "" {
		t.Errorf("%d calls, unparsed %q", r.table.Len(), c.Unparsed)
	}
}

// TestSeenFromTheMiddle begins at every byte of a stream. Messages that begin
// after that are translated, nothing else changes.
func TestSeenFromTheMiddle(t *testing.T) {
	stream := append(append(message(echoRequest, -1, -1), message(ocrq, 4, -1)...), message(ocrq, 6, -1)...)
	starts := []int{16, 16 + 168}
	for from := 0; from < len(stream)-200; from++ {
		for _, cut := range []int{0, 1, 5, 14} {
			r := newRig(t, talkRange)
			c := r.dial(2)
			var got []byte
			if cut == 0 {
				got = c.at(client, from, stream[from:], alg.ACK).Payload
			} else {
				c.top[client] = from
				var cuts []int
				for i := cut; i < len(stream)-from; i += cut {
					cuts = append(cuts, i)
				}
				got = c.pieces(client, stream[from:], cuts, false)
			}
			want := append([]byte{}, stream[from:]...)
			for _, at := range starts {
				if at -= from; at >= 0 {
					told := got[at+12 : at+14]
					if be.Uint16(told) == be.Uint16(want[at+12:]) {
						t.Fatalf("from %d, cut %d: the message at %d was not translated", from, cut, at)
					}
					copy(want[at+12:], told)
				}
			}
			same(t, "stream", got, want)
			if !c.Midstream {
				t.Fatal("not known to be seen from the middle")
			}
			// A call that was asked for untranslated is taken up with its answer.
			answer := message(ocrp, 9, 0x7777)
			b := c.send(server, answer)
			if id(b, 14) != 0x7777 || id(b, 12) == 9 {
				t.Fatalf("the answer to a call from before: %x", b[:20])
			}
			r.empty()
		}
	}
}

// malformed are streams that are not PPTP, and the reason that is given.
var malformed = []struct {
	name   string
	stream []byte
	reason string
}{
	{"garbage", bytes.Repeat([]byte{0xc3}, 50000), "wrong magic cookie"},
	{"zeros", make([]byte, 20), "wrong magic cookie"},
	{"wrong cookie", with(message(ocrq, 5, -1), 6, 0x3c4e), "wrong magic cookie 0x1a2b3c4e"},
	{"length 0", with(message(ocrq, 5, -1), 0, 0), "impossible message length 0"},
	{"length 11", with(message(echoRequest, -1, -1), 0, 11), "impossible message length 11"},
	{"request as short as its fields", with(message(ocrq, 5, -1), 0, 14), "Outgoing-Call-Request of 14 bytes"},
	{"reply with the length of an Echo-Reply", with(message(ocrp, 5, 6), 0, 20), "Outgoing-Call-Reply of 20 bytes"},
	{"type of a longer message", with(message(echoRequest, -1, -1), 8, ocrq), "Outgoing-Call-Request of 16 bytes"},
	{"a length that is too short by one", with(message(sccrq, -1, -1), 0, 155), "Start-Control-Connection-Request of 155 bytes"},
	{"text", []byte(strings.Repeat("GET / HTTP/1.1\r\n", 100)), "wrong magic cookie"},
}

func TestMalformedStreams(t *testing.T) {
	good := message(ocrq, 5, -1)
	for _, m := range malformed {
		for _, side := range []nat.Side{client, server} {
			for _, size := range []int{1, 11, 12, 13, 1400} {
				r := newRig(t, talkRange)
				bystander := r.connect(3)
				bystander.send(client, message(sccrq, -1, -1))
				c := r.connect(2)
				told := c.send(side, good)
				stream := append(append([]byte{}, m.stream...), good...)
				for len(stream) > 0 {
					n := min(size, len(stream))
					same(t, m.name, c.send(side, stream[:n]), stream[:n])
					stream = stream[n:]
				}
				same(t, m.name+", other side", c.send(side.Other(), good), good)
				if !strings.Contains(c.Unparsed, m.reason) || !strings.HasPrefix(c.Unparsed, "from the "+side.String()) {
					t.Errorf("%s: reason %q", m.name, c.Unparsed)
				}
				if r.alg.Counters.Unparsed != 1 {
					t.Errorf("%s: counted %d times", m.name, r.alg.Counters.Unparsed)
				}
				logged := 0
				for _, e := range r.events {
					if e.Kind == alg.ConnectionUnparsed && e.Connection == c.Connection {
						logged++
					}
				}
				if logged != 1 {
					t.Errorf("%s: notified %d times", m.name, logged)
				}
				// What was translated before is repeated so.
				s := c.at(side, 0, good, alg.ACK)
				s.went(t)
				same(t, m.name+": retransmission from before", s.Payload, told)
				if got := bystander.send(client, good); bytes.Equal(got, good) || bystander.Unparsed != "" {
					t.Errorf("%s: another connection suffers", m.name)
				}
				r.empty()
			}
		}
	}
}

// TestMalformedWhileOthersWait: what waited goes on when the stream turns out
// not to be PPTP.
func TestMalformedWhileOthersWait(t *testing.T) {
	for _, side := range []nat.Side{client, server} {
		r := newRig(t, talkRange)
		c := r.connect(2)
		a := c.at(side, 30, []byte("later"), alg.ACK)
		b := c.at(side.Other(), 30, []byte("later"), alg.ACK)
		if a.decided+b.decided != 0 {
			t.Fatal("did not wait")
		}
		x := c.at(side, 0, make([]byte, 30), alg.ACK)
		for _, s := range []*sent{a, b, x} {
			s.went(t)
			same(t, "bytes", s.Payload, s.original)
		}
		r.empty()
	}
}

// TestEndlessGarbageFromTheMiddle is given up after a bounded search.
func TestEndlessGarbageFromTheMiddle(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.dial(2)
	junk := bytes.Repeat([]byte{0x1a, 0x2b, 0x3c}, 400)
	n := 0
	for ; c.Unparsed == ""; n += len(junk) {
		same(t, "garbage", c.send(client, junk), junk)
		if n > 100<<10 {
			t.Fatal("searches for ever")
		}
	}
	if n < 60<<10 || !strings.Contains(c.Unparsed, "no control message in") {
		t.Errorf("after %d bytes: %q", n, c.Unparsed)
	}
	r.empty()
}

// TestUnknownAndLongerMessages pass untouched, and what follows is understood.
func TestUnknownAndLongerMessages(t *testing.T) {
	ask := message(ocrq, 5, -1)
	for typ := 0; typ < 1000; typ += 1 + typ/20 {
		if typ > 0 && typ < len(lengths) {
			continue
		}
		unknown := with(with(message(ocrq, 5, -1), 8, uint16(typ)), 10, 0xffff)
		r := newRig(t, talkRange)
		c := r.connect(2)
		same(t, "unknown message", c.send(client, unknown), unknown)
		if got := c.send(client, ask); bytes.Equal(got, ask) {
			t.Errorf("after type %d nothing is understood", typ)
		}
	}
	for typ := sccrq; typ <= setLinkInfo; typ++ {
		for _, more := range []int{1, 2, 100, 60000} {
			own, peer := -1, -1
			switch typ {
			case ocrq, icrq, clearRequest, disconnectNotify:
				own = 5
			case ocrp, icrp:
				own, peer = 5, 0x4321
			case iccn, wanError, setLinkInfo:
				peer = 0x4321
			}
			b := append(message(typ, own, peer), bytes.Repeat(ask, 1+more/len(ask))[:more]...)
			be.PutUint16(b, uint16(len(b)))
			r := newRig(t, talkRange)
			c := r.connect(2)
			got := c.send(client, b)
			head := lengths[typ]
			same(t, "longer message's tail", got[head:], b[head:])
			same(t, "longer message's head", got[:12], b[:12])
			if got := c.send(client, ask); bytes.Equal(got, ask) {
				t.Errorf("after type %d, %d bytes longer, nothing is understood", typ, more)
			}
		}
	}
	// Management messages carry no calls.
	r := newRig(t, talkRange)
	c := r.connect(2)
	management := with(ask, 2, 2)
	same(t, "management message", c.send(client, management), management)
	if r.table.Len() != 0 {
		t.Error("a management message is no call")
	}
}

// TestOverstatedIncomingCallReply: an Incoming-Call-Reply that says 148 bytes
// may be 24 long, or 148.
func TestOverstatedIncomingCallReply(t *testing.T) {
	for _, long := range []bool{false, true} {
		for cut := range 160 {
			r := newRig(t, talkRange)
			c := r.connect(2)
			told := id(c.send(server, message(icrq, 3, -1)), 12)
			reply := with(message(icrp, 5, told), 0, 148)
			if long {
				reply = append(reply, make([]byte, 148-24)...)
			}
			own := 0
			next := message(echoRequest, -1, -1)
			ask := message(ocrq, 6, -1)
			b := append(append(append([]byte{}, reply...), next...), ask...)
			var got []byte
			if cut == 0 {
				got = c.send(client, b)
			} else {
				got = c.pieces(client, b, []int{cut}, cut%2 == 0)
			}
			own = id(got, 12)
			asked := len(reply) + len(next)
			if own == 5 || id(got, 14) != 3 || id(got, asked+12) == 6 {
				t.Fatalf("long %v, cut %d: %x", long, cut, got)
			}
			want := with(with(with(b, 12, uint16(own)), 14, 3), asked+12, uint16(id(got, asked+12)))
			same(t, "stream", got, want)
			if c.Unparsed != "" {
				t.Fatal(c.Unparsed)
			}
			r.empty()
		}
	}
}

// TestDataInTheSYN: a SYN's data begin one behind its sequence number.
func TestDataInTheSYN(t *testing.T) {
	for _, flags := range []alg.Flags{alg.SYN, alg.SYN | alg.ACK} {
		r := newRig(t, talkRange)
		c := r.dial(2)
		ask := message(ocrq, 5, -1)
		side := client
		if flags&alg.ACK != 0 {
			side = server
		}
		s := c.at(side, 0, ask[:13], flags)
		s.went(t)
		got := append(append([]byte{}, s.Payload...), c.send(side, ask[13:])...)
		if r.table.Len() != 1 || id(got, 12) == 5 {
			t.Errorf("%x", got[:14])
		}
		again := c.at(side, 0, ask[:13], flags)
		again.went(t)
		same(t, "the SYN again", again.Payload, got[:13])
		if c.Reopens(again.Segment) {
			t.Error("the same SYN opens another connection")
		}
		r.empty()
	}
}

func TestReset(t *testing.T) {
	for _, side := range []nat.Side{client, server} {
		r := newRig(t, talkRange)
		c := r.connect(2)
		told := c.send(client, message(ocrq, 5, -1))
		waits := c.at(client, 1000, []byte("waits"), alg.ACK)
		c.at(side, c.top[side], nil, alg.RST).went(t)
		if c.State != alg.Closed || r.table.Len() != 0 || !strings.Contains(c.Reason, "reset by the "+side.String()) {
			t.Errorf("%v, %d calls, %q", c.State, r.table.Len(), c.Reason)
		}
		s := c.at(client, 0, message(ocrq, 5, -1), alg.ACK)
		same(t, "retransmission after the reset", s.Payload, told)
		// Nothing new comes of it.
		c.at(client, 168, message(ocrq, 6, -1), alg.ACK)
		if r.table.Len() != 0 {
			t.Error("a call on a connection that was reset")
		}
		r.empty()
		if waits.decided != 1 {
			t.Error("what waited was not decided")
		}
	}
}

// TestReopenedFromTheSamePort, with the new handshake seen and unseen.
func TestReopenedFromTheSamePort(t *testing.T) {
	for _, unseen := range []bool{false, true} {
		r := newRig(t, talkRange)
		c := r.connect(2)
		c.send(client, message(ocrq, 5, -1))
		if unseen {
			c.at(server, 0, nil, alg.RST)
		}
		n := *c
		n.isn = [2]uint32{0x11111111, 0x22222222}
		n.top, n.acked = [2]int{}, [2]int{}
		probe := &alg.Segment{From: server, Seq: n.isn[server] - 1, Ack: n.isn[client], Flags: alg.SYN | alg.ACK}
		if unseen {
			probe = &alg.Segment{From: client, Seq: n.isn[client], Ack: n.isn[server], Flags: alg.ACK, Payload: message(sccrq, -1, -1)}
		}
		if !c.Reopens(probe) {
			t.Fatal("not taken for another connection")
		}
		again := &alg.Segment{From: server, Seq: c.isn[server] - 1, Ack: c.isn[client], Flags: alg.SYN | alg.ACK}
		late := &alg.Segment{From: client, Seq: c.isn[client], Flags: alg.ACK, Payload: message(ocrq, 5, -1)}
		if c.Reopens(again) || c.Reopens(late) {
			t.Error("a retransmission is taken for another connection")
		}
		c.Close(r.now, "opened anew")
		if r.table.Len() != 0 {
			t.Error("its calls live on")
		}
		var err error
		if n.Connection, err = r.alg.Open(r.now, n.flow, c.Path()); err != nil {
			t.Fatal(err)
		}
		if !unseen {
			n.at(server, 0, nil, alg.SYN|alg.ACK)
		}
		n.send(client, message(sccrq, -1, -1))
		if got := n.send(client, message(ocrq, 5, -1)); id(got, 12) == 5 || r.table.Len() != 1 {
			t.Error("the new connection is not translated")
		}
		r.empty()
	}
}

// TestHalfWayRound: sequence numbers half the space away are neither before
// nor after; nothing may break.
func TestHalfWayRound(t *testing.T) {
	for _, blind := range []bool{false, true} {
		for d := range 5 {
			r := newRig(t, talkRange)
			c := r.connect(2)
			c.send(client, message(ocrq, 5, -1))
			if blind {
				c.send(client, make([]byte, 100))
			}
			half := 1 << 30
			c.isn[client] += uint32(half)
			s := c.at(client, c.top[client]+half+d-2, []byte("far away"), alg.ACK)
			if s.decided == 1 && s.Changed {
				t.Errorf("%d: changed to %q", d, s.Payload)
			}
			r.empty()
			same(t, "far away", s.Payload, s.original)
		}
	}
}

// TestBlindStreamComesRound: 4 GiB after a stream turned out not to be PPTP,
// its sequence numbers are those of what was translated once.
func TestBlindStreamComesRound(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	c.send(client, message(ocrq, 5, -1))
	c.send(client, make([]byte, 100))
	for range 16 {
		c.isn[client] += 1 << 28
		s := c.at(client, 300, []byte("data"), alg.ACK)
		s.went(t)
		same(t, "data", s.Payload, []byte("data"))
	}
	s := c.at(client, 0, message(ocrq, 6, -1), alg.ACK)
	s.went(t)
	same(t, "data", s.Payload, s.original)
}

// TestRefusalByTheOtherSide passes as it is, and its Call ID, whatever it is,
// maps nothing and harms nobody: also when the answer comes cut.
func TestRefusalByTheOtherSide(t *testing.T) {
	for _, typ := range []int{ocrp, icrp} {
		for cut := range lengths[typ] {
			r := newRig(t, nat.Config{})
			// Another call of the client, to which the server gave 7.
			elder := r.connect(2)
			told := id(elder.send(client, message(ocrq, 1, -1)), 12)
			elder.send(server, message(ocrp, 7, told))
			c := &conn{rig: r, isn: elder.isn, flow: elder.flow}
			var err error
			c.flow.Client = elder.flow.Server // any other flow
			if c.Connection, err = r.alg.Open(r.now, c.flow, elder.Path()); err != nil {
				t.Fatal(err)
			}
			c.at(server, 0, nil, alg.SYN|alg.ACK)
			c.acked[client] = 0
			asker, answerer := client, server
			typ2 := ocrq
			if typ == icrp {
				asker, answerer, typ2 = server, client, icrq
			}
			told = id(c.send(asker, message(typ2, 3, -1)), 12)
			open := len(r.plane.open)
			reply := message(typ, 7, told)
			if typ == icrp {
				reply = message(typ, 1, told)
			}
			reply[16], reply[17] = 2, 4
			var got []byte
			if cut == 0 {
				got = c.send(answerer, reply)
			} else {
				got = c.pieces(answerer, reply, []int{cut}, false)
			}
			if id(got, 14) != 3 {
				t.Fatalf("cut %d: the Peer's Call ID is %d", cut, id(got, 14))
			}
			same(t, "refusal", got[16:], reply[16:])
			if len(r.plane.open) != open {
				t.Errorf("cut %d: %d mappings, were %d", cut, len(r.plane.open), open)
			}
			if r.table.Len() != 1 || elder.Calls().Live() != 1 {
				t.Errorf("cut %d: %d calls live, the elder %d", cut, r.table.Len(), elder.Calls().Live())
			}
			if ended := r.table.Ended(); len(ended) != 1 || !strings.Contains(ended[0].Reason, "refused the call") {
				t.Errorf("cut %d: ended %v", cut, ended)
			}
			r.empty()
		}
	}
}

// TestRefusalByUs: the request goes on with a Call ID that is nobody's, and an
// answer that accepts is changed into a refusal, wherever it is cut.
func TestRefusalByUs(t *testing.T) {
	broken := errors.New("broken")
	cases := []struct {
		name  string
		cfg   nat.Config
		err   func(*nat.Mapping) error
		early bool // refused with the request
		words string
	}{
		{"limit per connection", nat.Config{Limits: nat.Limits{CallsPerConnection: 1}}, nil, true, "calls of one control connection"},
		{"limit per client", nat.Config{Limits: nat.Limits{CallsPerClient: 1}}, nil, true, "calls of client"},
		{"limit", nat.Config{Limits: nat.Limits{Calls: 1}}, nil, true, "calls in total"},
		{"no ID free", nat.Config{First: 100, Last: 101}, nil, true, "no Call ID is free"},
		{"kernel, request", nat.Config{}, func(m *nat.Mapping) error {
			if m.Side == client && m.Real == 2 {
				return broken
			}
			return nil
		}, true, "broken"},
		{"kernel, answer", nat.Config{}, func(m *nat.Mapping) error {
			if m.Side == server && m.Real == 9 {
				return broken
			}
			return nil
		}, false, "broken"},
		{"ambiguous answer", nat.Config{}, func(m *nat.Mapping) error {
			if m.Side == server && m.Real == 9 {
				return nat.ErrAmbiguous
			}
			return nil
		}, false, "in use by another call"},
	}
	for _, k := range cases {
		for cut := range 32 {
			for requestCut := range []int{0, 13} {
				r := newRig(t, k.cfg)
				r.plane.err = k.err
				c := r.connect(2)
				first := id(c.send(client, message(ocrq, 1, -1)), 12)
				ask := message(ocrq, 2, -1)
				var got []byte
				if requestCut == 0 {
					got = c.send(client, ask)
				} else {
					got = c.pieces(client, ask, []int{13}, false)
				}
				told := id(got, 12)
				if told == 0 || told == first {
					t.Fatalf("%s: told %d", k.name, told)
				}
				same(t, k.name, got, with(ask, 12, uint16(told)))
				reply := message(ocrp, 9, told)
				if cut == 0 {
					got = c.send(server, reply)
				} else {
					got = c.pieces(server, reply, []int{cut}, cut%2 == 0)
				}
				if id(got, 14) != 2 || got[16] != 2 || got[17] != 4 {
					t.Fatalf("%s, cut %d: answer %x", k.name, cut, got[:20])
				}
				same(t, k.name, got[18:], reply[18:])
				if len(r.plane.open) != 1 && k.early {
					t.Errorf("%s: %d mappings", k.name, len(r.plane.open))
				}
				ended := r.table.Ended()
				if len(ended) != 1 || !ended[0].Refused || !strings.Contains(ended[0].Reason, k.words) {
					t.Errorf("%s: %+v", k.name, ended)
				}
				if r.table.Len() != 1 {
					t.Errorf("%s: %d calls", k.name, r.table.Len())
				}
				// The answer again.
				s := c.at(server, 0, reply, alg.ACK)
				same(t, k.name+", again", s.Payload, got)
				r.empty()
			}
		}
	}
}

// TestWhoseIDIsInCallDisconnectNotify: the RFC has the sender's own there, some
// servers put the receiver's. Where an ID is both, of two calls, a live call is
// meant before an ended one, one that the receiver asked to clear before others,
// and else the one of which it is the sender's own.
func TestWhoseIDIsInCallDisconnectNotify(t *testing.T) {
	for _, k := range []struct {
		name           string
		clearX, clearY bool
		endX           bool
		x              bool // X is meant
	}{
		{name: "nothing else known", x: true},
		{name: "the one was to be cleared", clearX: true, x: true},
		{name: "the other was to be cleared", clearY: true, x: false},
		{name: "both were to be cleared", clearX: true, clearY: true, x: true},
		{name: "the one has ended", endX: true, x: false},
	} {
		r := newRig(t, talkRange)
		c := r.connect(2)
		x := id(c.send(client, message(ocrq, 1, -1)), 12)
		y := id(c.send(client, message(ocrq, 2, -1)), 12)
		// X's ID at the server is what the server was told for Y.
		sx := id(c.send(server, message(ocrp, y, x)), 12)
		c.send(server, message(ocrp, 77, y))
		if k.clearX {
			c.send(client, message(clearRequest, 1, -1))
		}
		if k.clearY {
			c.send(client, message(clearRequest, 2, -1))
		}
		if k.endX {
			c.send(server, message(disconnectNotify, y, -1))
		}
		got := id(c.send(server, message(disconnectNotify, y, -1)), 12)
		want, left := sx, 2
		if !k.x {
			want, left = 2, 1
		}
		if got != want {
			t.Errorf("%s: the client reads %d, want %d", k.name, got, want)
		}
		r.table.Calls(func(call *nat.Call) {
			if int(call.End(client).Real) != left {
				t.Errorf("%s: call %d lives", k.name, call.End(client).Real)
			}
		})
		if n := r.table.Len(); n > 1 || n == 0 && !k.endX {
			t.Errorf("%s: %d calls live", k.name, n)
		}
		r.empty()
	}
}

// TestUnfinishedMessages leave nothing behind, however their stream ends.
func TestUnfinishedMessages(t *testing.T) {
	ends := map[string]func(c *conn){
		"the other side is not PPTP": func(c *conn) { c.send(server, make([]byte, 40)) },
		"reset":                      func(c *conn) { c.at(server, c.top[server], nil, alg.RST) },
		"closed":                     func(c *conn) { c.Close(c.now, "closed") },
		"lost":                       func(c *conn) { c.Lost(c.now) },
		"acknowledged unseen":        func(c *conn) { c.acked[client] = c.top[client] + 50; c.send(server, message(sccrp, -1, -1)) },
	}
	for name, end := range ends {
		for _, typ := range []int{ocrq, ocrp} {
			for n := 12; n < 18; n++ {
				for _, late := range []bool{false, true} {
					r := newRig(t, talkRange)
					c := r.connect(2)
					told := id(c.send(server, message(ocrq, 8, -1)), 12)
					begin := message(typ, 5, told)[:n]
					if late { // it comes when the end has come
						end(c)
						if r.alg.Find(c.flow) == nil {
							continue
						}
						c.at(client, c.top[client], begin, alg.ACK)
					} else {
						c.at(client, 0, begin, alg.ACK)
						end(c)
					}
					r.empty()
					if t.Failed() {
						t.Fatalf("%s, %d bytes of type %d, late %v", name, n, typ, late)
					}
				}
			}
		}
	}
}

// TestOpenReplaces: a connection that is opened over another one ends it, and
// what waited there goes on.
func TestOpenReplaces(t *testing.T) {
	r := newRig(t, talkRange)
	old := r.connect(2)
	old.send(client, message(ocrq, 1, -1))
	waits := old.at(client, 1000, []byte("waits"), alg.ACK)
	c := r.connect(2)
	waits.went(t)
	if old.State != alg.Closed || r.table.Len() != 0 || r.alg.Len() != 1 || r.alg.Find(c.flow) != c.Connection {
		t.Errorf("%v, %d calls, %d connections", old.State, r.table.Len(), r.alg.Len())
	}
	old.Close(r.now, "again")
	if r.alg.Find(c.flow) != c.Connection {
		t.Error("closing the old one removed the new one")
	}
	r.empty()
}

// TestAnswerThatCameTooLate is changed into a refusal: the call is over here.
func TestAnswerThatCameTooLate(t *testing.T) {
	for cut := range 32 {
		r := newRig(t, talkRange)
		c := r.connect(2)
		told := id(c.send(client, message(ocrq, 1, -1)), 12)
		r.wait(rigTimeouts.HalfOpen + time.Second)
		reply := message(ocrp, 9, told)
		var got []byte
		if cut == 0 {
			got = c.send(server, reply)
		} else {
			got = c.pieces(server, reply, []int{cut}, cut%2 == 0)
		}
		if id(got, 14) != 1 || got[16] != 2 || got[17] != 4 {
			t.Errorf("cut %d: %x", cut, got[:20])
		}
		for _, m := range r.plane.open {
			if m.Side == server {
				t.Errorf("cut %d: GRE flows to the server", cut)
			}
		}
		r.empty()
	}
}

// TestGapThatNeverFills: what waits is dropped, its sender tries again; after
// the third time the stream goes on without the missing bytes.
func TestGapThatNeverFills(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	ask := message(ocrq, 5, -1)
	for try := range 3 {
		s := c.at(client, 16, ask, alg.ACK)
		if s.decided != 0 {
			t.Fatal("did not wait")
		}
		r.wait(1500 * time.Millisecond)
		want := alg.Drop
		if try == 2 {
			want = alg.Accept
		}
		if s.decided != 1 || s.verdict != want {
			t.Fatalf("try %d: decided %d times, verdict %d", try, s.decided, s.verdict)
		}
		if try == 2 && id(s.Payload, 12) == 5 {
			t.Error("behind the gap nothing is understood")
		}
	}
	if n := r.alg.Counters; n.Resynchronised != 1 || n.DroppedHeld != 2 {
		t.Errorf("%+v", n)
	}
	r.empty()
}

// TestAcknowledgedUnseen: the receiver has bytes that did not come by here.
func TestAcknowledgedUnseen(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	c.send(client, message(sccrq, -1, -1))
	ask := message(ocrq, 5, -1)
	s := c.at(client, 156+100, ask, alg.ACK)
	if s.decided != 0 {
		t.Fatal("did not wait")
	}
	c.acked[client] = 156 + 100
	c.send(server, message(sccrp, -1, -1))
	s.went(t)
	if id(s.Payload, 12) == 5 || r.alg.Counters.Resynchronised != 1 {
		t.Errorf("behind the gap nothing is understood: %+v", r.alg.Counters)
	}
	r.empty()
}

// TestHalfThatDoesNotSayEnough: where the high byte of a Call ID is not enough
// to translate it, it waits for the low one; when that does not come, it goes
// on alone, since its sender may wait for it to be acknowledged.
func TestHalfThatDoesNotSayEnough(t *testing.T) {
	for _, more := range []time.Duration{0, 4900 * time.Millisecond, 5100 * time.Millisecond} {
		r := newRig(t, nat.Config{First: 0x12ff, Last: 0x1300 + 5})
		c := r.connect(2)
		var told []int
		for n := range 6 { // of one block, told in two
			told = append(told, id(c.send(client, message(ocrq, n, -1)), 12))
		}
		blocks := map[int]bool{}
		for _, x := range told {
			blocks[x>>8] = true
		}
		if len(blocks) != 2 {
			t.Fatalf("told %x", told)
		}
		clear := message(clearRequest, 3, -1)
		s := c.at(client, c.top[client], clear[:13], alg.ACK)
		if s.decided != 0 {
			t.Fatal("did not wait")
		}
		r.wait(more)
		late := more > 5*time.Second
		if (s.decided == 1) != late {
			t.Fatalf("after %v: decided %d times", more, s.decided)
		}
		rest := c.at(client, c.top[client], clear[13:], alg.ACK)
		s.went(t)
		rest.went(t)
		got := append(append([]byte{}, s.Payload...), rest.Payload...)
		if !late && id(got, 12) != told[3] {
			t.Errorf("cleared %#x, not %#x", id(got, 12), told[3])
		}
		again := c.at(client, c.top[client]-len(clear), clear, alg.ACK)
		same(t, "again, whole", again.Payload, got)
		r.empty()
	}
}

// TestMemoryBounds: what one connection may hold and remember is bounded.
func TestMemoryBounds(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	var all []*sent
	for n := range 200 {
		all = append(all, c.at(client, 100+n*10, []byte("0123456789"), alg.ACK))
	}
	if n := r.alg.Holding(); n > 64 {
		t.Errorf("holds %d segments", n)
	}
	for n := range 20 {
		all = append(all, c.at(server, 100+n*60000, make([]byte, 60000), alg.ACK))
	}
	if n := r.alg.Holding(); n > 65 {
		t.Errorf("holds %d segments of 60000 bytes", n-64)
	}
	var conns []*conn
	for n := range 100 {
		x := r.connect(byte(3 + n))
		conns = append(conns, x)
		for i := range 60 {
			all = append(all, x.at(client, 100+i, []byte("x"), alg.ACK))
		}
	}
	if n := r.alg.Holding(); n > 2*alg.MaxHeldTotal { // each client may have one beyond it
		t.Errorf("all hold %d segments", n)
	}
	r.empty()
	for _, s := range all {
		if s.decided != 1 {
			t.Fatalf("decided %d times", s.decided)
		}
	}
	_ = conns
}

// TestHistoryIsBounded: what was forwarded and never acknowledged is
// remembered up to a bound; what is older is not sent on wrongly.
func TestHistoryIsBounded(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	first := c.send(client, message(ocrq, 5, -1))
	echo := bytes.Repeat(message(echoRequest, -1, -1), 64)
	for range 63 {
		c.send(client, echo)
	}
	s := c.at(client, 0, message(ocrq, 5, -1), alg.ACK)
	s.went(t)
	same(t, "remembered", s.Payload, first)
	for range 3 {
		c.send(client, echo)
	}
	s = c.at(client, 0, message(ocrq, 5, -1), alg.ACK)
	s.went(t)
	same(t, "remembered only where it was translated", s.Payload, first)
	for range 300 {
		c.send(client, message(clearRequest, 5, -1))
	}
	s = c.at(client, 0, message(ocrq, 5, -1), alg.ACK)
	if s.decided != 1 || s.verdict != alg.Drop || r.alg.Counters.DroppedUnknown != 1 {
		t.Errorf("what is not remembered: verdict %d, %+v", s.verdict, r.alg.Counters)
	}
	if n := c.Remembered(client); n > 80<<10 {
		t.Errorf("remembers %d bytes", n)
	}
	// Acknowledged, it can be sent again without harm, and nothing is kept.
	c.acked[client] = c.top[client]
	c.send(server, message(echoReply, -1, -1))
	c.at(client, 0, message(ocrq, 5, -1), alg.ACK).went(t)
	if n := c.Remembered(client); n > 1<<10 {
		t.Errorf("an idle stream keeps %d bytes", n)
	}
	r.empty()
}

// TestLostAndFound: conntrack forgot the connection; a sign of life saves it.
func TestLostAndFound(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	c.send(client, message(ocrq, 5, -1))
	c.send(server, message(ocrp, 9, id(c.at(client, 0, message(ocrq, 5, -1), alg.ACK).Payload, 12)))
	c.Lost(r.now)
	r.wait(80 * time.Second)
	c.send(client, message(echoRequest, -1, -1))
	r.wait(time.Hour)
	if c.State == alg.Closed || r.table.Len() != 1 {
		t.Fatalf("%v, %d calls: a keepalive did not save it", c.State, r.table.Len())
	}
	c.Lost(r.now)
	r.wait(100 * time.Second)
	if c.State != alg.Closed || r.table.Len() != 0 {
		t.Errorf("%v, %d calls", c.State, r.table.Len())
	}
	r.empty()
}

// TestOver: conntrack saw the end of the connection, which passed unseen here.
func TestOver(t *testing.T) {
	r := newRig(t, talkRange)
	c := r.connect(2)
	c.send(client, message(ocrq, 5, -1))
	c.send(server, message(ocrp, 9, id(c.at(client, 0, message(ocrq, 5, -1), alg.ACK).Payload, 12)))
	c.Over(r.now)
	r.wait(10 * time.Second)
	if c.State != alg.Closed || r.table.Len() != 0 {
		t.Errorf("%v, %d calls", c.State, r.table.Len())
	}
	r.empty()
}

// TestReplaceByte: whatever the checksum was, the result is as good as it.
func TestReplaceByte(t *testing.T) {
	for _, sum := range []uint16{0, 1, 0x00ff, 0x0100, 0x1235, 0x7fff, 0x8000, 0xfffe, 0xffff} {
		for at := range 4 {
			for from := range 256 {
				for _, to := range []int{0, 1, 0x7f, 0x80, 0xfe, 0xff, from} {
					checkReplace(t, sum, at, byte(from), byte(to))
				}
			}
		}
	}
}

// checkReplace compares with one's complement sums. For a stored checksum that
// is right, one of a right checksum has to come out to the bit: 0xffff can't,
// since a TCP header is never all zeros.
func checkReplace(t testing.TB, sum uint16, at int, from, to byte) {
	got := alg.ReplaceByte(sum, at, from, to)
	weight := 1
	if at%2 == 0 {
		weight = 256
	}
	total := (0xffff - int(sum)) + (int(to)-int(from))*weight
	total = ((total % 0xffff) + 0xffff) % 0xffff
	if have := (0xffff - int(got)) % 0xffff; have != total {
		t.Errorf("ReplaceByte(%#04x, %d, %#02x, %#02x) = %#04x", sum, at, from, to, got)
	}
	if from != to && got == 0xffff {
		t.Errorf("ReplaceByte(%#04x, %d, %#02x, %#02x) = 0xffff, which no sum of nonzero data has", sum, at, from, to)
	}
}

func FuzzChecksum(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, uint8(1), uint8(9))
	f.Add([]byte{0xff, 0xff, 0xff}, uint8(2), uint8(0))
	f.Add([]byte{0, 0, 0, 1}, uint8(3), uint8(0xff))
	f.Fuzz(func(t *testing.T, b []byte, at, v uint8) {
		if len(b) < 2 || int(at) >= len(b) {
			return
		}
		header := []byte{6, 0x50} // a header is never all zeros
		sum := naiveChecksum(header, b)
		old := b[at]
		got := alg.ReplaceByte(sum, int(at), old, v)
		b[at] = v
		if want := naiveChecksum(header, b); got != want {
			t.Errorf("%x, byte %d was %#02x: %#04x, from scratch %#04x", b, at, old, got, want)
		}
		checkReplace(t, uint16(b[0])<<8|uint16(b[1]), int(at), old, v)
	})
}
