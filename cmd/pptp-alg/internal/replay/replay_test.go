package replay

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/pcap"
	"pptp-alg/nat"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file of testdata; `go test -update` writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// file writes the scene as a pcap.
func (s *scene) file() []byte {
	var b bytes.Buffer
	w, _ := pcap.NewWriter(&b)
	for _, p := range s.packets {
		if err := w.Write(p.Time, p.Data, p.Length); err != nil {
			s.t.Fatal(err)
		}
	}
	return b.Bytes()
}

// two has two clients with one Call ID, to one server.
func two(t testing.TB) *scene {
	s := newScene(t)
	a, b := s.open("10.0.0.11:40000", 1000), s.open("10.0.0.12:40000", 2000)
	a.call(5, 0)
	b.call(5, 1)
	for _, c := range []*tcp{a, b} {
		id := uint16(0)
		if c == b {
			id = 1
		}
		c.gre(nat.Client, id, 3)
		c.gre(nat.Server, 5, 2)
	}
	a.bye(5, 0)
	b.bye(5, 1)
	return s
}

// What people read, of the capture that most of them will have.
func TestGolden(t *testing.T) {
	s := two(t)
	golden(t, "two.pcap", s.file())
	_, _, plain, _ := s.run(Options{Seed: 1})
	golden(t, "two.txt", []byte(plain))
	_, _, masqueraded, out := s.run(Options{Seed: 1, Public: public})
	golden(t, "two-public.txt", []byte(masqueraded))
	w := newScene(t)
	w.packets = out
	golden(t, "two-public.pcap", w.file())
}

// The translated capture is a conversation that fits together: every message
// and every packet names the IDs that the server's side knows, and all checksums
// are right.
func TestTranslated(t *testing.T) {
	_, sum, _, out := two(t).run(Options{Seed: 1, Public: public})
	if len(sum.Calls) != 2 || *sum.Calls[0].Client.TranslatedCallID != 5 {
		t.Fatalf("%+v", sum.Calls)
	}
	told := *sum.Calls[1].Client.TranslatedCallID
	if told == 5 || told == 0 {
		t.Fatalf("the second call was told %d", told)
	}
	ports := map[uint16]uint16{} // told Call ID by the client's port
	count := map[string]int{}
	for i, p := range out {
		b := p.Data
		if checksum(b[:20]) != 0 {
			t.Errorf("packet %d: IP checksum", i)
		}
		src, dst := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		out := dst == server.Addr()
		if !out && src != server.Addr() || out && src != public || !out && dst != public {
			t.Errorf("packet %d: %v > %v", i, src, dst)
		}
		if b[9] == 47 {
			id := be.Uint16(b[26:])
			switch {
			case out && id <= 1:
				count["GRE out"]++
			case !out && (id == 5 || id == told):
				count["GRE in"]++
			default:
				t.Errorf("packet %d: GRE %v > %v with Call ID %d", i, src, dst, id)
			}
			continue
		}
		if checksum(b[12:20], []byte{0, 6, byte((len(b) - 20) >> 8), byte(len(b) - 20)}, b[20:]) != 0 {
			t.Errorf("packet %d: TCP checksum", i)
		}
		port := be.Uint16(b[20:])
		if !out {
			port = be.Uint16(b[22:])
		}
		m := b[40:]
		if len(m) == 0 {
			continue
		}
		switch be.Uint16(m[8:]) {
		case 7:
			ports[port] = be.Uint16(m[12:])
		case 8:
			if be.Uint16(m[14:]) != ports[port] {
				t.Errorf("packet %d: a reply for %d, asked was for %d", i, be.Uint16(m[14:]), ports[port])
			}
			count["replies"]++
		case 12:
			if be.Uint16(m[12:]) != ports[port] {
				t.Errorf("packet %d: clears %d, asked was for %d", i, be.Uint16(m[12:]), ports[port])
			}
			count["clears"]++
		case 13, 15:
			if be.Uint16(m[12:]) > 1 {
				t.Errorf("packet %d: the server's ID became %d", i, be.Uint16(m[12:]))
			}
		}
	}
	if len(ports) != 2 || count["GRE out"] != 6 || count["GRE in"] != 4 || count["replies"] != 2 || count["clears"] != 2 {
		t.Errorf("%v, %v", ports, count)
	}
}

// However the streams are cut, the calls and what is written stay the same.
func TestCuts(t *testing.T) {
	whole, _, _, _ := two(t).run(Options{Seed: 1, Public: public})
	calls := func(events []Event) (all []string) {
		for _, e := range events {
			if e.Kind == KindCall || e.Kind == KindMessage {
				all = append(all, e.Text)
			}
		}
		return all
	}
	for size := 1; size < 170; size += 3 {
		s := newScene(t)
		a, b := s.open("10.0.0.11:40000", 1000), s.open("10.0.0.12:40000", 2000)
		cut := func(c *tcp, from nat.Side, m []byte) {
			for len(m) > 0 {
				n := min(size, len(m))
				c.segment(from, 24, m[:n])
				m = m[n:]
			}
		}
		for i, c := range []*tcp{a, b} {
			cut(c, nat.Client, sccrq())
			cut(c, nat.Server, sccrp())
			cut(c, nat.Client, ocrq(5))
			cut(c, nat.Server, ocrp(uint16(i), 5, 1))
			cut(c, nat.Client, sli(uint16(i)))
		}
		for i, c := range []*tcp{a, b} {
			cut(c, nat.Client, ccrq(5))
			cut(c, nat.Server, cdn(uint16(i)))
			cut(c, nat.Client, stop())
		}
		events, sum, text, _ := s.run(Options{Seed: 1, Public: public})
		for i, c := range sum.Calls {
			if c.Up.IsZero() || c.State != "ended" || c.Reason != "cleared by the client" {
				t.Fatalf("cut into %d: call %d is %+v\n%s", size, i, c, text)
			}
		}
		got := calls(events)
		if len(sum.Calls) != 2 || len(got) != len(calls(whole)) {
			t.Fatalf("cut into %d: %d calls\n%s", size, len(sum.Calls), text)
		}
	}
}

// Segments that are repeated, late or missing.
func TestDisorder(t *testing.T) {
	s := newScene(t)
	c := s.open("10.0.0.11:40000", 1000)
	other := s.open("10.0.0.12:40000", 9000)
	other.call(5, 7)
	c.send(nat.Client, sccrq())
	c.send(nat.Server, sccrp())
	at := c.seq[nat.Client]
	m := ocrq(5)
	c.at(nat.Client, at+100, 24, m[100:])
	c.at(nat.Client, at, 24, m[:100])
	c.seq[nat.Client] += uint32(len(m))
	reply := c.seq[nat.Server]
	two := append(ocrp(3, 5, 1), sli(5)...)
	c.at(nat.Server, reply+32, 24, two[32:])
	c.at(nat.Server, reply, 24, two[:32])
	c.at(nat.Server, reply, 24, two[:32])
	c.seq[nat.Server] += uint32(len(two))
	// This one is not in the capture, but acknowledged.
	c.seq[nat.Client] += 24
	c.send(nat.Server, message(5, 16))
	c.send(nat.Client, ccrq(5))
	c.send(nat.Server, cdn(3))
	_, sum, text, out := s.run(Options{Seed: 1, Public: public})
	call := sum.Calls[1]
	if len(sum.Calls) != 2 || call.Up.IsZero() || call.Reason != "cleared by the client" || sum.Connections[0].Unparsed != "" {
		t.Fatalf("%+v\n%s", sum.Calls, text)
	}
	if !strings.Contains(text, "#1   server  Set-Link-Info: Peer's Call ID ") {
		t.Errorf("what came too early is not there\n%s", text)
	}
	told := *call.Client.TranslatedCallID
	if told == 5 {
		t.Fatalf("the second call was told 5")
	}
	n := 0
	for _, p := range out {
		b := p.Data
		if len(b) >= 72 && b[9] == 6 && be.Uint16(b[20:]) == 1723 && be.Uint16(b[22:]) == 40000 && be.Uint16(b[48:]) == 8 {
			if n++; be.Uint16(b[54:]) != told {
				t.Errorf("a reply was written with %d, told was %d", be.Uint16(b[54:]), told)
			}
		}
	}
	if n == 0 {
		t.Errorf("no reply was written\n%s", text)
	}
}

// Each failure is said in words.
func TestDiagnosis(t *testing.T) {
	for _, c := range []struct {
		name string
		play func(*scene)
		o    Options
		want []string
	}{
		{"one way", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.call(5, 6)
			c.gre(nat.Client, 6, 4)
		}, Options{}, []string{"GRE: 4 packets (144 bytes) from the client, none from the server",
			"the client's GRE was seen, none from the server: a firewall between this point and the server may block protocol 47"}},
		{"the other way", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.call(5, 6)
			c.gre(nat.Server, 5, 1)
		}, Options{}, []string{"the server's GRE was seen, none from the client"}},
		{"wrong ID", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.call(5, 6)
			c.gre(nat.Client, 6, 4)
			c.gre(nat.Server, 77, 2)
		}, Options{}, []string{"GRE of no call that is known: 198.51.100.2 > 10.0.0.11, Call ID 77",
			"GRE of the server with Call ID 77, which is no call's: something between translates Call IDs wrongly"}},
		{"no GRE", func(s *scene) { s.open("10.0.0.11:40000", 1).call(5, 6) }, Options{},
			[]string{"no GRE in the whole capture"}},
		{"no GRE of this one", func(s *scene) {
			s.open("10.0.0.11:40000", 1).call(5, 6)
			c := s.open("10.0.0.12:40000", 1)
			c.call(5, 7)
			c.gre(nat.Client, 7, 1)
		}, Options{}, []string{"no GRE was seen from either end"}},
		{"protocol unreachable", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.call(5, 6)
			c.gre(nat.Client, 6, 1)
			last := s.packets[len(s.packets)-1].Data
			s.ip(server.Addr(), netip.MustParseAddr("10.0.0.11"), 1, append([]byte{3, 2, 0, 0, 0, 0, 0, 0}, last[:28]...))
		}, Options{}, []string{"198.51.100.2 says about GRE with Call ID 6 from 10.0.0.11 to 198.51.100.2: protocol unreachable",
			"198.51.100.2 answered GRE with ICMP: protocol unreachable"}},
		{"busy", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.send(nat.Client, sccrq())
			c.send(nat.Server, sccrp())
			c.send(nat.Client, ocrq(5))
			c.send(nat.Server, ocrp(0, 5, 4))
		}, Options{}, []string{"never came up: server refused the call: busy (result 4)"}},
		{"no answer", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.send(nat.Client, ocrq(5))
			s.now = s.now.Add(20 * time.Second)
			c.segment(nat.Client, 16, nil)
		}, Options{}, []string{"no answer to Outgoing-Call-Request from the server in the 20s until the capture ends"}},
		{"no answer for long", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.send(nat.Client, ocrq(5))
			s.now = s.now.Add(100 * time.Second)
			c.segment(nat.Client, 16, nil)
		}, Options{}, []string{"12:01:15.030000  #1           call 1 ended: no answer to Outgoing-Call-Request from the server",
			"never came up: no answer to Outgoing-Call-Request from the server"}},
		{"no server", func(s *scene) {
			c := s.dial("10.0.0.11:40000", 1)
			c.at(nat.Client, 1, 2, nil)
			c.at(nat.Client, 1, 2, nil)
		}, Options{}, []string{"no answer from the server to 2 SYN"}},
		{"reset", func(s *scene) {
			c := s.dial("10.0.0.11:40000", 1)
			c.segment(nat.Client, 2, nil)
			c.segment(nat.Server, 4|16, nil)
		}, Options{}, []string{"refused: reset by the server", "refused: reset before it began"}},
		{"not PPTP", func(s *scene) {
			s.open("10.0.0.11:40000", 1).send(nat.Client, []byte("GET / HTTP/1.0\r\n\r\n"))
		}, Options{}, []string{"not understood, passes as it is: from the client: wrong magic cookie"}},
		{"limit", func(s *scene) {
			s.open("10.0.0.11:40000", 1).call(5, 6)
			s.open("10.0.0.11:40001", 2).call(5, 6)
		}, Options{Table: nat.Config{Limits: nat.Limits{ConnectionsPerClient: 1}}},
			[]string{"refused by the router: limit reached: 1 control connections of client 10.0.0.11"}},
		{"call limit", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.call(5, 6)
			c.send(nat.Client, ocrq(6))
			c.send(nat.Server, ocrp(7, 6, 1))
		}, Options{Table: nat.Config{Limits: nat.Limits{CallsPerConnection: 1}}},
			[]string{"refused by this router: limit reached: 1 calls of one control connection"}},
		{"from the middle", func(s *scene) {
			c := s.dial("10.0.0.11:40000", 1)
			c.send(nat.Client, message(5, 16))
			c.send(nat.Client, ocrq(5))
			c.send(nat.Server, ocrp(6, 5, 1))
		}, Options{}, []string{"control connection 10.0.0.11:40000 > 198.51.100.2:1723, already open",
			"its beginning is not in the capture", "call 1 established"}},
		{"incoming", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.send(nat.Server, icrq(9))
			c.send(nat.Client, icrp(8, 9))
			c.send(nat.Server, iccn(8))
			c.gre(nat.Client, 9, 1)
			c.gre(nat.Server, 8, 1)
		}, Options{}, []string{"call 1, incoming: client Call ID 8, server Call ID 9", "GRE was seen in both directions"}},
		{"fragments", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			c.call(5, 6)
			gre := []byte{0x30, 0x01, 0x88, 0x0b, 0, 4, 0, 6, 0, 0, 0, 1, 0xc0, 0x21, 1, 1}
			s.raw(c.ends[0].Addr(), server.Addr(), 47, 0x2000, gre)
			s.raw(c.ends[0].Addr(), server.Addr(), 47, 2, gre)
		}, Options{}, []string{"IP fragment of GRE, 10.0.0.11 > 198.51.100.2", "GRE: 1 packet (36 bytes) from the client", "2 IP fragments"}},
		{"snapshot length", func(s *scene) {
			s.snap = 96
			s.open("10.0.0.11:40000", 1).call(5, 6)
		}, Options{}, []string{"the capture cut 100 bytes off this segment", "Outgoing-Call-Request: Call ID 5", "call 1 established", "3 control segments that the capture cut"}},
		{"malformed", func(s *scene) {
			s.add([]byte{0x45, 0, 0})
			s.add([]byte{0x41, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8})
			s.ip(public, server.Addr(), 47, []byte{0x00, 0x01, 0x88, 0x0b, 0, 0, 0, 0})
			s.ip(public, server.Addr(), 47, []byte{0x20, 0x01, 0x88})
			s.ip(public, server.Addr(), 47, make([]byte, 8))
			s.ip(public, server.Addr(), 6, []byte{6, 187, 6, 187, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 16, 0, 0, 0, 0, 0, 0})
		}, Options{}, []string{"the capture cut the headers off", "the IP header is impossible", "enhanced GRE without a key",
			"the GRE header is cut", "the TCP header is impossible", "5 packets that can't be read", "1 packets of other GRE, not PPTP's"}},
		{"nothing", func(s *scene) { s.ip(public, server.Addr(), 17, make([]byte, 8)) }, Options{}, []string{"No PPTP in this capture."}},
		{"both sides of a NAT", func(s *scene) {
			a, b := s.dial("10.0.0.11:40000", 4711), s.dial("203.0.113.1:40000", 4711)
			a.segment(nat.Client, 2, nil)
			b.segment(nat.Client, 2, nil)
		}, Options{}, []string{"it is connection #1 on the other side of a NAT"}},
		{"both sides of a router", func(s *scene) {
			s.open("10.0.0.11:40000", 1).call(5, 6)
			var twice []pcap.Packet
			for _, p := range s.packets {
				again := p
				again.Data = bytes.Clone(p.Data)
				again.Data[8]--
				twice = append(twice, p, again)
			}
			s.packets = twice
		}, Options{}, []string{"packets are in the capture twice", "8 packets that are there twice", "8 of control connections"}},
		{"the clock jumps back", func(s *scene) {
			c := s.open("10.0.0.11:40000", 1)
			s.now = s.now.Add(-time.Hour)
			c.call(5, 6)
		}, Options{}, []string{"5 packets whose time lies before", "call 1 established"}},
	} {
		s := newScene(t)
		c.play(s)
		c.o.Seed = 1
		_, _, text, _ := s.run(c.o)
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", c.name, want, text)
			}
		}
	}
}

// The same tuple again is a new connection, and the calls of the old one end.
func TestReopened(t *testing.T) {
	s := newScene(t)
	s.open("10.0.0.11:40000", 1).call(5, 6)
	s.open("10.0.0.11:40000", 5000).call(5, 7)
	_, sum, text, _ := s.run(Options{Seed: 1})
	if len(sum.Connections) != 2 || len(sum.Calls) != 2 || sum.Calls[0].State != "ended" || sum.Calls[1].State != "established" {
		t.Errorf("%+v\n%s", sum, text)
	}
}

// Two clients with one port get two ports at the public address.
func TestPorts(t *testing.T) {
	s := newScene(t)
	s.open("10.0.0.11:40000", 1)
	s.open("10.0.0.12:40000", 2)
	s.open("203.0.113.1:40000", 3)
	_, sum, _, _ := s.run(Options{Seed: 1, Public: public})
	for i, want := range []string{"203.0.113.1:40000", "203.0.113.1:40001", "203.0.113.1:40000"} {
		if got := sum.Connections[i].PublicClient.String(); got != want {
			t.Errorf("client %d is %s, want %s", i, got, want)
		}
	}
}
