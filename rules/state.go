package rules

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A state is a table as a list of facts, in a form in which the wanted table and the kernel's are the same when they do
// the same: names of objects and rules by their place, and what is known about each, as opaque text. Handles, counts
// and the elements of the guard are not part of it.
type state map[string]string

// wanted is the state of a table as it should be.
func (t table) wanted() state {
	s := state{"table": fmt.Sprintf("flags 0 %q", comment(t.comment))}
	for _, c := range t.counters {
		s["counter "+c.name] = fmt.Sprintf("%q", comment(c.comment))
	}
	for _, h := range t.helpers {
		s["helper "+h.name] = h.describe()
	}
	for _, x := range t.sets {
		s["set "+x.name] = x.describe()
		if !x.dynamic {
			var keys [][]byte
			for _, e := range x.elements {
				keys = append(keys, e.key)
			}
			s["elements of set "+x.name] = describeKeys(keys)
		}
	}
	for _, c := range t.chains {
		if h := c.hook; h != nil {
			s["chain "+c.name] = describeChain(h.kind, h.number, h.value, policyAccept, comment(c.comment))
		} else {
			s["chain "+c.name] = describeChain("", 0, 0, 0, comment(c.comment))
		}
		for i, r := range c.rules {
			s[ruleName(c.name, i)] = describeRule(expressionList(r.expressions()), comment(r.comment))
		}
	}
	return s
}

// differences names what is missing, extra or changed in the kernel's state.
func differences(wanted, found state) []string {
	if len(found) == 0 {
		return []string{"table ip " + TableName + " is missing"}
	}
	var all []string
	for name, value := range wanted {
		switch v, ok := found[name]; {
		case !ok:
			all = append(all, name+" is missing")
		case v != value:
			all = append(all, name+" differs")
		}
	}
	for name := range found {
		if _, ok := wanted[name]; !ok {
			all = append(all, name+" is not ours")
		}
	}
	slices.Sort(all)
	return all
}

func ruleName(chain string, index int) string {
	return fmt.Sprintf("rule %d of chain %s", index+1, chain)
}

// describe is the set's part of a state.
func (s set) describe() string { return describeSet(s.flags, s.keyType, s.keyLength) }

// describeSet leaves nft's notes out: versions of nft word them differently, and they do nothing.
func describeSet(flags, keyType, keyLength uint32) string {
	return fmt.Sprintf("flags %d type %d length %d", flags, keyType, keyLength)
}

func describeKeys(keys [][]byte) string {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, bytes.Compare)
	return fmt.Sprintf("%x", keys)
}

func describeChain(kind string, hook uint32, priority int32, policy uint32, userdata []byte) string {
	return fmt.Sprintf("%s %d %d %d %q", kind, hook, priority, policy, userdata)
}

func describeRule(expressions, userdata []byte) string {
	var b strings.Builder
	for _, e := range nested(expressions) {
		var name string
		var data []byte
		for kind, v := range nested(e) {
			switch kind {
			case unix.NFTA_EXPR_NAME:
				name = text(v)
			case unix.NFTA_EXPR_DATA:
				data = v
			}
		}
		fmt.Fprintf(&b, "%s{%s} ", name, describeAttributes(name, data))
	}
	fmt.Fprintf(&b, "%q", userdata)
	return b.String()
}

// nestedAttributes are the attributes of expressions, by name and type, which hold attributes themselves. The kernel
// does not flag all of them as nested when it lists a rule.
var nestedAttributes = map[string]bool{
	fmt.Sprint("cmp.", unix.NFTA_CMP_DATA):                                          true,
	fmt.Sprint("bitwise.", unix.NFTA_BITWISE_MASK):                                  true,
	fmt.Sprint("bitwise.", unix.NFTA_BITWISE_XOR):                                   true,
	fmt.Sprint("dynset.", unix.NFTA_DYNSET_EXPR):                                    true,
	fmt.Sprint("dynset.", unix.NFTA_DYNSET_EXPR, ".", unix.NFTA_EXPR_DATA):          true,
	fmt.Sprint("immediate.", unix.NFTA_IMMEDIATE_DATA):                              true,
	fmt.Sprint("immediate.", unix.NFTA_IMMEDIATE_DATA, ".", unix.NFTA_DATA_VERDICT): true,
}

// describeAttributes sorts, because the kernel lists attributes in an order of its own, and leaves out what is zero,
// because it also lists some that nobody sets (an operation, flags) and keeps silent about others (the set's number in
// its batch); zero is the default of all of them.
func describeAttributes(path string, b []byte) string {
	found := map[uint16]string{}
	for kind, v := range nested(b) {
		inner := fmt.Sprint(path, ".", kind)
		switch {
		case nestedAttributes[inner]:
			if d := describeAttributes(inner, v); d != "" {
				found[kind] = "{" + d + "}"
			}
		case inner == fmt.Sprint("objref.", unix.NFTA_OBJREF_IMM_NAME): // with or without a final zero
			found[kind] = text(v)
		case len(bytes.Trim(v, "\x00")) > 0:
			found[kind] = fmt.Sprintf("%x", v)
		}
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(found)) {
		parts = append(parts, fmt.Sprint(kind, "=", found[kind]))
	}
	return strings.Join(parts, " ")
}

// errMoving says that somebody changed nftables while it was read.
var errMoving = errors.New("the ruleset changes faster than it can be read")

// read reads the state of the table, and a generation from which on it holds. No table is an empty state.
//
// A list that is read while others write may be cut, doubled, or answered with EINTR or ENOENT. What nevertheless is as
// wanted is not read again: on a busy router a generation may not last for the whole of the reading.
func (k *Kernel) read(t table) (state, uint32, error) {
	wanted := t.wanted()
	for pause := time.Millisecond; pause < time.Second; pause *= 2 {
		before, err := k.generation()
		if err != nil {
			return nil, 0, err
		}
		found, readErr := k.readOnce(t)
		if readErr == nil && maps.Equal(wanted, found) {
			return found, before, nil
		}
		after, err := k.generation()
		if err != nil {
			return nil, 0, err
		}
		if before == after {
			return found, after, readErr
		}
		time.Sleep(pause)
	}
	return nil, 0, errMoving
}

// named is the request for what belongs to our table: its name is attribute 1 in every message of nftables.
func named(more ...func(*netlink.AttributeEncoder)) []byte {
	return encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, TableName)
		for _, f := range more {
			f(e)
		}
	})
}

func (k *Kernel) readOnce(t table) (state, error) {
	s := state{}
	replies, err := k.get(unix.NFT_MSG_GETTABLE, 0, named())
	if errors.Is(err, unix.ENOENT) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("table ip %s: %w", TableName, err)
	}
	for _, r := range replies {
		var flags uint32
		var userdata []byte
		for kind, v := range attributes(r) {
			switch kind {
			case unix.NFTA_TABLE_FLAGS:
				flags = number(v)
			case tableUserdata:
				userdata = v
			}
		}
		s["table"] = fmt.Sprintf("flags %d %q", flags, userdata)
	}

	if replies, err = k.get(unix.NFT_MSG_GETOBJ, netlink.Dump, named()); err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	for _, r := range replies {
		o := parseObject(r)
		switch {
		case o.table != TableName:
		case o.kind == unix.NFT_OBJECT_COUNTER:
			s["counter "+o.name] = fmt.Sprintf("%q", o.userdata)
		case o.kind == unix.NFT_OBJECT_CT_HELPER:
			s["helper "+o.name] = describeHelper(o.data, o.userdata)
		default:
			s[fmt.Sprintf("object %s of type %d", o.name, o.kind)] = ""
		}
	}

	if replies, err = k.get(unix.NFT_MSG_GETSET, netlink.Dump, named()); err != nil {
		return nil, fmt.Errorf("sets: %w", err)
	}
	for _, r := range replies {
		var table, name string
		var flags, keyType, keyLength uint32
		for kind, v := range attributes(r) {
			switch kind {
			case unix.NFTA_SET_TABLE:
				table = text(v)
			case unix.NFTA_SET_NAME:
				name = text(v)
			case unix.NFTA_SET_FLAGS:
				flags = number(v)
			case unix.NFTA_SET_KEY_TYPE:
				keyType = number(v)
			case unix.NFTA_SET_KEY_LEN:
				keyLength = number(v)
			}
		}
		if table == TableName {
			s["set "+name] = describeSet(flags, keyType, keyLength)
		}
	}
	for _, x := range t.sets {
		if _, ok := s["set "+x.name]; ok && !x.dynamic {
			keys, err := k.keys(x.name)
			if err != nil {
				return nil, fmt.Errorf("elements of set %s: %w", x.name, err)
			}
			s["elements of set "+x.name] = describeKeys(keys)
		}
	}

	// Chains are listed for the whole family, whatever the request says.
	if replies, err = k.get(unix.NFT_MSG_GETCHAIN, netlink.Dump, named()); err != nil {
		return nil, fmt.Errorf("chains: %w", err)
	}
	for _, r := range replies {
		table, name, description := parseChain(r)
		if table == TableName {
			s["chain "+name] = description
		}
	}

	if replies, err = k.get(unix.NFT_MSG_GETRULE, netlink.Dump, named()); err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	count := map[string]int{}
	for _, r := range replies {
		var table, chain string
		var expressions, userdata []byte
		for kind, v := range attributes(r) {
			switch kind {
			case unix.NFTA_RULE_TABLE:
				table = text(v)
			case unix.NFTA_RULE_CHAIN:
				chain = text(v)
			case unix.NFTA_RULE_EXPRESSIONS:
				expressions = v
			case unix.NFTA_RULE_USERDATA:
				userdata = v
			}
		}
		if table == TableName {
			s[ruleName(chain, count[chain])] = describeRule(expressions, userdata)
			count[chain]++
		}
	}
	return s, nil
}

func parseChain(m netlink.Message) (table, name, description string) {
	var kind string
	var hook, policy uint32
	var priority int32
	var userdata []byte
	for attribute, v := range attributes(m) {
		switch attribute {
		case unix.NFTA_CHAIN_TABLE:
			table = text(v)
		case unix.NFTA_CHAIN_NAME:
			name = text(v)
		case unix.NFTA_CHAIN_TYPE:
			kind = text(v)
		case unix.NFTA_CHAIN_POLICY:
			policy = number(v)
		case chainUserdata:
			userdata = v
		case unix.NFTA_CHAIN_HOOK:
			for attribute, v := range nested(v) {
				switch attribute {
				case unix.NFTA_HOOK_HOOKNUM:
					hook = number(v)
				case unix.NFTA_HOOK_PRIORITY:
					priority = int32(number(v))
				}
			}
		}
	}
	return table, name, describeChain(kind, hook, priority, policy, userdata)
}

// number is a 32-bit attribute; 0 if it has another size.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
