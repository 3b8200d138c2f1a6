package alg_test

import (
	"net/netip"
	"testing"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// dialFrom is connect from a port of one's choice.
func (r *rig) dialFrom(n byte, port uint16) *conn {
	r.t.Helper()
	c := r.dial(n)
	c.Close(r.now, "not this port")
	c.flow.Client = netip.AddrPortFrom(c.flow.Client.Addr(), port)
	var err error
	c.Connection, err = r.alg.Open(r.now, c.flow, c.Path())
	if err != nil {
		r.t.Fatal(err)
	}
	c.at(server, 0, nil, alg.SYN|alg.ACK)
	return c
}

func (r *rig) counted() {
	r.t.Helper()
	if counted, there := r.alg.Remembered(); counted != there {
		r.t.Errorf("%d bytes are counted as remembered, and %d are", counted, there)
	}
}

// A client that leaves a gap on every one of its connections has a share of the
// segments that may wait. Another client's wait as ever.
func TestHeldSegmentsAreShared(t *testing.T) {
	r := newRig(t, nat.Config{})
	echo := message(echoRequest, -1, -1)
	for port := range uint16(30) {
		c := r.dialFrom(1, 1000+port)
		for i := range 40 {
			c.at(client, 16+i*len(echo), echo, alg.ACK)
		}
	}
	if n := r.alg.Holding(); n < 50 || n > alg.MaxHeldTotal/2 {
		t.Errorf("one client has %d segments waiting", n)
	}
	for n := byte(10); n < 60; n++ {
		c := r.connect(n)
		for i := range 40 {
			c.at(client, 16+i*len(echo), echo, alg.ACK)
		}
	}
	if n := r.alg.Holding(); n > alg.MaxHeldTotal+50 {
		t.Errorf("%d segments wait, more than %d", n, alg.MaxHeldTotal)
	}
	c := r.connect(200)
	late := c.at(client, len(echo), echo, alg.ACK)
	if late.decided != 0 {
		t.Fatalf("the segment of a client that has nothing else waiting was decided: %d", late.verdict)
	}
	c.send2(0, echo)
	late.went(t)
	r.empty()
}

// send2 gives the ALG the client's bytes at an offset and wants them to go on.
func (c *conn) send2(off int, payload []byte) {
	c.t.Helper()
	c.at(client, off, payload, alg.ACK).went(c.t)
}

// Clients whose servers acknowledge nothing fill what may be remembered. Then
// their segments are dropped until there are acknowledgements; messages of
// connections with little under way pass all the time.
func TestRememberedBytesAreBounded(t *testing.T) {
	r := newRig(t, nat.Config{})
	long := with(make([]byte, 60000), 0, 60000)
	copy(long[2:], message(echoRequest, -1, -1)[2:12])
	long[8], long[9] = 0, 99 // of a type that nobody knows
	var greedy []*conn
	for n := range byte(200) {
		c := r.connect(n)
		for at := 0; at < len(long); at += 1000 {
			c.at(client, at, long[at:at+1000], alg.ACK)
		}
		greedy = append(greedy, c)
	}
	r.counted()
	if counted, _ := r.alg.Remembered(); counted > alg.MaxHistoryTotal+200*(alg.KeepHistory+1000) || counted < alg.MaxHistoryTotal {
		t.Errorf("%d bytes are remembered", counted)
	}
	if r.alg.Counters.DroppedBudget == 0 {
		t.Error("nothing was dropped")
	}
	polite := r.connect(250)
	told := id(polite.send(client, message(ocrq, 5, -1)), 12)
	polite.acked[client] = polite.top[client]
	polite.send(server, message(ocrp, 9, told))
	polite.acked[server] = polite.top[server]
	for range 100 {
		polite.send(client, message(echoRequest, -1, -1))
		polite.acked[client] = polite.top[client]
		polite.send(server, message(echoReply, -1, -1))
		polite.acked[server] = polite.top[server]
	}
	// What was dropped passes when it comes again behind an acknowledgement.
	last := greedy[199]
	last.acked[client] = 0
	for at := 0; at < len(long); at += 1000 {
		last.acked[client] = at
		last.at(server, 0, nil, alg.ACK)
		last.send2(at, long[at:at+1000])
	}
	r.counted()
	r.empty()
	if counted, there := r.alg.Remembered(); counted != 0 || there != 0 {
		t.Errorf("in the end %d bytes are counted and %d are there", counted, there)
	}
}

// A stream that is not PPTP is not remembered, and gives back what was.
func TestUnparsedGivesBack(t *testing.T) {
	r := newRig(t, nat.Config{})
	c := r.connect(1)
	echo := message(echoRequest, -1, -1)
	for range 100 {
		c.send(client, echo)
	}
	c.send(client, []byte("GET / HTTP/1.1\r\n\r\n"))
	if c.Unparsed == "" {
		t.Fatal("HTTP was understood")
	}
	if _, there := r.alg.Remembered(); there < 1000 {
		t.Errorf("%d bytes are remembered, which may be sent again", there)
	}
	// One of them is sent again, with other bytes: the receiver gets the old ones.
	s := c.at(client, 10*len(echo), []byte("0123456789abcdef"), alg.ACK)
	same(t, "repeated", s.Payload, echo)
	c.acked[client] = c.top[client]
	c.send(server, message(echoReply, -1, -1))
	r.counted()
	if counted, _ := r.alg.Remembered(); counted != 0 {
		t.Errorf("%d bytes are remembered though all were acknowledged", counted)
	}
	r.empty()
}
