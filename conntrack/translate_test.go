package conntrack

import (
	"errors"
	"testing"
	"time"
)

// Addresses of the tests, named as in the packages' documentation: A and B are the true ones of
// client and server, a prime is what the other side knows.
const (
	clientAddr = "192.168.77.11"
	publicAddr = "203.0.113.1"
	serverAddr = "203.0.113.2"
)

// masquerade returns the two entries of a call of a client behind one public address.
func masquerade(clientReal, clientTold, serverReal, serverTold uint16) (toClient, toServer Entry) {
	toClient = Entry{
		Arrives: GRE{Src: addr(serverAddr), Dst: addr(publicAddr), CallID: clientTold},
		Leaves:  GRE{Src: addr(serverAddr), Dst: addr(clientAddr), CallID: clientReal},
		Timeout: time.Hour,
	}
	toServer = Entry{
		Arrives: GRE{Src: addr(clientAddr), Dst: addr(serverAddr), CallID: serverTold},
		Leaves:  GRE{Src: addr(publicAddr), Dst: addr(serverAddr), CallID: serverReal},
		Timeout: time.Hour,
	}
	return toClient, toServer
}

// lab is a client, a router and a server.
type lab struct {
	router         *namespace
	client, server *namespace
	ct             *Client
	atClient       *greSocket
	atServer       *greSocket
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{router: newNamespace(t)}
	l.client = l.router.connect(clientAddr+"/24", "192.168.77.1/24")
	l.server = l.router.connect(serverAddr+"/24", publicAddr+"/24")
	l.router.rules(natChain)
	l.ct = l.router.client()
	l.atClient, l.atServer = l.client.gre(), l.server.gre()
	return l
}

func create(t *testing.T, c *Client, entries ...Entry) {
	t.Helper()
	for _, e := range entries {
		if err := c.Create(e); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCreateTranslatesBothWays(t *testing.T) {
	for _, c := range []struct {
		name                                           string
		clientReal, clientTold, serverReal, serverTold uint16
	}{
		{"addresses only", 5, 5, 9, 9},
		{"client's Call ID", 5, 777, 9, 9},
		{"server's Call ID", 5, 5, 9, 888},
		{"both", 5, 777, 9, 888},
		{"both use 0", 0, 777, 0, 888},
		{"extremes", 65535, 1, 1, 65535},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			toClient, toServer := masquerade(c.clientReal, c.clientTold, c.serverReal, c.serverTold)
			create(t, l.ct, toClient, toServer)
			for i := 0; i < 3; i++ {
				l.atClient.send(serverAddr, c.serverTold, "from client")
				l.atServer.expect(toServer.Leaves, "from client")
				l.atServer.send(publicAddr, c.clientTold, "from server")
				l.atClient.expect(toClient.Leaves, "from server")
			}
		})
	}
}

// A stream that no entry knows is not translated, even between the same two hosts.
func TestOtherCallsAreNotTranslated(t *testing.T) {
	l := newLab(t)
	toClient, toServer := masquerade(5, 777, 9, 888)
	create(t, l.ct, toClient, toServer)
	l.atServer.send(publicAddr, 778, "of another call")
	l.atClient.nothing()
	l.atServer.send(publicAddr, 5, "the untranslated Call ID")
	l.atClient.nothing()
}

func TestPortForwarding(t *testing.T) {
	// The server is inside: the client dials the public address. A is outside, B inside.
	l := newLab(t)
	inside, outside := l.client, l.server
	_, _ = inside, outside
	toServer := Entry{
		Arrives: GRE{addr(serverAddr), addr(publicAddr), 888},
		Leaves:  GRE{addr(serverAddr), addr(clientAddr), 9},
		Timeout: time.Hour,
	}
	toClient := Entry{
		Arrives: GRE{addr(clientAddr), addr(serverAddr), 777},
		Leaves:  GRE{addr(publicAddr), addr(serverAddr), 5},
		Timeout: time.Hour,
	}
	create(t, l.ct, toServer, toClient)
	l.atServer.send(publicAddr, 888, "to the inside server")
	l.atClient.expect(toServer.Leaves, "to the inside server")
	l.atClient.send(serverAddr, 777, "to the outside client")
	l.atServer.expect(toClient.Leaves, "to the outside client")
}

func TestHairpin(t *testing.T) {
	l := newLab(t)
	const secondAddr = "192.168.78.12"
	second := l.router.connect(secondAddr+"/24", "192.168.78.1/24").gre()
	toServer := Entry{
		Arrives: GRE{addr(clientAddr), addr(publicAddr), 888},
		Leaves:  GRE{addr(publicAddr), addr(secondAddr), 9},
		Timeout: time.Hour,
	}
	toClient := Entry{
		Arrives: GRE{addr(secondAddr), addr(publicAddr), 777},
		Leaves:  GRE{addr(publicAddr), addr(clientAddr), 5},
		Timeout: time.Hour,
	}
	create(t, l.ct, toServer, toClient)
	l.atClient.send(publicAddr, 888, "there")
	second.expect(toServer.Leaves, "there")
	second.send(publicAddr, 777, "and back")
	l.atClient.expect(toClient.Leaves, "and back")
}

// Without NAT the entries still translate Call IDs, and let the call through as established.
func TestNoAddressTranslation(t *testing.T) {
	l := newLab(t)
	toServer := Entry{
		Arrives: GRE{addr(clientAddr), addr(serverAddr), 888},
		Leaves:  GRE{addr(clientAddr), addr(serverAddr), 9},
		Timeout: time.Hour,
	}
	toClient := Entry{
		Arrives: GRE{addr(serverAddr), addr(clientAddr), 5},
		Leaves:  GRE{addr(serverAddr), addr(clientAddr), 5},
		Timeout: time.Hour,
	}
	create(t, l.ct, toServer, toClient)
	l.atClient.send(serverAddr, 888, "there")
	l.atServer.expect(toServer.Leaves, "there")
	l.atServer.send(clientAddr, 5, "and back")
	l.atClient.expect(toClient.Leaves, "and back")
}

// The placeholder that encodeEntry uses may be the server's own address.
func TestPlaceholderAddressInUse(t *testing.T) {
	l := newLab(t)
	const odd = "192.0.2.1"
	at := l.router.connect(odd+"/24", "192.0.2.254/24").gre()
	e := Entry{
		Arrives: GRE{addr(clientAddr), addr(odd), 888},
		Leaves:  GRE{addr(publicAddr), addr(odd), 9},
		Timeout: time.Hour,
	}
	create(t, l.ct, e)
	l.atClient.send(odd, 888, "hello")
	at.expect(e.Leaves, "hello")
}

func TestTranslationInZone(t *testing.T) {
	l := newLab(t)
	l.router.rules(zoneAll(7))
	toClient, toServer := masquerade(5, 777, 9, 888)

	// Entries of the default zone are not seen by packets in zone 7.
	create(t, l.ct, toClient)
	l.atServer.send(publicAddr, 777, "early")
	l.atClient.nothing()

	toClient.Zone, toServer.Zone = Zone{ID: 7}, Zone{ID: 7}
	// The packet above makes a flow of its own in the zone: what Replace is for.
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
		if _, err := l.ct.get(ctaTupleOrig, protocolGRE, toClient.original(), toClient.Zone); err == nil {
			break // a busy machine forwards some time after it was sent to
		}
	}
	var exists *ExistsError
	err := l.ct.Create(toClient)
	for i := 0; i < 100 && err == nil; i++ { // on a busy machine the packet is still under way
		if err := l.ct.Delete(toClient); err != nil {
			t.Fatal(err)
		}
		l.atServer.send(publicAddr, 777, "early")
		time.Sleep(20 * time.Millisecond)
		err = l.ct.Create(toClient)
	}
	if !errors.As(err, &exists) || exists.Side != Original || exists.Ours() {
		t.Fatalf("Create after an early packet: %v, want an ordinary flow with the original tuple", err)
	}
	if err := l.ct.Replace(toClient); err != nil {
		t.Fatal(err)
	}
	create(t, l.ct, toServer)
	l.atServer.send(publicAddr, 777, "from server")
	l.atClient.expect(toClient.Leaves, "from server")
	l.atClient.send(serverAddr, 888, "from client")
	l.atServer.expect(toServer.Leaves, "from client")

	for _, e := range []Entry{toClient, toServer} {
		s, err := l.ct.Get(e)
		if err != nil || !s.Equal(e) {
			t.Fatalf("Get: %+v, %v", s, err)
		}
		if err := l.ct.Delete(e); err != nil {
			t.Fatal(err)
		}
	}
}

// Two streams that leave looking the same, as when a client has two calls with one Call ID: entries
// in the default zone exclude each other, one with a zone for its reply tuple does not. Both
// translate, since packets never match a reply tuple.
func TestTwinsInReplyZone(t *testing.T) {
	l := newLab(t)
	first, _ := masquerade(5, 777, 9, 888)
	second, _ := masquerade(5, 778, 9, 889)
	create(t, l.ct, first)
	var exists *ExistsError
	if err := l.ct.Create(second); !errors.As(err, &exists) || exists.Side != Reply || !exists.Ours() {
		t.Fatalf("Create of the same leaving tuple: %v, want ours to be in the way", err)
	}
	second.Zone = Zone{ID: 65535, Direction: ReplyOnly}
	create(t, l.ct, second)
	for _, e := range []Entry{first, second, first} {
		l.atServer.send(publicAddr, e.Arrives.CallID, "to the client")
		l.atClient.expect(e.Leaves, "to the client")
	}
	if err := l.ct.Delete(first); err != nil {
		t.Fatal(err)
	}
	l.atServer.send(publicAddr, 778, "to the client")
	l.atClient.expect(second.Leaves, "to the client")
	if err := l.ct.Delete(second); err != nil {
		t.Fatal(err)
	}
	if left, err := l.ct.List(); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestReplaceLosesCountersAndKeepsTranslating(t *testing.T) {
	l := newLab(t)
	l.router.must(func() error { return SetAccounting(true) })
	toClient, _ := masquerade(5, 777, 9, 888)
	create(t, l.ct, toClient)
	const packets = 4
	for i := 0; i < packets; i++ {
		l.atServer.send(publicAddr, 777, "0123456789")
		l.atClient.expect(toClient.Leaves, "0123456789")
	}
	s, err := l.ct.Get(toClient)
	if err != nil {
		t.Fatal(err)
	}
	// 20 bytes of IP, 12 of GRE, 10 of payload.
	if want := (Counters{Packets: packets, Bytes: packets * 42}); !s.Accounted || s.Counters != want {
		t.Fatalf("counters %+v (accounted: %v), want %+v", s.Counters, s.Accounted, want)
	}
	if s.Remaining > time.Hour || s.Remaining < time.Hour-time.Minute {
		t.Errorf("remaining %v of an hour", s.Remaining)
	}

	toClient.Timeout = 2 * time.Hour
	toClient.Leaves.CallID = 6 // the translation may change as well
	if err := l.ct.Replace(toClient); err != nil {
		t.Fatal(err)
	}
	s, err = l.ct.Get(toClient)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Accounted || s.Counters != (Counters{}) {
		t.Errorf("counters %+v after Replace, want none", s.Counters)
	}
	if s.Remaining <= time.Hour {
		t.Errorf("remaining %v after Replace with two hours", s.Remaining)
	}
	l.atServer.send(publicAddr, 777, "after")
	l.atClient.expect(toClient.Leaves, "after")
}

// A packet does not end the entry, nor change its timeout: that is what IPS_FIXED_TIMEOUT is for.
func TestTimeoutIsFixed(t *testing.T) {
	l := newLab(t)
	toClient, _ := masquerade(5, 777, 9, 888)
	toClient.Timeout = 4 * time.Second
	create(t, l.ct, toClient)
	end := time.Now().Add(toClient.Timeout)
	l.atServer.send(publicAddr, 777, "one")
	l.atClient.expect(toClient.Leaves, "one")
	s, err := l.ct.Get(toClient)
	if err != nil {
		t.Fatal(err)
	}
	if s.Remaining > toClient.Timeout {
		t.Errorf("remaining %v of %v, after a packet", s.Remaining, toClient.Timeout)
	}
	time.Sleep(time.Until(end) + 100*time.Millisecond)
	if _, err := l.ct.Get(toClient); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get after the timeout: %v, want ErrNotFound", err)
	}
}

func TestAccounting(t *testing.T) {
	l := newLab(t)
	var before, after bool
	l.router.must(func() (err error) {
		if before, err = Accounting(); err != nil {
			return err
		}
		if err = SetAccounting(!before); err != nil {
			return err
		}
		after, err = Accounting()
		return err
	})
	if before == after {
		t.Errorf("accounting is %v, before and after a change", after)
	}
	l.router.must(func() error { return SetAccounting(false) })
	toClient, _ := masquerade(5, 777, 9, 888)
	create(t, l.ct, toClient)
	if s, err := l.ct.Get(toClient); err != nil || s.Accounted {
		t.Errorf("Get with accounting off: accounted %v, %v", s.Accounted, err)
	}
}
