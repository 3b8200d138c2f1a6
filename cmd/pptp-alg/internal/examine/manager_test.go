package examine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rulesetOf has these chains and nothing in them.
func rulesetOf(names ...chainName) *ruleset {
	r := &ruleset{chains: map[chainName]*chain{}}
	for _, n := range names {
		r.chains[n] = &chain{chainName: n, hooked: true, hook: unix.NF_INET_FORWARD}
	}
	return r
}

// Whose rules they are is told by their names, and the commands are that program's.
func TestManagers(t *testing.T) {
	ip := func(chain string) chainName { return chainName{unix.NFPROTO_IPV4, "filter", chain} }
	inet := func(table string) chainName { return chainName{unix.NFPROTO_INET, table, "forward"} }
	for _, c := range []struct {
		chains []chainName // the first one drops
		want   manager
		open   string
		known  string
	}{
		{[]chainName{inet("firewalld")}, firewalld, "firewall-cmd --permanent --new-policy", "firewall-cmd --reload"},
		{[]chainName{inet("fw4")}, fw4, "nft insert rule inet fw4 forward tcp dport", "nft insert rule inet fw4 forward ct state"},
		{[]chainName{ip("FORWARD"), ip("ufw-user-forward")}, ufw, "ufw route allow ", "iptables -I FORWARD -m conntrack"},
		{[]chainName{ip("loc-net"), ip("FORWARD"), ip("shorewall")}, shorewall, "echo 'ACCEPT loc net tcp 1723'", "shorewall reload"},
		{[]chainName{ip("FORWARD"), ip("DOCKER-USER")}, docker, "iptables -I DOCKER-USER ", "iptables -I DOCKER-USER -m conntrack"},
		{[]chainName{ip("FORWARD")}, iptables, "iptables -I FORWARD ", "iptables -I FORWARD -m conntrack"},
		{[]chainName{{legacyFamily, "mangle", "FORWARD"}}, iptablesLegacy, "iptables-legacy -t mangle -I FORWARD ", "iptables-legacy -t mangle -I FORWARD -m"},
		{[]chainName{ip("forward")}, plain, "nft insert rule ip filter forward tcp dport 1723 accept", "nft insert rule ip filter forward ct state"},
	} {
		r := rulesetOf(c.chains...)
		if got := r.manager(c.chains[0]); got != c.want {
			t.Errorf("%v: %s instead of %s", c.chains, got, c.want)
		}
		if got := r.open(c.chains[:1], 1723); !strings.HasPrefix(got, c.open) || strings.Contains(got, "\n") {
			t.Errorf("%s: %q opens the port", c.want, got)
		}
		if got := r.known(c.chains[:1]); !strings.HasPrefix(got, c.known) {
			t.Errorf("%s: %q lets through what is established", c.want, got)
		}
		if got := r.main("pptp-alg").masquerade("ppp0"); !strings.Contains(got, "ppp0") || c.want == ufw && !strings.Contains(got, "before.rules") {
			t.Errorf("%s: %q masquerades", c.want, got)
		}
	}
}

// The rules with `flow add` are found, with their table, and control connections are accepted in front of them.
func TestKeepOut(t *testing.T) {
	r := rulesetOf(chainName{unix.NFPROTO_INET, "mine", "forward"}, chainName{unix.NFPROTO_INET, "firewalld", "filter_FORWARD"})
	for name := range r.chains {
		r.chains[name].rules = []rule{{{name: "flow_offload", any: &expr.FlowOffload{Name: "ft"}}}}
	}
	want := "sed -i 's/^NftablesFlowtable=.*/NftablesFlowtable=off/' /etc/firewalld/firewalld.conf && firewall-cmd --reload\n" +
		"nft insert rule inet mine forward tcp sport 1723 ct state established,related accept\n" +
		"nft insert rule inet mine forward tcp dport 1723 ct state established,related accept"
	if got := r.keepOut(1723); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The command for OpenWrt finds the zone wan wherever it stands. uci is a stand-in.
func TestOpenWrtZone(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{
		"uci": `case $1 in show) cat ` + dir + `/show;; *) echo "uci $*" >>` + dir + `/log;; esac`, "service": `echo "service $*" >>` + dir + `/log`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	show := "firewall.@rule[3].name='wan'\nfirewall.@zone[0]=zone\nfirewall.@zone[0].name='lan'\nfirewall.@zone[1].name='guest'\nfirewall.@zone[2].name='wan'\nfirewall.@zone[3].name='wan6'\n"
	if err := os.WriteFile(filepath.Join(dir, "show"), []byte(show), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", openWrtMasquerade)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	said, _ := os.ReadFile(filepath.Join(dir, "log"))
	if want := "uci set firewall.@zone[2].masq=1\nuci commit firewall\nservice firewall reload\n"; string(said) != want {
		t.Errorf("it did %q, want %q", said, want)
	}
}
