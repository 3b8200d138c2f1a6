package replay

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/pcap"
	"pptp-alg/nat"
)

// FuzzReplay: no capture makes a replay panic, or hold on to a segment; what is
// written is a capture again.
func FuzzReplay(f *testing.F) {
	for _, name := range []string{"testdata/two.pcap", "testdata/two-public.pcap"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
		f.Add(b, false)
	}
	quirks := newScene(f)
	c := quirks.open("10.0.0.11:40000", 0xffffff00)
	c.send(nat.Server, icrq(9))
	long := icrp(8, 9)
	be.PutUint16(long, 148)
	c.send(nat.Client, long, ocrq(8), message(99, 40))
	c.send(nat.Server, iccn(8))
	c.gre(nat.Server, 8, 1)
	c.send(nat.Client, []byte("no PPTP at all"))
	f.Add(quirks.file(), true)
	f.Fuzz(func(t *testing.T, b []byte, public_ bool) {
		reader, err := pcap.NewReader(bytes.NewReader(b))
		if err != nil || len(b) > 1<<16 {
			return
		}
		var out bytes.Buffer
		w, _ := pcap.NewWriter(&out) // a buffer takes everything
		text, lines := NewText(io.Discard), json.NewEncoder(io.Discard)
		o := Options{Ports: []uint16{1723}, Out: w, Seed: 1, Report: func(e *Event) {
			text.Event(e)
			if err := lines.Encode(e); err != nil {
				t.Fatal(err)
			}
		}}
		if public_ {
			o.Public = public
		}
		o.Table = nat.Config{First: 1, Last: 600, Timeouts: nat.Timeouts{HalfOpen: time.Minute, Clearing: time.Second, Grace: time.Second, Rest: time.Second},
			Limits: nat.Limits{CallsPerConnection: 8, Connections: 20}, Remember: 5}
		r := New(o)
		control := 0
		for {
			p, err := reader.Next()
			if err != nil {
				break
			}
			if err := r.Packet(p); err != nil {
				t.Fatal(err)
			}
		}
		sum, err := r.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if err := text.Summary(sum); err != nil {
			t.Fatal(err)
		}
		if err := lines.Encode(sum); err != nil {
			t.Fatal(err)
		}
		for _, p := range read(t, out.Bytes()) {
			if ip, ok := p.IPv4(); ok && ip[9] == 6 {
				control++
			}
		}
		// Every segment is decided: what a client sent is written or dropped.
		if c := sum.Counters; control+c.Malformed+r.counts.Dropped+r.counts.Fragments < c.Control {
			t.Errorf("%d segments, %d written, %d dropped, %d malformed", c.Control, control, r.counts.Dropped, c.Malformed)
		}
	})
}
