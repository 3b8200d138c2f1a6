package examine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// This file walks a packet through the live rules, as far as the packet is known:
// its protocol, ports and conntrack state are, its addresses and devices are not. A
// rule that asks for something unknown may match and may not, and both are followed.

// A packet is what is known of one.
type packet struct {
	protocol     byte
	source, dest uint16 // ports; 0 is unknown
	state        uint32 // as `ct state` has it; 0 is unknown: before conntrack
	flags        byte   // TCP's
	// The devices that it comes and leaves by, if they are known: then it is also known that
	// nobody's DNAT is in it.
	in, out device
}

// A device is a network device; the zero value is one that is not known.
type device struct {
	name  string
	index int
}

// Fates of a packet: sets of what may happen to it.
type fate uint8

const (
	passes fate = 1 << iota
	drops
)

// A visit is a packet in a chain, and its outcome what chain returns. Jumps to the same
// chain are many in some rulesets, and each of them may come after a rule that may match:
// walked through anew each time, a dozen chains that jump twice to the next take for ever.
type (
	visit struct {
		chain  *chain
		packet packet
	}
	outcome struct {
		fate    fate
		through bool
	}
)

// A walk is a packet's way.
type walk struct {
	rules  *ruleset
	packet packet
	// been holds the chains that were walked through, by what was known of the packet.
	been map[visit]outcome
	// dropped says by which chain or rule the packet is, or may be, dropped.
	dropped []string
	// chains are the chains of these, where a rule that accepts helps.
	chains []chainName
}

// hook walks through all base chains of a hook and says what may happen. The chains
// of our own table are left out.
func (w *walk) hook(hook uint32, ours string) fate {
	var chains []*chain
	for _, c := range w.rules.chains {
		if c.hooked && c.hook == hook && c.kind != "nat" && c.table != ours {
			chains = append(chains, c)
		}
	}
	slices.SortFunc(chains, func(a, b *chain) int { return int(a.priority) - int(b.priority) })
	all := passes
	for _, c := range chains {
		state := w.packet.state
		if c.hook == unix.NF_INET_PRE_ROUTING && c.priority <= -200 {
			w.packet.state = 0 // conntrack has not seen it yet
		}
		f := w.base(c)
		w.packet.state = state
		if f&drops != 0 {
			all |= drops
		}
		if f&passes == 0 {
			return drops
		}
	}
	return all
}

func (w *walk) base(c *chain) fate {
	f, through := w.chain(c)
	if !through {
		return f
	}
	if c.drop {
		w.note(c.chainName, "the policy of chain %v", c.chainName)
		return f | drops
	}
	return f | passes
}

func (w *walk) note(at chainName, format string, args ...any) {
	if !slices.Contains(w.chains, at) {
		w.chains = append(w.chains, at)
	}
	if s := fmt.Sprintf(format, args...); !slices.Contains(w.dropped, s) {
		w.dropped = append(w.dropped, s)
	}
}

// chain returns what may have happened inside, and whether a packet may come out at
// the end.
func (w *walk) chain(c *chain) (f fate, through bool) {
	here := visit{c, w.packet}
	if o, known := w.been[here]; known {
		return o.fate, o.through
	}
	if w.been == nil {
		w.been = map[visit]outcome{}
	}
	w.been[here] = outcome{through: true} // in a loop, which the kernel would not have taken
	f, through = w.inside(c)
	w.been[here] = outcome{f, through}
	return f, through
}

func (w *walk) inside(c *chain) (f fate, through bool) {
	for i, r := range c.rules {
		match, verdict := w.rule(c, r)
		if match == no || verdict == nil {
			continue
		}
		var inside fate
		comesBack := false
		switch verdict.Kind {
		case expr.VerdictAccept:
			inside = passes
		case expr.VerdictDrop:
			inside = drops
			w.note(c.chainName, "rule %d of chain %v", i+1, c.chainName)
		case expr.VerdictJump, expr.VerdictGoto:
			target := w.rules.chains[chainName{c.family, c.table, verdict.Chain}]
			if target == nil {
				continue
			}
			inside, comesBack = w.chain(target)
			if verdict.Kind == expr.VerdictGoto && comesBack {
				f |= inside
				if match == yes {
					return f, true
				}
				continue
			}
		case expr.VerdictReturn:
			if match == yes {
				return f, true
			}
			through = true
			continue
		default: // continue, break, queue: user space may do anything
			continue
		}
		f |= inside
		if match == yes && !comesBack {
			return f, through
		}
	}
	return f, true
}

// answer is whether a rule matches.
type answer uint8

const (
	no answer = iota
	maybe
	yes
)

func (a answer) and(b answer) answer { return min(a, b) }

func truth(b bool) answer {
	if b {
		return yes
	}
	return no
}

// rule evaluates one rule. The verdict is nil where it has none.
func (w *walk) rule(c *chain, r rule) (match answer, verdict *expr.Verdict) {
	registers := map[uint32][]byte{} // what is known
	match = yes
	for _, e := range r {
		if e.match != nil {
			if match = match.and(e.match.matches(w.packet)); match == no {
				return no, nil
			}
			continue
		}
		switch x := e.any.(type) {
		case *expr.Meta:
			if !x.SourceRegister {
				registers[slot(x.Register)] = w.meta(x.Key)
			}
		case *expr.Ct:
			if !x.SourceRegister {
				registers[slot(x.Register)] = nil
				switch {
				case x.Key == expr.CtKeySTATE && w.packet.state != 0:
					registers[slot(x.Register)] = binary.NativeEndian.AppendUint32(nil, w.packet.state)
				case x.Key == expr.CtKeySTATUS && w.packet.out.name != "":
					registers[slot(x.Register)] = make([]byte, 4) // no DNAT
				}
			}
		case *expr.Payload:
			if x.OperationType == expr.PayloadLoad {
				registers[slot(x.DestRegister)] = w.payload(x)
			}
		case *expr.Immediate:
			registers[slot(x.Register)] = x.Data
		case *expr.Bitwise:
			registers[slot(x.DestRegister)] = masked(registers[slot(x.SourceRegister)], x)
		case *expr.Cmp:
			match = match.and(compare(registers[slot(x.Register)], x))
		case *expr.Range:
			v := registers[slot(x.Register)]
			if v == nil || len(v) != len(x.FromData) {
				match = match.and(maybe)
				break
			}
			inside := bytes.Compare(v, x.FromData) >= 0 && bytes.Compare(v, x.ToData) <= 0
			match = match.and(truth(inside == (x.Op == expr.CmpOpEq)))
		case *expr.Lookup:
			a, v := w.rules.lookup(setName{c.family, c.table, x.SetName}, registers[slot(x.SourceRegister)])
			if x.Invert {
				a = yes - a
			}
			match = match.and(a)
			if x.IsDestRegSet && x.DestRegister == unix.NFT_REG_VERDICT {
				if a == maybe {
					return maybe, &expr.Verdict{Kind: expr.VerdictDrop}
				}
				verdict = v
			}
		case *expr.Verdict:
			verdict = x
		case *expr.NAT, *expr.Objref, *expr.FlowOffload:
		case *expr.Target:
			verdict = &expr.Verdict{Kind: expr.VerdictContinue}
			if x.Name == "REJECT" {
				verdict.Kind = expr.VerdictDrop
			}
		default:
			switch e.name {
			case "counter", "log", "notrack", "dynset", "masq", "last":
			case "reject":
				verdict = &expr.Verdict{Kind: expr.VerdictDrop}
			default: // limits, xtables' matches, and what is newer than this program
				match = match.and(maybe)
			}
		}
		if match == no {
			return no, nil
		}
	}
	return match, verdict
}

// slot is where a register begins: 16 bytes for 1 to 4, 4 bytes from 8 upwards, and
// both overlap.
func slot(register uint32) uint32 {
	if register >= unix.NFT_REG32_00 {
		return (register - unix.NFT_REG32_00) * 4
	}
	return (register - 1) * 16
}

func (w *walk) meta(key expr.MetaKey) []byte {
	switch key {
	case expr.MetaKeyL4PROTO:
		return []byte{w.packet.protocol}
	case expr.MetaKeyNFPROTO:
		return []byte{unix.NFPROTO_IPV4}
	case expr.MetaKeyPROTOCOL:
		return []byte{0x08, 0x00}
	case expr.MetaKeyIIFNAME:
		return w.packet.in.padded()
	case expr.MetaKeyOIFNAME:
		return w.packet.out.padded()
	case expr.MetaKeyIIF:
		return w.packet.in.number()
	case expr.MetaKeyOIF:
		return w.packet.out.number()
	}
	return nil
}

// padded is a device's name as the kernel compares it, number its index.
func (d device) padded() []byte {
	if d.name == "" || len(d.name) >= unix.IFNAMSIZ {
		return nil
	}
	return append([]byte(d.name), make([]byte, unix.IFNAMSIZ-len(d.name))...)
}

func (d device) number() []byte {
	if d.index == 0 {
		return nil
	}
	return binary.NativeEndian.AppendUint32(nil, uint32(d.index))
}

func (w *walk) payload(x *expr.Payload) []byte {
	port := func(p uint16) []byte {
		if p == 0 || w.packet.protocol != unix.IPPROTO_TCP {
			return nil
		}
		return binary.BigEndian.AppendUint16(nil, p)
	}
	switch {
	case x.Base == expr.PayloadBaseNetworkHeader && x.Offset == 9 && x.Len == 1:
		return []byte{w.packet.protocol}
	case x.Base == expr.PayloadBaseTransportHeader && x.Offset == 0 && x.Len == 2:
		return port(w.packet.source)
	case x.Base == expr.PayloadBaseTransportHeader && x.Offset == 2 && x.Len == 2:
		return port(w.packet.dest)
	case x.Base == expr.PayloadBaseTransportHeader && x.Offset == 13 && x.Len == 1 && w.packet.protocol == unix.IPPROTO_TCP && w.packet.flags != 0:
		return []byte{w.packet.flags}
	}
	return nil
}

func masked(v []byte, x *expr.Bitwise) []byte {
	if v == nil || len(v) != len(x.Mask) || len(v) != len(x.Xor) {
		return nil
	}
	out := make([]byte, len(v))
	for i := range v {
		out[i] = v[i]&x.Mask[i] ^ x.Xor[i]
	}
	return out
}

func compare(v []byte, x *expr.Cmp) answer {
	if v == nil || len(v) < len(x.Data) {
		return maybe
	}
	order := bytes.Compare(v[:len(x.Data)], x.Data)
	switch x.Op {
	case expr.CmpOpEq:
		return truth(order == 0)
	case expr.CmpOpNeq:
		return truth(order != 0)
	case expr.CmpOpLt:
		return truth(order < 0)
	case expr.CmpOpLte:
		return truth(order <= 0)
	case expr.CmpOpGt:
		return truth(order > 0)
	}
	return truth(order >= 0)
}

// lookup looks for a value in a set, and returns what a map has for it.
func (r *ruleset) lookup(name setName, v []byte) (answer, *expr.Verdict) {
	s := r.sets[name]
	if s == nil || s.err != nil || s.concatenated || v == nil {
		return maybe, nil
	}
	found := no
	var verdict, rest *expr.Verdict
	for _, e := range s.elements {
		switch {
		case e.catchAll:
			rest = e.verdict
		case len(e.key) != len(v):
			return maybe, nil
		case !s.interval && bytes.Equal(e.key, v):
			return yes, e.verdict
		case s.interval && bytes.Compare(e.key, v) <= 0:
			found, verdict = truth(!e.intervalEnd), e.verdict
		}
	}
	if found == no && rest != nil {
		return yes, rest
	}
	return found, verdict
}
