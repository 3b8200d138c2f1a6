package examine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// This file knows whose rules the rules are, and how one tells their owner something that
// lasts: what is put into them behind its back goes with its next reload.

// A manager is a program that keeps firewall rules.
type manager string

const (
	firewalld      manager = "firewalld"
	fw4            manager = "fw4"
	ufw            manager = "ufw"
	shorewall      manager = "shorewall"
	docker         manager = "docker"
	iptables       manager = "iptables"
	iptablesLegacy manager = "iptables-legacy"
	plain          manager = "nft"
)

func (r *ruleset) has(family byte, table, chain string) bool {
	return r.chains[chainName{family, table, chain}] != nil
}

// manager says whose chain this is.
func (r *ruleset) manager(c chainName) manager {
	if c.family == unix.NFPROTO_INET {
		switch c.table {
		case "firewalld":
			return firewalld
		case "fw4":
			return fw4
		}
		return plain
	}
	byIptables := c.family == legacyFamily || c.family == unix.NFPROTO_IPV4 &&
		(r.has(c.family, c.table, "FORWARD") || r.has(c.family, c.table, "PREROUTING") || r.has(c.family, c.table, "POSTROUTING"))
	switch {
	case !byIptables:
		return plain
	case r.has(c.family, "filter", "ufw-user-forward"):
		return ufw
	case r.has(c.family, "filter", "shorewall"):
		return shorewall
	case c.name == "FORWARD" && r.has(c.family, "filter", "DOCKER-USER"):
		return docker
	case c.family == legacyFamily:
		return iptablesLegacy
	}
	return iptables
}

// main is the manager of what is forwarded, by which a router's owner does the rest too.
func (r *ruleset) main(ours string) manager {
	var found []manager
	for _, c := range r.chains {
		if c.hooked && c.table != ours {
			found = append(found, r.manager(c.chainName))
		}
	}
	for _, m := range []manager{firewalld, fw4, shorewall, ufw, iptables, iptablesLegacy} {
		if slices.Contains(found, m) {
			return m
		}
	}
	if slices.Contains(found, docker) {
		return iptables
	}
	return plain
}

// outwards is an option for the device of the default route, where there is one.
func outwards(option string) string {
	if device := uplink(); device != "" {
		return option + device + " "
	}
	return ""
}

// xtablesAccept puts a rule before all others of a chain.
func xtablesAccept(program string, c chainName, what string) string {
	table := ""
	if c.table != "filter" {
		table = "-t " + c.table + " "
	}
	return fmt.Sprintf("%s %s-I %s %s -j ACCEPT", program, table, c.name, what)
}

// open are the commands that let new control connections through chains.
func (r *ruleset) open(chains []chainName, port uint16) string {
	const words = "%sproto tcp to any port %d"
	match := fmt.Sprintf("%s-p tcp --dport %d", outwards("-o "), port)
	var lines []string
	for _, c := range chains {
		var line string
		switch r.manager(c) {
		case firewalld:
			zone := "ANY"
			if device := uplink(); device != "" {
				zone = "$(firewall-cmd --get-zone-of-interface=" + device + ")"
			}
			line = fmt.Sprintf("firewall-cmd --permanent --new-policy pptp && firewall-cmd --permanent --policy pptp --add-ingress-zone ANY && "+
				"firewall-cmd --permanent --policy pptp --add-egress-zone %s && firewall-cmd --permanent --policy pptp --add-port %d/tcp && "+
				"firewall-cmd --reload", zone, port)
		case ufw:
			line = "ufw route allow " + fmt.Sprintf(words, outwards("out on "), port)
		case shorewall:
			line = fmt.Sprintf("echo 'ACCEPT %s tcp %d' >>/etc/shorewall/rules && shorewall reload", shorewallZones(c.name), port)
		case docker:
			c.name = "DOCKER-USER"
			line = xtablesAccept(xtablesProgram(c), c, match)
		case iptables, iptablesLegacy:
			line = xtablesAccept(xtablesProgram(c), c, match)
		default:
			line = fmt.Sprintf("nft insert rule %v tcp dport %d accept", c, port)
		}
		lines = appendNew(lines, line)
	}
	return strings.Join(lines, "\n")
}

// known are the commands that let packets of known connections through chains.
func (r *ruleset) known(chains []chainName) string {
	const match = "-m conntrack --ctstate RELATED,ESTABLISHED"
	var lines []string
	for _, c := range chains {
		var line string
		switch r.manager(c) {
		case firewalld:
			line = "firewall-cmd --reload   (firewalld accepts established connections; look for rules of your own: nft list ruleset)"
		case shorewall:
			line = "shorewall reload   (shorewall accepts established connections; look into /etc/shorewall/rules for the section ESTABLISHED)"
		case docker:
			c.name = "DOCKER-USER"
			line = xtablesAccept(xtablesProgram(c), c, match)
		case ufw, iptables, iptablesLegacy:
			line = xtablesAccept(xtablesProgram(c), c, match)
		default:
			line = fmt.Sprintf("nft insert rule %v ct state established,related accept", c)
		}
		lines = appendNew(lines, line)
	}
	return strings.Join(lines, "\n")
}

// masquerade is the command that translates what leaves by a device.
func (m manager) masquerade(device string) string {
	switch m {
	case firewalld:
		return "firewall-cmd --permanent --zone=$(firewall-cmd --get-zone-of-interface=" + device + ") --add-masquerade && firewall-cmd --reload"
	case ufw:
		return `printf '*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o ` + device + ` -j MASQUERADE\nCOMMIT\n' >>/etc/ufw/before.rules && ufw reload`
	case shorewall:
		return "echo 'MASQUERADE - " + device + "' >>/etc/shorewall/snat && shorewall reload"
	case iptables, iptablesLegacy:
		return string(m) + " -t nat -A POSTROUTING -o " + device + " -j MASQUERADE"
	}
	return "nft 'add table ip nat; add chain ip nat postrouting { type nat hook postrouting priority srcnat; }; " +
		"add rule ip nat postrouting oifname \"" + device + "\" masquerade'"
}

func xtablesProgram(c chainName) string {
	if c.family == legacyFamily {
		return "iptables-legacy"
	}
	return "iptables"
}

// shorewallZones are the zones of a chain such as loc-net; else those of shorewall's
// examples.
func shorewallZones(chain string) string {
	if from, to, ok := strings.Cut(chain, "-"); ok && from != "" && to != "" && !strings.ContainsAny(to, "-_") {
		return from + " " + to
	}
	return "loc net"
}

func appendNew(lines []string, line string) []string {
	if slices.Contains(lines, line) {
		return lines
	}
	return append(lines, line)
}

// flows lists the chains with a rule that puts connections into a flow table.
func (r *ruleset) flows() []chainName {
	var found []chainName
	for _, c := range r.chains {
		if slices.ContainsFunc(c.rules, func(l rule) bool {
			return slices.ContainsFunc(l, func(e expression) bool { return e.name == "flow_offload" })
		}) {
			found = append(found, c.chainName)
		}
	}
	slices.SortFunc(found, func(a, b chainName) int { return strings.Compare(a.String(), b.String()) })
	return found
}

// keepOut are the commands that keep control connections out of flow tables.
func (r *ruleset) keepOut(port uint16) string {
	var lines []string
	for _, c := range r.flows() {
		if r.manager(c) == firewalld {
			lines = appendNew(lines, "sed -i 's/^NftablesFlowtable=.*/NftablesFlowtable=off/' /etc/firewalld/firewalld.conf && firewall-cmd --reload")
			continue
		}
		// Accepted in this chain, they do not come to the rule.
		for _, end := range []string{"sport", "dport"} {
			lines = appendNew(lines, fmt.Sprintf("nft insert rule %v tcp %s %d ct state established,related accept", c, end, port))
		}
	}
	return strings.Join(lines, "\n")
}

// givesPPTP reports whether a target CT gives the kernel's PPTP helper to connections.
func givesPPTP(t *expr.Target) bool {
	info, is := t.Info.(*xt.Unknown)
	return is && pptpHelper(*info)
}

// withoutHelper is the command that takes away a rule that gives connections that helper.
func (r *ruleset) withoutHelper(c *chain, i int) string {
	const unload = " && modprobe -r nf_nat_pptp nf_conntrack_pptp"
	switch r.manager(c.chainName) {
	case shorewall:
		return "sed -i '/PPTP_HELPER/,/endif/s/^/#/' /etc/shorewall/conntrack && shorewall reload"
	case iptables, iptablesLegacy, docker, ufw:
		return fmt.Sprintf("%s -t %s -D %s %d", xtablesProgram(c.chainName), c.table, c.name, i+1) + unload
	}
	return fmt.Sprintf("nft delete rule %v handle %d", c.chainName, c.handles[i]) + unload
}
