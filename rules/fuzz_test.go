package rules

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// Datagrams of any kind go through everything that reads answers of nftables.
func FuzzReplies(f *testing.F) {
	r, err := New(Config{Queue: 1, Ports: []uint16{1723}, Guard: GuardAll, Rate: 7})
	if err != nil {
		f.Fatal(err)
	}
	for i, m := range r.table.messages([][]byte{make([]byte, callKeyLength)}, nil) {
		f.Add(appendMessage(nil, nftables(m.kind), 0, uint32(i), unix.NFPROTO_IPV4, 0, m.attributes))
	}
	f.Add(appendMessage(nil, 2, 0, 1, 0xff, 0xffff, nil))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		before := bytes.Clone(datagram)
		for _, m := range parseMessages(datagram) {
			if errno := errorNumber(m); int32(errno) < 0 {
				t.Errorf("error number %d", int32(errno))
			}
			parseObject(m)
			parseChain(m)
			for kind, v := range attributes(m) {
				number(v)
				text(v)
				if kind == unix.NFTA_RULE_EXPRESSIONS {
					describeRule(v, v)
				}
			}
		}
		if !bytes.Equal(datagram, before) {
			t.Error("the datagram was changed")
		}
	})
}
