package rules

import (
	"slices"
	"testing"
)

// Chains at the ingress of devices are found, whoever made them, and no others.
func TestIngressChains(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	for _, c := range []struct {
		add  string
		want []string
	}{
		{"table ip x { chain c { type filter hook prerouting priority 0; }; chain d { }; }; table inet y { chain c { type filter hook input priority 0; }; }", nil},
		{`table netdev police { chain in { type filter hook ingress device "lo" priority 0; }; }`, []string{"netdev police in"}},
	} {
		nft(t, c.add, "-f", "-")
		if got, err := k.IngressChains(); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v", c.add, got, err)
		}
	}
}
