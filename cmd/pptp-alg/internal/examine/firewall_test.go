package examine

import (
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The commands can be pasted: they name the chain, once each, and the rule.
func TestFixes(t *testing.T) {
	at := chainName{unix.NFPROTO_INET, "fw", "forward"}
	late := chainName{unix.NFPROTO_IPV4, "other", "last"}
	r := &ruleset{chains: map[chainName]*chain{
		at:   {chainName: at, kind: "filter", hooked: true, hook: unix.NF_INET_FORWARD, drop: true},
		late: {chainName: late, rules: []rule{nil, {{name: "objref", any: &expr.Objref{Type: 3, Name: "pptp-helper"}}}}, handles: []uint64{3, 12}},
	}}
	c := Config{Ports: []uint16{1723}}
	want := map[string]string{
		"a new control connection": "nft insert rule inet fw forward tcp dport 1723 accept",
		"GRE of a call":            "nft insert rule inet fw forward ct state established,related accept",
	}
	for _, f := range throughRules(r, c) {
		if w := want[f.Name]; w != "" && (f.Level != Fail || f.Fix.Debian != w) {
			t.Errorf("%s: %+v %+v, want %q", f.Name, f, f.Fix, w)
		}
	}
	var w walk
	w.note(at, "rule 1")
	w.note(at, "rule 2")
	if got := r.open(w.chains, 5); got != "nft insert rule inet fw forward tcp dport 5 accept" {
		t.Errorf("two rules of a chain: %q", got)
	}
	if f := kernelHelper(r, c, ""); f.Fix == nil || !strings.HasPrefix(f.Fix.Debian, "nft delete rule ip other last handle 12 ") {
		t.Errorf("kernel's helper: %+v %+v", f, f.Fix)
	}
	if f := kernelHelper(r, c, "ftp"); f.Level != OK || f.Fix != nil || !strings.Contains(f.Text, "ip other last") {
		t.Errorf("kernel's helper, with an anchor: %+v", f)
	}
}
