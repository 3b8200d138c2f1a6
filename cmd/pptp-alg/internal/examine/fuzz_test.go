package examine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A live ruleset as bytes: messages, each with its kind, its family, the length of its
// attributes (big-endian) and these. The elements are those of the set before them.
const (
	aChain = iota
	aRule
	aSet
	aFlowTable
	someElements
	messageKinds
)

func readMessages(b []byte) *ruleset {
	r := &ruleset{chains: map[chainName]*chain{}, sets: map[setName]*set{}}
	var last *set
	for len(b) >= 4 {
		kind, family, n := b[0]%messageKinds, b[1], int(binary.BigEndian.Uint16(b[2:]))
		if b = b[4:]; n > len(b) {
			break
		}
		attributes := b[:n:n]
		b = b[n:]
		switch kind {
		case aChain:
			_ = r.addChain(family, attributes)
		case aRule:
			_ = r.addRule(family, attributes)
		case aSet:
			before := len(r.sets)
			_ = r.addSet(family, attributes)
			for _, s := range r.sets {
				if len(r.sets) > before && s.elements == nil {
					last = s
				}
			}
		case aFlowTable:
			_ = r.addFlowTable(family, attributes)
		case someElements:
			if last != nil {
				last.addElements(family, attributes)
			}
		}
	}
	return r
}

// Rulesets of any kind, possible and impossible: a packet always meets some fate, what
// may drop it is named, and every finding has its words and every fix its commands.
func FuzzRuleset(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		r := readMessages(b)
		for _, state := range []uint32{0, expr.CtStateBitNEW, expr.CtStateBitESTABLISHED} {
			for hook := range uint32(unix.NF_INET_NUMHOOKS) {
				w := walk{rules: r, packet: packet{protocol: unix.IPPROTO_TCP, dest: 1723, state: state}}
				switch fate := w.hook(hook, "pptp-alg"); {
				case fate == 0 || fate > passes|drops:
					t.Errorf("fate %d", fate)
				case fate&drops != 0 && (len(w.dropped) == 0 || len(w.chains) == 0):
					t.Errorf("dropped in hook %d by nobody", hook)
				}
			}
		}
		c := Config{Ports: []uint16{1723}, Table: "pptp-alg"}
		findings := append(throughRules(r, c), masquerading(r, "pptp-alg"), kernelHelper(r, c, ""))
		for _, finding := range findings {
			if finding.Name == "" || finding.Text == "" || finding.Fix != nil && finding.Fix.Debian+finding.Fix.OpenWrt == "" {
				t.Errorf("%+v", finding)
			}
		}
		for name, c := range r.chains {
			if len(c.rules) != len(c.handles) || c.chainName != name {
				t.Errorf("%v has %d rules and %d handles", name, len(c.rules), len(c.handles))
			}
		}
		if !bytes.Equal(b, before) {
			t.Error("the messages were changed")
		}
	})
}

// Chains that jump twice to the next one: as many ways as 2^40, and one answer.
func TestManyWays(t *testing.T) {
	r := &ruleset{chains: map[chainName]*chain{}}
	name := func(n int) chainName { return chainName{unix.NFPROTO_INET, "fw", fmt.Sprint("chain", n)} }
	for n := range 40 {
		jump := rule{{name: "limit"}, {name: "immediate", any: &expr.Verdict{Kind: expr.VerdictJump, Chain: name(n + 1).name}}}
		r.chains[name(n)] = &chain{chainName: name(n), rules: []rule{jump, jump}, handles: []uint64{1, 2}}
	}
	r.chains[name(40)] = &chain{chainName: name(40), rules: []rule{{{name: "reject"}}}, handles: []uint64{1}}
	first := r.chains[name(0)]
	first.kind, first.hooked, first.hook = "filter", true, unix.NF_INET_FORWARD
	w := walk{rules: r, packet: packet{protocol: unix.IPPROTO_GRE, state: expr.CtStateBitESTABLISHED}}
	if f := w.hook(unix.NF_INET_FORWARD, ""); f != passes|drops || len(w.dropped) != 1 || w.chains[0] != name(40) {
		t.Errorf("%v, dropped by %q in %v", f, w.dropped, w.chains)
	}
}
