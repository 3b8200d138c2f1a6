package ppp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pptp-alg/e2e/ppp/mppe"
)

const (
	client = 0
	server = 1
)

var (
	serverAddress = netip.MustParseAddr("192.0.2.1")
	clientAddress = netip.MustParseAddr("192.0.2.77")
)

func secrets(user string) (string, bool) { return "open sesame", user == "ali" }

// configs are a client and a server that agree on everything.
func configs(method Method, e Encryption) (Config, Config) {
	accm := uint32(0)
	c := Config{MRU: 1400, ACCM: &accm, Magic: true, PFC: true, ACFC: true, User: "ali", Password: "open sesame", Encryption: e,
		Offer: []Method{PAP, CHAPMD5, MSCHAPv2}}
	s := Config{MRU: 1450, Magic: true, PFC: true, ACFC: true, Name: "cave", Secret: secrets, Encryption: e,
		Address: serverAddress, Assign: clientAddress}
	if method != NoMethod {
		s.Demand = []Method{method}
	}
	return c, s
}

func datagram(i int) []byte {
	b := bytes.Repeat([]byte{0x45}, 60)
	binary.BigEndian.PutUint32(b[4:], uint32(i))
	return b
}

func one(s mppe.Strength, stateless bool) Encryption {
	return Encryption{Strengths: []mppe.Strength{s}, Stateless: stateless, Stateful: !stateless, Required: true}
}

// Every method and every kind of encryption, over a link without vices.
func TestUp(t *testing.T) {
	type variant struct {
		method Method
		e      Encryption
		want   string
	}
	variants := []variant{{NoMethod, Encryption{}, "none"}, {PAP, Encryption{}, "none"}, {CHAPMD5, Encryption{}, "none"}, {MSCHAPv2, Encryption{}, "none"},
		{MSCHAPv2, AnyEncryption(), "MPPE 128 stateless"}, {CHAPMD5, AnyEncryption(), "none"}}
	for _, s := range strengths {
		variants = append(variants, variant{MSCHAPv2, one(s, true), fmt.Sprintf("MPPE %d stateless", s)},
			variant{MSCHAPv2, one(s, false), fmt.Sprintf("MPPE %d stateful", s)})
	}
	for _, v := range variants {
		t.Run(fmt.Sprint(v.method, " ", v.want), func(t *testing.T) {
			c, s := configs(v.method, v.e)
			p := newPair(t, 1, wire{order: true}, c, s)
			leaked := false
			p.tap = func(_ int, frame []byte) []byte {
				leaked = leaked || bytes.Contains(frame, datagram(0)[20:])
				return frame
			}
			p.start()
			p.up()
			if took := p.now.Sub(epoch); took > time.Second {
				t.Errorf("it took %v: a timer ran out on a link that loses nothing", took)
			}
			if got := p.ends[client].Local(); got != clientAddress {
				t.Errorf("the client has the address %v", got)
			}
			if p.ends[client].Remote() != serverAddress || p.ends[server].Remote() != clientAddress || p.ends[server].Local() != serverAddress {
				t.Errorf("addresses: client's other side %v, server's %v, own %v", p.ends[client].Remote(), p.ends[server].Remote(), p.ends[server].Local())
			}
			if p.ends[client].MTU() != 1450 || p.ends[server].MTU() != 1400 {
				t.Errorf("MTU %d and %d", p.ends[client].MTU(), p.ends[server].MTU())
			}
			for i, l := range p.ends {
				if l.Describe() != v.want {
					t.Errorf("end %d has encryption %s instead of %s", i, l.Describe(), v.want)
				}
			}
			if user := p.ends[server].User(); (user == "ali") != (v.method != NoMethod) {
				t.Errorf("the server takes the client for %q", user)
			}
			for i := range 600 {
				p.send(i%2, datagram(i))
				p.settle()
			}
			if len(p.got[0]) != 300 || len(p.got[1]) != 300 || !bytes.Equal(p.got[0][299], datagram(599)) {
				t.Fatalf("%d and %d datagrams arrived", len(p.got[0]), len(p.got[1]))
			}
			if leaked == (v.want != "none") {
				t.Errorf("datagrams in the clear: %v", leaked)
			}
			if err := p.ends[client].Send(make([]byte, 1451)); !errors.Is(err, ErrTooBig) {
				t.Errorf("too long a datagram: %v", err)
			}
			p.ends[client].Close(p.now)
			p.collect(client)
			p.dead()
			if a, b := p.ends[0].Err(), p.ends[1].Err(); !errors.Is(a, ErrClosed) || !errors.Is(b, ErrTerminated) {
				t.Errorf("ended with %v and %v", a, b)
			}
			for i, l := range p.ends {
				if s := l.Stats(); s.Malformed+s.Foreign+s.Undecoded+s.Clear > 0 {
					t.Errorf("end %d: %+v", i, s)
				}
			}
		})
	}
}

// Links that lose, copy and delay frames. Sooner or later both ends are up,
// and what arrives is what was sent.
func TestBadLinks(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 60
	}
	methods := []Method{NoMethod, PAP, CHAPMD5, MSCHAPv2}
	for seed := range seeds {
		method := methods[seed%4]
		e := Encryption{}
		if method == MSCHAPv2 {
			e = []Encryption{one(mppe.Bits128, true), one(mppe.Bits40, false), AnyEncryption(), one(mppe.Bits56, false)}[seed/4%4]
		}
		// Frames overtake each other only where nothing minds: a challenge
		// that comes after the next one gets the wrong answer.
		w := wire{loss: 20, copies: 10, late: 20, order: method == CHAPMD5 || method == MSCHAPv2}
		c, s := configs(method, e)
		c.MaxConfigure, s.MaxConfigure = 60, 60
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			p := newPair(t, seed, w, c, s)
			p.start()
			p.up()
			sent := map[string]bool{}
			for i := range 400 {
				for from := range p.ends {
					if p.ends[from].Phase() != Up {
						continue // late copies of its negotiation brought it down, for a while
					}
					d := datagram(2*i + from)
					sent[string(d)] = true
					p.send(from, d)
				}
				for end := p.now.Add(50 * time.Millisecond); p.now.Before(end) && p.step(); {
				}
			}
			for i := range p.got {
				for _, d := range p.got[i] {
					if !sent[string(d)] {
						t.Fatalf("end %d got what nobody sent: %x", i, d)
					}
				}
			}
			if n := len(p.got[0]) + len(p.got[1]); n < 100 {
				t.Errorf("%d of 800 datagrams arrived: %v", n, p)
			}
			p.ends[server].Close(p.now)
			p.collect(server)
			// The other end may never hear of it.
			p.until("the server is dead", func() bool { return p.ends[server].Phase() == Dead })
		})
	}
}

func TestWrongPassword(t *testing.T) {
	for _, method := range []Method{PAP, CHAPMD5, MSCHAPv2} {
		for _, user := range []string{"ali", "kasim"} {
			c, s := configs(method, Encryption{})
			if c.User = user; user == "ali" {
				c.Password = "open barley"
			}
			p := newPair(t, 1, wire{order: true}, c, s)
			p.start()
			p.dead()
			for i, l := range p.ends {
				if !errors.Is(l.Err(), ErrPassword) {
					t.Errorf("%v, user %s: end %d says %v", method, user, i, l.Err())
				}
			}
			if len(p.phases[server]) > 0 && p.ends[server].User() != "" {
				t.Errorf("%v: the server believes %q", method, p.ends[server].User())
			}
		}
	}
}

// The word that ends the authentication is lost. The proof comes again, and so
// does the word: always the same (RFC 1994 section 4.2).
func TestVerdictLost(t *testing.T) {
	for _, method := range []Method{PAP, CHAPMD5, MSCHAPv2} {
		c, s := configs(method, Encryption{})
		p := newPair(t, 1, wire{order: true}, c, s)
		lost := 0
		p.tap = func(to int, frame []byte) []byte {
			protocol, body, _ := ParseFrame(frame)
			verdict := protocol == ProtocolPAP || protocol == ProtocolCHAP && body[0] == byte(chapSuccess)
			if to == client && verdict && lost < 3 {
				lost++
				return nil
			}
			return frame
		}
		p.start()
		p.up()
		if lost != 3 {
			t.Errorf("%v: %d verdicts were lost", method, lost)
		}
	}
}

// A server that lets everybody in but does not know the password is found out
// by MS-CHAPv2 (RFC 2759 section 5).
func TestWrongProof(t *testing.T) {
	c, s := configs(MSCHAPv2, one(mppe.Bits128, true))
	p := newPair(t, 1, wire{order: true}, c, s)
	p.tap = func(to int, frame []byte) []byte {
		if at := bytes.Index(frame, []byte("S=")); to == client && at >= 0 {
			frame = bytes.Clone(frame)
			if frame[at+2]++; frame[at+2] == '9'+1 {
				frame[at+2] = '0'
			}
		}
		return frame
	}
	p.start()
	p.dead()
	if err := p.ends[client].Err(); !errors.Is(err, ErrProof) {
		t.Errorf("the client says %v", err)
	}
	for _, phase := range p.phases[client] {
		if phase == Up || phase == Network {
			t.Error("the client believed the server")
		}
	}
}

// Both sides prove themselves to each other, by different methods.
func TestBothDemand(t *testing.T) {
	c, s := configs(MSCHAPv2, one(mppe.Bits128, true))
	c.Demand, c.Secret, c.Name = []Method{CHAPMD5}, func(user string) (string, bool) { return "forty", user == "thieves" }, "ali"
	s.Offer, s.User, s.Password = []Method{CHAPMD5}, "thieves", "forty"
	p := newPair(t, 1, wire{order: true}, c, s)
	p.start()
	p.up()
	if a, b := p.ends[client].User(), p.ends[server].User(); a != "thieves" || b != "ali" {
		t.Errorf("the client takes the server for %q, the server the client for %q", a, b)
	}
}

func TestMethods(t *testing.T) {
	for _, v := range []struct {
		name          string
		demand, offer []Method
		want          Method
		err           error
	}{
		{"the favourite", []Method{MSCHAPv2, PAP}, []Method{PAP, MSCHAPv2}, MSCHAPv2, nil},
		{"the second", []Method{MSCHAPv2, CHAPMD5, PAP}, []Method{PAP}, PAP, nil},
		{"by the client's wish", []Method{MSCHAPv2, CHAPMD5, PAP}, []Method{PAP, CHAPMD5}, PAP, nil},
		{"none in common", []Method{MSCHAPv2}, []Method{PAP}, NoMethod, ErrMethod},
		{"the client has no password", []Method{MSCHAPv2}, nil, NoMethod, ErrMethod},
	} {
		t.Run(v.name, func(t *testing.T) {
			c, s := configs(NoMethod, Encryption{})
			c.Offer, s.Demand = v.offer, v.demand
			p := newPair(t, 1, wire{order: true}, c, s)
			p.start()
			if v.err != nil {
				p.dead()
				if err := p.ends[server].Err(); !errors.Is(err, v.err) {
					t.Errorf("the server says %v", err)
				}
				return
			}
			p.up()
			if got := p.ends[client].Demanded(); got != v.want {
				t.Errorf("%v was used", got)
			}
		})
	}
}

// Options that the other side does not take are done without.
func TestOptionsRefused(t *testing.T) {
	c, s := configs(PAP, Encryption{})
	s.RefuseLCP = []uint8{optionMRU, optionACCM, optionMagic, optionPFC, optionACFC}
	p := newPair(t, 1, wire{order: true}, c, s)
	long := true
	p.tap = func(to int, frame []byte) []byte {
		if to == client {
			long = long && bytes.HasPrefix(frame, []byte{addressAll, controlUI})
		}
		return frame
	}
	p.start()
	p.up()
	p.send(server, datagram(0))
	p.settle()
	if !long {
		t.Error("the server shortened frames although it had rejected ACFC")
	}
	if p.ends[server].MTU() != defaultMRU || len(p.got[client]) != 1 {
		t.Errorf("MTU %d, %d datagrams", p.ends[server].MTU(), len(p.got[client]))
	}
	if o := p.ends[client].options; o.magic != 0 || o.mru != 0 || o.accm != nil || o.pfc || o.acfc {
		t.Errorf("the client still wants %+v", o)
	}

	for name, change := range map[string]func(c, s *Config){
		"no address for the client": func(_, s *Config) { s.Assign = netip.Addr{} },
		"the option refused":        func(_, s *Config) { s.RefuseIPCP = []uint8{optionAddress} },
		"the client insists":        func(c, _ *Config) { c.Address = netip.MustParseAddr("192.0.2.78") },
	} {
		c, s := configs(PAP, Encryption{})
		change(&c, &s)
		p := newPair(t, 1, wire{order: true}, c, s)
		p.start()
		p.dead()
		if a, b := p.ends[client].Err(), p.ends[server].Err(); !errors.Is(a, ErrNoIPv4) && !errors.Is(b, ErrNoIPv4) {
			t.Errorf("%s: %v and %v", name, a, b)
		}
	}
}

func TestEncryptionRefused(t *testing.T) {
	for _, v := range []struct {
		name           string
		client, server Encryption
		want           string // "" if a link must not come up
	}{
		{"not by the server", one(mppe.Bits128, true), Encryption{}, ""},
		{"not by the client", Encryption{}, one(mppe.Bits128, true), ""},
		{"other strengths", one(mppe.Bits128, true), one(mppe.Bits40, true), ""},
		{"stateless against stateful", one(mppe.Bits128, true), one(mppe.Bits128, false), ""},
		{"the common strength", AnyEncryption(), one(mppe.Bits56, true), "MPPE 56 stateless"},
		{"stateful, by the server's wish", AnyEncryption(), one(mppe.Bits56, false), "MPPE 56 stateful"},
		{"in the clear, as nobody insists", AnyEncryption(), Encryption{}, "none"},
		{"in the clear for lack of a strength", Encryption{Strengths: []mppe.Strength{mppe.Bits40}, Stateless: true},
			Encryption{Strengths: []mppe.Strength{mppe.Bits128}, Stateless: true}, "none"},
	} {
		for _, swap := range []bool{false, true} {
			t.Run(fmt.Sprint(v.name, swap), func(t *testing.T) {
				c, s := configs(MSCHAPv2, Encryption{})
				if c.Encryption, s.Encryption = v.client, v.server; swap {
					c.Encryption, s.Encryption = v.server, v.client
				}
				p := newPair(t, 1, wire{order: true}, c, s)
				p.start()
				if v.want == "" {
					p.dead()
					if a, b := p.ends[0].Err(), p.ends[1].Err(); !errors.Is(a, ErrEncryption) && !errors.Is(b, ErrEncryption) {
						t.Errorf("%v and %v", a, b)
					}
					return
				}
				p.up()
				// What comes too early is kept, so that no timer has to run out.
				if took := p.now.Sub(epoch); took > time.Second {
					t.Errorf("it took %v", took)
				}
				if got := p.ends[0].Describe() + ", " + p.ends[1].Describe(); got != v.want+", "+v.want {
					t.Errorf("agreed on %s", got)
				}
				p.send(client, datagram(1))
				p.send(server, datagram(2))
				p.settle()
				if len(p.got[0]) != 1 || len(p.got[1]) != 1 {
					t.Errorf("%d and %d datagrams", len(p.got[0]), len(p.got[1]))
				}
			})
		}
	}
	c, s := configs(CHAPMD5, one(mppe.Bits128, true))
	p := newPair(t, 1, wire{order: true}, c, s)
	p.start()
	p.dead()
	if err := p.ends[client].Err(); err == nil || !strings.Contains(err.Error(), "MS-CHAPv2") {
		t.Errorf("encryption without keys: %v", err)
	}
}

// A link that needs encryption takes nothing that comes in the clear.
func TestClearDatagram(t *testing.T) {
	c, s := configs(MSCHAPv2, one(mppe.Bits128, true))
	p := newPair(t, 1, wire{order: true}, c, s)
	p.start()
	p.up()
	p.ends[client].Receive(p.now, append([]byte{addressAll, controlUI, 0, 0x21}, datagram(0)...))
	p.collect(client)
	if len(p.got[client]) != 0 || p.ends[client].Stats().Clear != 1 {
		t.Errorf("%d datagrams, %+v", len(p.got[client]), p.ends[client].Stats())
	}
}

// A stateful cipher after a loss: Reset-Request, a fresh start, and on.
func TestReset(t *testing.T) {
	c, s := configs(MSCHAPv2, one(mppe.Bits128, false))
	p := newPair(t, 1, wire{order: true}, c, s)
	p.start()
	p.up()
	lose := false
	p.tap = func(_ int, frame []byte) []byte {
		if lose {
			lose = false
			return nil
		}
		return frame
	}
	for i := range 10 {
		lose = i == 3
		p.send(client, datagram(i))
		p.settle()
	}
	// 3 is lost, 4 shows it and asks.
	if n := len(p.got[server]); n != 8 || p.ends[server].Stats().Resets != 1 {
		t.Errorf("%d of 10 datagrams arrived, %+v", n, p.ends[server].Stats())
	}
}

// An end that hears itself (RFC 1661 section 6.4).
func TestLoop(t *testing.T) {
	l := New(Config{Magic: true})
	l.Start(epoch)
	now := epoch
	for range 1000 {
		for _, f := range l.Take().Frames {
			l.Receive(now, f)
		}
		if l.Phase() == Dead {
			break
		}
		now = now.Add(100 * time.Millisecond)
		if d := l.Deadline(); !d.IsZero() && !now.Before(d) {
			l.Tick(now)
		}
	}
	if l.Phase() != Dead || !errors.Is(l.Err(), ErrLoop) {
		t.Errorf("%v, %v", l.Phase(), l.Err())
	}
}

// Nobody is there: Max-Configure requests, then the end.
func TestNobody(t *testing.T) {
	p := newPair(t, 1, wire{loss: 100}, Config{}, Config{})
	p.ends[0].Start(p.now)
	frames := len(p.ends[0].Take().Frames)
	for p.ends[0].Phase() != Dead {
		p.now = p.ends[0].Deadline()
		p.ends[0].Tick(p.now)
		frames += len(p.ends[0].Take().Frames)
	}
	if !errors.Is(p.ends[0].Err(), ErrNoAnswer) || frames != 10 || p.now.Sub(epoch) != 30*time.Second {
		t.Errorf("%v after %d requests and %v", p.ends[0].Err(), frames, p.now.Sub(epoch))
	}
	if d := p.ends[0].Deadline(); !d.IsZero() {
		t.Errorf("a dead link wants to be called at %v", d)
	}
}

// LCP echoes: answered while the other side lives, the end when it does not.
func TestEcho(t *testing.T) {
	c, s := configs(PAP, Encryption{})
	c.Echo = time.Second
	p := newPair(t, 1, wire{order: true}, c, s)
	p.start()
	p.up()
	p.until("twenty echoes", func() bool { return p.ends[client].Stats().Echoes == 20 })
	p.loss = 100
	p.until("the client gives up", func() bool { return p.ends[client].Phase() == Dead })
	if err := p.ends[client].Err(); !errors.Is(err, ErrEcho) {
		t.Errorf("the client says %v", err)
	}
}

// What this end does not know is rejected, and only once LCP is up.
func TestProtocolReject(t *testing.T) {
	c, s := configs(NoMethod, Encryption{})
	p := newPair(t, 1, wire{order: true}, c, s)
	p.start()
	p.up()
	ipv6 := []byte{addressAll, controlUI, 0x80, 0x57, 1, 1, 0, 4}
	p.ends[client].Receive(p.now, ipv6)
	frames := p.ends[client].Take().Frames
	if len(frames) != 1 || !bytes.HasPrefix(frames[0], []byte{addressAll, controlUI, 0xc0, 0x21, byte(protocolReject)}) ||
		!bytes.HasSuffix(frames[0], ipv6[2:]) {
		t.Errorf("IPV6CP is answered with %x", frames)
	}
	p.ends[client].Receive(p.now, []byte{addressAll, controlUI, 0xc0, 0x21, 77, 9, 0, 4})
	frames = p.ends[client].Take().Frames
	if len(frames) != 1 || frames[0][4] != byte(codeReject) || !bytes.HasSuffix(frames[0], []byte{77, 9, 0, 4}) {
		t.Errorf("LCP code 77 is answered with %x", frames)
	}
}

// The other side begins anew: so does this one, without a new connection.
func TestRenegotiation(t *testing.T) {
	c, s := configs(MSCHAPv2, one(mppe.Bits128, true))
	p := newPair(t, 1, wire{order: true}, c, s)
	p.start()
	p.up()
	fresh := newPair(t, 2, wire{}, c, s).ends[client]
	p.ends[client] = fresh
	fresh.Start(p.now)
	p.collect(client)
	p.until("down", func() bool { return p.ends[server].Phase() != Up })
	p.up()
	p.send(client, datagram(1))
	p.send(server, datagram(2))
	p.settle()
	if len(p.got[0]) != 1 || len(p.got[1]) != 1 {
		t.Errorf("%d and %d datagrams after a new beginning", len(p.got[0]), len(p.got[1]))
	}
}

// Answers to what was never asked are counted: somebody else's, perhaps.
func TestForeign(t *testing.T) {
	l := New(Config{Magic: true})
	l.Start(epoch)
	request := l.Take().Frames[0]
	foreign := bytes.Clone(request)
	foreign[4], foreign[5] = byte(configureAck), request[5]+100
	l.Receive(epoch, foreign)
	other := bytes.Clone(request)
	other[4] = byte(configureAck)
	other[len(other)-1] ^= 1 // another magic number
	l.Receive(epoch, other)
	if s := l.Stats(); s.Foreign != 2 {
		t.Errorf("%+v", s)
	}
	if l.lcp.state != requestSent {
		t.Errorf("state %d", l.lcp.state)
	}
}
