package examine

import (
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"pptp-alg/conntrack"
	"pptp-alg/rules"
)

// firewall looks at the live nftables rules.
func firewall(c Config) []Finding {
	r, err := readRuleset()
	if err != nil {
		return []Finding{warning("firewall", runAsRoot, "cannot read the nftables rules: %v", err)}
	}
	var found []Finding
	if err := r.readLegacy(); err != nil {
		found = append(found, warning("iptables-legacy", both("iptables-legacy-save   (look for DROP and REJECT in FORWARD)"), "not sure: %v", err))
	}
	found = append(found, masquerading(r, c.Table))
	found = append(found, throughRules(r, c)...)
	return append(found, offload(r, c), kernelHelper(r, c, anchor()))
}

// masquerading looks for source translation, which a router without NAT does not need.
func masquerading(r *ruleset, ours string) Finding {
	const name = "masquerading"
	for _, c := range r.chains {
		for _, rule := range c.rules {
			for _, e := range rule {
				n, isNAT := e.any.(*expr.NAT)
				x, isTarget := e.any.(*expr.Target)
				if e.name == "masq" || isNAT && n.Type == expr.NATTypeSourceNAT || isTarget && (x.Name == "MASQUERADE" || x.Name == "SNAT") {
					return ok(name, "chain %v translates source addresses", c.chainName)
				}
			}
		}
	}
	device, hint := uplink(), ""
	if device == "" {
		device, hint = "WAN", "   (WAN: the device towards the Internet; there is no default route that names it)"
	}
	return warning(name, &Fix{r.main(ours).masquerade(device) + hint, openWrtMasquerade}, "no rule translates source addresses: right for a router without NAT, else clients do not reach the Internet")
}

// openWrtMasquerade finds the zone wan by its name: its number is what the order of
// /etc/config/firewall makes it.
const openWrtMasquerade = `zone=$(uci show firewall | sed -n "s/^\(firewall\.\(@zone\[[0-9]*\]\|[^.@]*\)\)\.name='wan'\$/\1/p"); ` +
	`uci set "$zone.masq=1"; uci commit firewall; service firewall reload`

// throughRules has the packets of a call walk through the rules.
func throughRules(r *ruleset, c Config) []Finding {
	port := c.Ports[0]
	opens := func(chains []chainName) string { return r.open(chains, port) }
	const openWrtKnown = "service firewall restart   (fw4 accepts established connections; look into /etc/nftables.d for rules of your own)"
	openWrtOpen := fmt.Sprintf("uci add firewall rule; uci set firewall.@rule[-1].name=PPTP; uci set firewall.@rule[-1].src=lan; "+
		"uci set firewall.@rule[-1].dest=wan; uci set firewall.@rule[-1].proto=tcp; uci set firewall.@rule[-1].dest_port=%d; "+
		"uci set firewall.@rule[-1].target=ACCEPT; uci commit firewall; service firewall reload", port)
	const syn, pshAck = 0x02, 0x18
	pairs := ways()
	back := make([][2]device, len(pairs))
	for i, w := range pairs {
		back[i] = [2]device{w[1], w[0]}
	}
	var found []Finding
	for _, p := range []struct {
		name   string
		mend   func([]chainName) string
		wrt    string // what mends it on OpenWrt
		sure   bool   // a doubt is worth a warning
		ways   [][2]device
		packet packet
	}{
		{"a new control connection", opens, openWrtOpen, false, pairs,
			packet{protocol: unix.IPPROTO_TCP, dest: port, state: expr.CtStateBitNEW, flags: syn}},
		{"a control packet", r.known, openWrtKnown, true, pairs,
			packet{protocol: unix.IPPROTO_TCP, dest: port, state: expr.CtStateBitESTABLISHED, flags: pshAck}},
		{"an answer to a control packet", r.known, openWrtKnown, true, back,
			packet{protocol: unix.IPPROTO_TCP, source: port, state: expr.CtStateBitESTABLISHED, flags: pshAck}},
		{"GRE of a call", r.known, openWrtKnown, true, pairs,
			packet{protocol: unix.IPPROTO_GRE, state: expr.CtStateBitESTABLISHED}},
	} {
		all, w := r.anyWay(p.packet, p.ways, c.Table)
		fix := &Fix{p.mend(w.chains), p.wrt}
		switch why := strings.Join(w.dropped, ", "); {
		case all == drops:
			found = append(found, fail(p.name, fix, "dropped by %s", why))
		case all&drops == 0:
			found = append(found, ok(p.name, "the rules let it through"))
		case p.sure:
			found = append(found, warning(p.name, fix, "not sure: devices, addresses or marks decide, or what this program does not know; "+
				"what may drop it is %s", why))
		default:
			found = append(found, ok(p.name, "the rules let it through, depending on devices or addresses; what drops the rest is %s", why))
		}
	}
	return found
}

// anyWay walks a packet through the rules, by each of several pairs of devices, and returns
// the best fate and how it came to that. A router has networks that may do what others may not.
func (r *ruleset) anyWay(p packet, ways [][2]device, ours string) (best fate, of *walk) {
	for _, way := range ways {
		w, all := &walk{rules: r}, passes
		for _, hook := range []uint32{unix.NF_INET_PRE_ROUTING, unix.NF_INET_FORWARD, unix.NF_INET_POST_ROUTING} {
			w.packet = p
			if hook != unix.NF_INET_POST_ROUTING {
				w.packet.in = way[0]
			}
			if hook != unix.NF_INET_PRE_ROUTING {
				w.packet.out = way[1]
			}
			f := w.hook(hook, ours)
			all |= f & drops
			if f&passes == 0 {
				all = drops
				break
			}
		}
		if better := map[fate]int{passes: 2, passes | drops: 1}; of == nil || better[all] > better[best] {
			best, of = all, w
		}
	}
	return best, of
}

// offload looks for flow tables, which take control connections out of sight.
func offload(r *ruleset, c Config) Finding {
	const name = "flow offload"
	if len(r.flowTables) == 0 {
		return ok(name, "there is none")
	}
	tables := strings.Join(r.flowTables, ", ")
	if helper := anchor(); helper != "" {
		return ok(name, "flow table %s; the daemon keeps control connections out of it with the conntrack helper %s", tables, helper)
	}
	if len(r.flows()) == 0 {
		return ok(name, "flow table %s; no rule puts connections into it", tables)
	}
	return warning(name, &Fix{
		r.keepOut(c.Ports[0]),
		"uci set firewall.@defaults[0].flow_offloading=0; uci commit firewall; service firewall restart",
	}, "flow table %s hides control connections from the daemon, and this kernel has no conntrack helper to keep them out with", tables)
}

// anchor names the conntrack helper that the daemon can give to control connections,
// which the kernel then leaves out of flow tables; "" where it has none.
func anchor() string {
	if ct, err := conntrack.Dial(); err == nil {
		defer ct.Close()
		if ct.ProbeHelper("pptp-alg") == nil {
			return "pptp-alg"
		}
	}
	if k, err := rules.Dial(); err == nil {
		defer k.Close()
		if k.Helper("ftp") == nil {
			return "ftp"
		}
	}
	return ""
}

// kernelHelper looks for rules that give connections the kernel's own PPTP helper.
func kernelHelper(r *ruleset, c Config, anchor string) Finding {
	const name = "kernel's PPTP helper"
	const helperObject = 3 // NFT_OBJECT_CT_HELPER
	fix := Fix{OpenWrt: "uci set firewall.@defaults[0].auto_helper=0; uci commit firewall; service firewall restart; opkg remove kmod-nf-nathelper-extra"}
	for _, ch := range r.chains {
		if ch.table == c.Table {
			continue
		}
		for i, rule := range ch.rules {
			for _, e := range rule {
				o, isObject := e.any.(*expr.Objref)
				t, isTarget := e.any.(*expr.Target)
				if isObject && o.Type == helperObject && strings.Contains(o.Name, "pptp") || isTarget && t.Name == "CT" && givesPPTP(t) {
					if anchor != "" {
						return ok(name, "chain %v gives it to control connections, and the daemon takes it away again from new ones", ch.chainName)
					}
					fix.Debian = r.withoutHelper(ch, i)
					return warning(name, &fix, "chain %v gives it to control connections: the daemon leaves those that have it alone, with all its limits", ch.chainName)
				}
			}
		}
	}
	if v, err := sysctl("net/netfilter/nf_conntrack_helper"); err == nil && v == "1" && module("nf_conntrack_pptp") {
		return warning(name, both("sysctl -w net.netfilter.nf_conntrack_helper=0"),
			"net.netfilter.nf_conntrack_helper is 1: the kernel gives it to every control connection; the daemon leaves those alone, with all its limits")
	}
	return ok(name, "no rule gives it to control connections")
}

func module(name string) bool {
	_, err := os.Stat("/sys/module/" + name)
	return err == nil
}

// listeners looks who has the daemon's queue.
func listeners(c Config) []Finding {
	const name = "queue"
	b, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return []Finding{warning(name, installQueue, "cannot see the queues of this host: %v", err)}
	}
	var others []string
	mine := false
	for line := range strings.Lines(string(b)) {
		// Queue number, the listener's netlink port, and what else nobody needs here.
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if f[0] == fmt.Sprint(c.Queue) {
			mine = true
		} else {
			others = append(others, f[0])
		}
	}
	switch {
	case mine && !c.Running:
		return []Finding{fail(name, &Fix{
			fmt.Sprintf("ss -f netlink | grep nf   (names who listens), or run the daemon with --queue %d", c.Queue+1),
			fmt.Sprintf("run the daemon with --queue %d", c.Queue+1),
		}, "somebody else listens on queue %d, and no daemon answers", c.Queue)}
	case len(others) > 0:
		return []Finding{warning(name, nil, "other programs have queues %s: if one takes all packets, say to look for attacks, "+
			"it decides about PPTP too", strings.Join(others, ", "))}
	case mine:
		return []Finding{ok(name, "the daemon has queue %d", c.Queue)}
	}
	return []Finding{ok(name, "queue %d is free", c.Queue)}
}

// otherALG looks for others that translate PPTP.
func otherALG(Config) []Finding {
	const name = "other PPTP ALG"
	fix := &Fix{"modprobe -r nf_nat_pptp nf_conntrack_pptp", "rmmod nf_nat_pptp nf_conntrack_pptp; opkg remove kmod-nf-nathelper-extra"}
	for _, m := range []string{"ip_nat_pptp", "nf_nat_pptp"} {
		if module(m) {
			return []Finding{warning(name, fix, "the module %s is loaded: it does nothing until a rule gives connections to it, and then both translate", m)}
		}
	}
	return []Finding{ok(name, "none was found")}
}
