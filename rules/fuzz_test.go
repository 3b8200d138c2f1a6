package rules

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Datagrams of any kind go through everything that reads answers of nftables.
func FuzzReplies(f *testing.F) {
	r, err := New(Config{Queue: 1, Ports: []uint16{1723}, Guard: GuardAll, Rate: 7})
	if err != nil {
		f.Fatal(err)
	}
	for i, m := range r.table.messages(map[string][][]byte{CallsSet: {make([]byte, callKeyLength)}, ConnectionsSet: {make([]byte, flowKeyLength)}}, nil) {
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

// Lists of elements, and news of other programs' transactions: every key lies in the
// datagram, what is told of a program is what its message says, and keys that are
// sent to the kernel are read again from what it would answer.
func FuzzElements(f *testing.F) {
	list := func(keys ...[]byte) (b []byte) {
		for i, m := range elements(unix.NFT_MSG_NEWSETELEM, create, CallsSet, keys) {
			b = appendMessage(b, nftables(m.kind), 0, uint32(i), unix.NFPROTO_IPV4, 0, m.attributes)
		}
		return b
	}
	f.Add(list(bytes.Repeat([]byte{1}, callKeyLength), bytes.Repeat([]byte{2}, callKeyLength)))
	f.Add(list([]byte{1, 2}))
	f.Add(appendMessage(nil, nftables(unix.NFT_MSG_NEWGEN), 0, 1, 0, 0, encode(func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_GEN_ID, 7)
		e.Uint32(unix.NFTA_GEN_PROC_PID, 1234)
		e.String(unix.NFTA_GEN_PROC_NAME, "firewalld")
	})))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		before := bytes.Clone(datagram)
		messages := parseMessages(datagram)
		keys := parseKeys(messages)
		for _, key := range keys {
			if !bytes.Contains(datagram, key) {
				t.Errorf("key % x", key)
			}
		}
		for _, m := range messages {
			c := Change{Program: "old", PID: 1}
			c.read(m)
			pid := binary.BigEndian.AppendUint32(nil, c.PID)
			if !bytes.Contains(datagram, []byte(c.Program)) || c.PID != 0 && !bytes.Contains(datagram, pid) {
				t.Errorf("%v out of % x", c, m.Data)
			}
		}
		if !bytes.Equal(datagram, before) {
			t.Error("the datagram was changed")
		}
		// Keys of nftables have 64 bytes at most (NFT_DATA_VALUE_MAXLEN).
		keys = slices.DeleteFunc(keys, func(k []byte) bool { return len(k) == 0 || len(k) > 64 })
		if again := parseKeys(parseMessages(list(keys...))); len(keys) > 0 && !slices.EqualFunc(again, keys, bytes.Equal) {
			t.Errorf("% x became % x", keys, again)
		}
	})
}
