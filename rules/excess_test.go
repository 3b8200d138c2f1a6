package rules

import (
	"net/netip"
	"testing"
	"time"
)

// A client that sends too much loses what is too much, in both directions of its connections and on all of them; other
// clients lose nothing.
func TestRate(t *testing.T) {
	const rate = 3
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}, Rate: rate})
	begin := time.Now()
	connect := func(c netip.AddrPort) {
		r.passes(true, "SYN", segment{src: c, dst: serverPort, flags: "S", seq: 100}.packet(), r.inside)
		r.put(segment{src: serverPort, dst: c, flags: "SA", seq: 500, ack: 101}.packet(), r.outer) // the first that counts
		r.receive(r.inside, 6, glance)
		r.put(segment{src: c, dst: serverPort, flags: "A", seq: 101, ack: 501}.packet(), r.inside)
		r.receive(r.outer, 6, glance)
	}
	second := netip.AddrPortFrom(client, clientPort.Port()+1)
	connect(clientPort)
	connect(second)
	before, err := r.kernel.Counters()
	must(t, err)
	const each = 50
	for i := range uint32(each) {
		r.put(segment{src: clientPort, dst: serverPort, flags: "PA", seq: 101 + i, ack: 501, payload: "x"}.packet(), r.inside)
		r.put(segment{src: second, dst: serverPort, flags: "PA", seq: 101 + i, ack: 501, payload: "x"}.packet(), r.inside)
		r.put(segment{src: serverPort, dst: clientPort, flags: "PA", seq: 501 + i, ack: 101, payload: "x"}.packet(), r.outer)
	}
	after, err := r.kernel.Counters()
	must(t, err)
	queued, excess := after[Queued].Packets-before[Queued].Packets, after[Excess].Packets-before[Excess].Packets
	if most := uint64(rate * (2 + time.Since(begin).Seconds())); queued > most || queued+excess != 3*each {
		t.Errorf("of %d segments %d were queued, at most %d should, and %d dropped", 3*each, queued, most, excess)
	}
	// What the kernel remembers does not count as a difference.
	if d, err := r.kernel.Diff(installable(t, r.kernel, Config{Queue: 1723, Ports: []uint16{1723}, Rate: rate})); err != nil || len(d) > 0 {
		t.Errorf("the table differs: %v, %v", d, err)
	}
	other := netip.AddrPortFrom(client.Next(), 40000)
	for range 3 {
		r.receive(r.outer, 6, glance)
	}
	before = after
	connect(other)
	r.put(segment{src: other, dst: serverPort, flags: "PA", seq: 101, ack: 501, payload: "x"}.packet(), r.inside)
	r.counts("another client", before, map[string]uint64{Queued: 2})
}

// Where the kernel has no limits, Features says so, and the ruleset without a rate is there.
func TestRateIsAFeature(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	f, err := k.Features()
	must(t, err)
	err = k.Check(mustNew(t, Config{Queue: 1, Ports: []uint16{1723}, Native: f.Queue, Rate: 7}))
	if f.Limit != (err == nil) {
		t.Errorf("Features says %v, and the check %v", f.Limit, err)
	}
}
