package inet

import (
	"bytes"
	"net/netip"
	"testing"
)

var a, b = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

func TestEcho(t *testing.T) {
	for _, data := range []string{"", "x", "even", "odd number"} {
		e := Echo{Src: a, Dst: b, ID: 7, Seq: 8, Data: []byte(data)}
		reply, err := Parse(Answer(e.Datagram(), b))
		if err != nil || !reply.Reply || reply.Src != b || reply.Dst != a || reply.ID != 7 || reply.Seq != 8 || string(reply.Data) != data {
			t.Errorf("%q is answered with %+v, %v", data, reply, err)
		}
		if got := Answer(e.Datagram(), a); got != nil {
			t.Error("answered for somebody else")
		}
		if got := Answer(Answer(e.Datagram(), b), a); got != nil {
			t.Error("answered a reply")
		}
		for i := range e.Datagram() {
			if i == 1 || i == 8 {
				continue
			}
			bad := e.Datagram()
			bad[i] ^= 4
			if _, err := Parse(bad); err == nil {
				t.Errorf("byte %d was changed and nobody noticed", i)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Echo{Src: a, Dst: b, Data: []byte("data")}.Datagram())
	f.Fuzz(func(t *testing.T, in []byte) {
		if e, err := Parse(in); err == nil && !bytes.Contains(in, e.Data) {
			t.Errorf("%x gives %+v", in, e)
		}
	})
}
