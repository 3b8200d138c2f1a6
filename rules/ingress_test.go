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
		if got, err := k.BridgeChains(); err != nil || len(got) != 0 {
			t.Errorf("%s: in bridges %q, %v", c.add, got, err)
		}
	}
}

// Chains of the family bridge are found at every hook.
func TestBridgeChains(t *testing.T) {
	for _, hook := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
		t.Run(hook, func(t *testing.T) {
			inNewNamespace(t)
			k := dial(t)
			nft(t, "table bridge x { chain c { }; chain d { type filter hook "+hook+" priority 0; }; }", "-f", "-")
			if got, err := k.BridgeChains(); err != nil || !slices.Equal(got, []string{"bridge x d"}) {
				t.Errorf("%q, %v", got, err)
			}
			if got, err := k.IngressChains(); err != nil || len(got) != 0 {
				t.Errorf("at devices %q, %v", got, err)
			}
		})
	}
}
