package examine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// This file reads the live nftables ruleset. It reads expressions itself, because the
// library leaves out those that it does not know, and a rule without its condition
// means something else.

// A ruleset is what nftables has in a network namespace, for IPv4.
type ruleset struct {
	chains     map[chainName]*chain
	flowTables []string // "family table name"
	sets       map[setName]*set
}

type chainName struct {
	family      byte
	table, name string
}

func (n chainName) String() string {
	return fmt.Sprintf("%s %s %s", familyName(n.family), n.table, n.name)
}

type setName chainName

// A chain is a base chain where hooked is set.
type chain struct {
	chainName
	kind     string // filter, nat, route
	hooked   bool
	hook     uint32
	priority int32
	drop     bool // the policy
	rules    []rule
	handles  []uint64 // of the rules, by which nft deletes them
}

// A rule is a list of expressions.
type rule []expression

// An expression is one that this package understands, or its name alone.
type expression struct {
	name  string
	any   expr.Any // nil where only the name is known
	match *xmatch  // of xtables, instead
}

type set struct {
	interval, concatenated bool
	elements               []element
	err                    error
}

// An element of a set or of a verdict map.
type element struct {
	key         []byte
	intervalEnd bool
	catchAll    bool
	verdict     *expr.Verdict
}

func familyName(f byte) string {
	switch f {
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_INET:
		return "inet"
	case legacyFamily:
		return "iptables-legacy"
	}
	return fmt.Sprintf("family %d", f)
}

// readRuleset asks the kernel, in the calling thread's network namespace.
func readRuleset() (*ruleset, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	dump := func(kind uint16, family byte, attributes []byte) ([]netlink.Message, error) {
		return conn.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | netlink.Dump},
			Data:   append([]byte{family, 0, 0, 0}, attributes...),
		})
	}
	r := &ruleset{chains: map[chainName]*chain{}, sets: map[setName]*set{}}
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_INET} {
		for _, part := range []struct {
			kind uint16
			add  func(byte, []byte) error
		}{
			{unix.NFT_MSG_GETCHAIN, r.addChain}, {unix.NFT_MSG_GETRULE, r.addRule},
			{unix.NFT_MSG_GETSET, r.addSet}, {unix.NFT_MSG_GETFLOWTABLE, r.addFlowTable},
		} {
			messages, err := dump(part.kind, family, nil)
			if err != nil {
				if part.kind == unix.NFT_MSG_GETFLOWTABLE {
					continue // a kernel without them
				}
				return nil, err
			}
			for _, m := range messages {
				if len(m.Data) < 4 {
					continue
				}
				if err := part.add(m.Data[0], m.Data[4:]); err != nil {
					return nil, err
				}
			}
		}
	}
	for name := range r.sets {
		s := r.sets[name]
		attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: append([]byte(name.table), 0)},
			{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: append([]byte(name.name), 0)},
		})
		if err != nil {
			return nil, err
		}
		messages, err := dump(unix.NFT_MSG_GETSETELEM, name.family, attributes)
		if err != nil {
			s.err = err // it went meanwhile, say
			continue
		}
		for _, m := range messages {
			if len(m.Data) >= 4 {
				s.addElements(name.family, m.Data[4:])
			}
		}
	}
	return r, nil
}

// decode calls each for the attributes in b; numbers are big-endian.
func decode(b []byte, each func(ad *netlink.AttributeDecoder)) error {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		each(ad)
	}
	return ad.Err()
}

func (r *ruleset) addChain(family byte, b []byte) error {
	c := &chain{}
	c.family = family
	err := decode(b, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.table = ad.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = ad.String()
		case unix.NFTA_CHAIN_TYPE:
			c.kind = ad.String()
		case unix.NFTA_CHAIN_POLICY:
			c.drop = ad.Uint32() == 0 // NF_DROP
		case unix.NFTA_CHAIN_HOOK:
			c.hooked = true
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case unix.NFTA_HOOK_HOOKNUM:
						c.hook = ad.Uint32()
					case unix.NFTA_HOOK_PRIORITY:
						c.priority = int32(ad.Uint32())
					}
				}
				return nil
			})
		}
	})
	r.chains[c.chainName] = c
	return err
}

func (r *ruleset) addRule(family byte, b []byte) error {
	at := chainName{family: family}
	var list rule
	var handle uint64
	err := decode(b, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_RULE_TABLE:
			at.table = ad.String()
		case unix.NFTA_RULE_CHAIN:
			at.name = ad.String()
		case unix.NFTA_RULE_HANDLE:
			handle = ad.Uint64()
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					list = append(list, parseExpression(family, ad.Bytes()))
				}
				return nil
			})
		}
	})
	if c := r.chains[at]; c != nil {
		c.rules, c.handles = append(c.rules, list), append(c.handles, handle)
	}
	return err
}

// parseExpression reads one expression.
func parseExpression(family byte, b []byte) expression {
	var e expression
	var data []byte
	if decode(b, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			e.name = ad.String()
		case unix.NFTA_EXPR_DATA:
			data = ad.Bytes()
		}
	}) != nil {
		return e
	}
	if e.name == "match" {
		e.match = parseMatch(data)
		return e
	}
	known := map[string]func() expr.Any{
		"meta": func() expr.Any { return &expr.Meta{} }, "ct": func() expr.Any { return &expr.Ct{} },
		"payload": func() expr.Any { return &expr.Payload{} }, "cmp": func() expr.Any { return &expr.Cmp{} },
		"bitwise": func() expr.Any { return &expr.Bitwise{} }, "range": func() expr.Any { return &expr.Range{} },
		"lookup": func() expr.Any { return &expr.Lookup{} }, "immediate": func() expr.Any { return &expr.Verdict{} },
		"objref": func() expr.Any { return &expr.Objref{} }, "nat": func() expr.Any { return &expr.NAT{} },
		"target": func() expr.Any { return &expr.Target{} }, "flow_offload": func() expr.Any { return &expr.FlowOffload{} },
	}[e.name]
	if known == nil {
		return e
	}
	if e.name == "immediate" {
		var i expr.Immediate
		if expr.Unmarshal(family, data, &i) == nil && i.Register != unix.NFT_REG_VERDICT {
			e.any = &i
			return e
		}
	}
	if x := known(); expr.Unmarshal(family, data, x) == nil {
		e.any = x
	}
	return e
}

// parseMatch reads a match of xtables, nil where it can't.
func parseMatch(b []byte) *xmatch {
	m := &xmatch{}
	if decode(b, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_MATCH_NAME:
			m.name = ad.String()
		case unix.NFTA_MATCH_REV:
			m.revision = ad.Uint32()
		case unix.NFTA_MATCH_INFO:
			m.info = ad.Bytes()
		}
	}) != nil {
		return nil
	}
	return m
}

func (r *ruleset) addSet(family byte, b []byte) error {
	name, s := setName{family: family}, &set{}
	err := decode(b, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_SET_TABLE:
			name.table = ad.String()
		case unix.NFTA_SET_NAME:
			name.name = ad.String()
		case unix.NFTA_SET_FLAGS:
			flags := ad.Uint32()
			s.interval = flags&unix.NFT_SET_INTERVAL != 0
			s.concatenated = flags&0x80 != 0 // NFT_SET_CONCAT
		}
	})
	r.sets[name] = s
	return err
}

func (s *set) addElements(family byte, b []byte) {
	_ = decode(b, func(ad *netlink.AttributeDecoder) {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				s.elements = append(s.elements, parseElement(family, ad.Bytes()))
			}
			return nil
		})
	})
	// Where one interval ends and the next begins, the end comes first.
	slices.SortStableFunc(s.elements, func(a, b element) int {
		return cmp.Or(bytes.Compare(a.key, b.key), cmp.Compare(truth(!a.intervalEnd), truth(!b.intervalEnd)))
	})
}

func parseElement(family byte, b []byte) element {
	var e element
	_ = decode(b, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == unix.NFTA_DATA_VALUE {
						e.key = bytes.Clone(ad.Bytes())
					}
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_FLAGS:
			f := ad.Uint32()
			e.intervalEnd, e.catchAll = f&unix.NFT_SET_ELEM_INTERVAL_END != 0, f&0x2 != 0
		case unix.NFTA_SET_ELEM_DATA:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() != unix.NFTA_DATA_VERDICT {
						continue
					}
					e.verdict = &expr.Verdict{}
					ad.Nested(func(ad *netlink.AttributeDecoder) error {
						for ad.Next() {
							switch ad.Type() {
							case unix.NFTA_VERDICT_CODE:
								e.verdict.Kind = expr.VerdictKind(int32(ad.Uint32()))
							case unix.NFTA_VERDICT_CHAIN:
								e.verdict.Chain = ad.String()
							}
						}
						return nil
					})
				}
				return nil
			})
		}
	})
	return e
}

func (r *ruleset) addFlowTable(family byte, b []byte) error {
	var table, name string
	err := decode(b, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case 1 /* NFTA_FLOWTABLE_TABLE */ :
			table = ad.String()
		case 2 /* NFTA_FLOWTABLE_NAME */ :
			name = ad.String()
		}
	})
	r.flowTables = append(r.flowTables, fmt.Sprintf("%s %s %s", familyName(family), table, name))
	return err
}
