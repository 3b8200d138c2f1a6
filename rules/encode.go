package rules

import (
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys/unix has no names for (linux/netfilter/nf_tables.h), and values of its enumerations.
const (
	tableUserdata  = 6  // NFTA_TABLE_USERDATA
	chainUserdata  = 12 // NFTA_CHAIN_USERDATA
	objectUserdata = 8  // NFTA_OBJ_USERDATA

	policyAccept = 1 // NF_ACCEPT
)

// encode builds attributes; integers in netfilter's attributes are big-endian.
func encode(build func(*netlink.AttributeEncoder)) []byte {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	build(e)
	b, err := e.Encode()
	if err != nil {
		panic("rules: encode attributes: " + err.Error()) // only by an attribute above 64 KiB: our own mistake
	}
	return b
}

func nest(e *netlink.AttributeEncoder, kind uint16, build func(*netlink.AttributeEncoder)) {
	e.Nested(kind, func(n *netlink.AttributeEncoder) error { build(n); return nil })
}

// attributes ranges over the attributes of a reply behind its nfgenmsg header. Types come without flags, data as it is.
func attributes(m netlink.Message) iter.Seq2[uint16, []byte] {
	if len(m.Data) < 4 {
		return func(func(uint16, []byte) bool) {}
	}
	return nested(m.Data[4:])
}

func nested(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		d, err := netlink.NewAttributeDecoder(b)
		if err != nil {
			return
		}
		for d.Next() {
			if !yield(d.Type(), d.Bytes()) {
				return
			}
		}
	}
}

// text is a string attribute without its final zero.
func text(b []byte) string {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

// comment is the userdata by which nft stores a comment, on every kind of object but sets.
func comment(s string) []byte { return userdata.AppendString(nil, userdata.TypeComment, s) }

func newTable(t table) message {
	return message{unix.NFT_MSG_NEWTABLE, create, encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, TableName)
		e.Uint32(unix.NFTA_TABLE_FLAGS, 0)
		e.Bytes(tableUserdata, comment(t.comment))
	}), "table ip " + TableName, needs{needTables}}
}

func deleteTable() message {
	return message{unix.NFT_MSG_DELTABLE, remove, encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, TableName)
	}), "table ip " + TableName, nil}
}

// newCounter starts at a value: a counter outlives the replacement of its table.
func newCounter(c counter, v Counter) message {
	return message{unix.NFT_MSG_NEWOBJ, create, encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_OBJ_TABLE, TableName)
		e.String(unix.NFTA_OBJ_NAME, c.name)
		e.Uint32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
		nest(e, unix.NFTA_OBJ_DATA, func(e *netlink.AttributeEncoder) {
			e.Uint64(unix.NFTA_COUNTER_BYTES, v.Bytes)
			e.Uint64(unix.NFTA_COUNTER_PACKETS, v.Packets)
		})
		e.Bytes(objectUserdata, comment(c.comment))
	}), "counter " + c.name, needs{needCounters}}
}

// newSet numbers the set within its batch (NFTA_SET_ID, which the kernel requires).
func newSet(s set, id uint32) message {
	return message{unix.NFT_MSG_NEWSET, create, encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_TABLE, TableName)
		e.String(unix.NFTA_SET_NAME, s.name)
		e.Uint32(unix.NFTA_SET_FLAGS, s.flags)
		e.Uint32(unix.NFTA_SET_KEY_TYPE, s.keyType)
		e.Uint32(unix.NFTA_SET_KEY_LEN, s.keyLength)
		e.Uint32(unix.NFTA_SET_ID, id)
		if s.timeout > 0 {
			e.Uint64(unix.NFTA_SET_TIMEOUT, uint64(s.timeout.Milliseconds()))
		}
		if s.size > 0 {
			nest(e, unix.NFTA_SET_DESC, func(e *netlink.AttributeEncoder) { e.Uint32(unix.NFTA_SET_DESC_SIZE, s.size) })
		}
		e.Bytes(unix.NFTA_SET_USERDATA, s.userdata())
	}), "set " + s.name, needs{needTables}}
}

// elements names the elements of a set in as many messages as it takes: an attribute is 64 KiB at most, and the list is
// one.
func elements(kind uint16, flags netlink.HeaderFlags, set string, keys [][]byte) []message {
	const most = 1000 // of 24 bytes each, for the longest key
	var messages []message
	for len(keys) > 0 {
		n := min(most, len(keys))
		part := keys[:n]
		keys = keys[n:]
		messages = append(messages, message{kind, flags, encode(func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
			e.String(unix.NFTA_SET_ELEM_LIST_SET, set)
			e.Bytes(unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_LIST_ELEMENTS, elementList(part))
		}), "elements of set " + set, nil})
	}
	return messages
}

// elementList is written by hand, because it is the only encoding whose time matters: tens of thousands at once when the
// daemon starts, and two in the path of every call. Each is NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE } }.
func elementList(keys [][]byte) []byte {
	const header = 4
	var b []byte
	open := func(kind uint16, length int) {
		b = binary.NativeEndian.AppendUint16(b, uint16(header+length))
		b = binary.NativeEndian.AppendUint16(b, kind)
	}
	for _, key := range keys {
		padded := (len(key) + 3) &^ 3
		if b == nil {
			b = make([]byte, 0, len(keys)*(3*header+padded))
		}
		open(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, 2*header+padded)
		open(unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_KEY, header+padded)
		open(unix.NFTA_DATA_VALUE, len(key))
		b = append(b, key...)
		b = append(b, make([]byte, padded-len(key))...)
	}
	return b
}

func newChain(c chain) message {
	m := message{unix.NFT_MSG_NEWCHAIN, create, encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_CHAIN_TABLE, TableName)
		e.String(unix.NFTA_CHAIN_NAME, c.name)
		if h := c.hook; h != nil {
			e.String(unix.NFTA_CHAIN_TYPE, h.kind)
			e.Uint32(unix.NFTA_CHAIN_POLICY, policyAccept)
			nest(e, unix.NFTA_CHAIN_HOOK, func(e *netlink.AttributeEncoder) {
				e.Uint32(unix.NFTA_HOOK_HOOKNUM, h.number)
				e.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(h.value))
			})
		}
		e.Bytes(chainUserdata, comment(c.comment))
	}), "chain " + c.name, needs{needTables}}
	if c.hook != nil && c.hook.kind == "nat" {
		m.needs = needs{needNAT}
	}
	return m
}

func newRule(chain string, index int, r rule) message {
	return message{unix.NFT_MSG_NEWRULE, add, encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, TableName)
		e.String(unix.NFTA_RULE_CHAIN, chain)
		e.Bytes(unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, expressionList(r.expressions()))
		e.Bytes(unix.NFTA_RULE_USERDATA, comment(r.comment))
	}), fmt.Sprintf("chain %s rule %d (%s)", chain, index+1, r.comment), r.needs()}
}

func expressionList(exprs []expression) []byte {
	return encode(func(e *netlink.AttributeEncoder) {
		for _, x := range exprs {
			e.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, x)
		}
	})
}

// expressions are all expressions of a rule, in order.
func (r rule) expressions() []expression {
	var all []expression
	for _, c := range r.clauses {
		all = append(all, c.exprs...)
	}
	return all
}

// needs is what some kernels lack of a rule.
func (r rule) needs() needs {
	var all needs
	for _, c := range r.clauses {
		if c.needs != nil {
			all = append(all, c.needs)
		}
	}
	return all
}

// messages is the whole table as a batch that puts it in the place of whatever is there under its name: created if
// absent, so that it can be deleted, then created for good. filled are the elements that come and go, by their set.
func (t table) messages(filled map[string][][]byte, counts map[string]Counter) []message {
	batch := []message{newTable(t), deleteTable(), newTable(t)}
	for _, c := range t.counters {
		batch = append(batch, newCounter(c, counts[c.name]))
	}
	for _, h := range t.helpers {
		batch = append(batch, newHelper(h))
	}
	for i, s := range t.sets {
		batch = append(batch, newSet(s, uint32(i+1)))
		keys := filled[s.name]
		for _, e := range s.elements {
			keys = append(keys, e.key)
		}
		batch = append(batch, elements(unix.NFT_MSG_NEWSETELEM, create, s.name, keys)...)
	}
	for _, c := range t.chains {
		batch = append(batch, newChain(c))
	}
	for _, c := range t.chains {
		for i, r := range c.rules {
			batch = append(batch, newRule(c.name, i, r))
		}
	}
	return batch
}
