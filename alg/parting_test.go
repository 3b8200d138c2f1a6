package alg_test

import (
	"errors"
	"slices"
	"testing"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// parting wants a parting, and returns its messages.
func (c *conn) parting(to nat.Side) (alg.Parting, [][]byte) {
	c.t.Helper()
	p, err := c.Parting(to)
	if err != nil {
		c.t.Fatal(err)
	}
	var messages [][]byte
	for b := p.Message; len(b) > 0; {
		n := int(be.Uint16(b))
		if n < 16 || n > len(b) || be.Uint16(b[2:]) != 1 || be.Uint32(b[4:]) != 0x1a2b3c4d || n != lengths[int(be.Uint16(b[8:]))] {
			c.t.Fatalf("not a message: %x", b)
		}
		messages, b = append(messages, b[:n]), b[n:]
	}
	return p, messages
}

// Each side is told with its call's end of the other side: the PAC with
// Call-Clear-Request, the PNS with Call-Disconnect-Notify, and with the Call ID
// that it was told; then that the control connection ends. The messages stand
// where the other side's next byte would.
func TestParting(t *testing.T) {
	r := newRig(t, nat.Config{})
	other := r.connect(2)
	other.send(client, message(ocrq, 7, -1)) // the ID is taken
	c := r.connect(3)
	told := id(c.send(client, message(ocrq, 7, -1)), 12)
	c.send(server, message(ocrp, 0, told))
	toldServer := c.Calls().Own(server, 0).End(server).Told
	incoming := id(c.send(client, message(icrq, 8, -1)), 12)
	c.send(server, message(icrp, 99, incoming))
	c.send(client, message(ocrq, 11, -1)) // not answered: the client knows no other ID

	p, m := c.parting(server)
	if p.Seq != c.isn[client]+uint32(c.top[client]) || p.Ack != c.isn[server]+uint32(c.top[server]) {
		t.Errorf("to the server: sequence number %d, acknowledged %d", p.Seq, p.Ack)
	}
	unanswered := int(c.Calls().Own(client, 11).End(client).Told)
	types := func(m [][]byte) (list []int) {
		for _, b := range m {
			list = append(list, id(b, 8), id(b, 12))
		}
		return list
	}
	want := []int{clearRequest, told, disconnectNotify, incoming, clearRequest, unanswered, stopRequest, 1 << 8}
	if got := types(m); !slices.Equal(got, want) || told == 7 {
		t.Errorf("the server is told %v, want %v", got, want)
	}
	if m[1][14] != 3 {
		t.Errorf("the result is %d", m[1][14])
	}
	_, m = c.parting(client)
	if got, want := types(m), []int{disconnectNotify, int(toldServer), clearRequest, 99, stopRequest, 1 << 8}; !slices.Equal(got, want) || toldServer == 0 {
		t.Errorf("the client is told %v, want %v", got, want)
	}

	c.Abort(r.now, "as was wished")
	if c.State != alg.Closed || c.Reason != "as was wished" || c.Calls().Live() != 0 || r.alg.Find(c.flow) != c.Connection {
		t.Errorf("%v, %q, %d calls", c.State, c.Reason, c.Calls().Live())
	}
	for _, call := range r.table.Ended() {
		if call.Reason != "as was wished" {
			t.Errorf("a call ended: %q", call.Reason)
		}
	}
	if other.State == alg.Closed || other.Calls().Live() != 1 {
		t.Error("another connection ended too")
	}
	r.empty()
}

// Nothing is said where it would be misread, and nothing is known of a stream of
// which nothing was seen. What waits is dropped at the end.
func TestPartingWithoutWords(t *testing.T) {
	r := newRig(t, nat.Config{})
	if _, err := r.dial(2).Parting(server); !errors.Is(err, alg.ErrUnseen) {
		t.Errorf("before the first segment: %v", err)
	}
	c := r.connect(3)
	c.send(client, message(echoRequest, -1, -1)[:10])
	if p, m := c.parting(server); len(m) != 0 || p.Seq != c.isn[client]+10 {
		t.Errorf("in the middle of a message: %x at %d", m, p.Seq)
	}
	if _, m := c.parting(client); len(m) != 1 {
		t.Errorf("the other side is told %x", m)
	}
	held := c.at(client, 40, message(echoRequest, -1, -1), alg.ACK)
	if held.decided != 0 {
		t.Fatal("a segment behind a gap did not wait")
	}
	c.Abort(r.now, "over")
	if held.decided != 1 || held.verdict != alg.Drop {
		t.Errorf("what waited: decided %d times, verdict %d", held.decided, held.verdict)
	}
	garbage := r.connect(4)
	garbage.send(server, []byte("220 ftp ready\r\n"))
	if _, m := garbage.parting(client); len(m) != 0 || garbage.Unparsed == "" {
		t.Errorf("what is not PPTP is told %x", m)
	}
	r.empty()
}

// So many calls are named one by one, and all end.
func TestPartingOfManyCalls(t *testing.T) {
	r := newRig(t, nat.Config{})
	c := r.connect(2)
	for i := range 100 {
		c.send(client, message(ocrq, 1+i, -1))
	}
	if p, m := c.parting(server); len(m) != 17 || len(p.Message) > 16*148+16 || id(m[16], 8) != stopRequest {
		t.Errorf("%d messages, %d bytes", len(m), len(p.Message))
	}
	c.Abort(r.now, "over")
	if c.Calls().Live() != 0 {
		t.Errorf("%d calls live on", c.Calls().Live())
	}
	r.empty()
}
