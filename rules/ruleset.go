package rules

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Names that others meet in `nft list ruleset` and in Counters. They are part of what users script against.
const (
	// TableName is the table, of family ip.
	TableName = "pptp-alg"
	// CallsSet is the set of the tuples of known calls, as they arrive: the guard.
	CallsSet = "calls"

	portsSet     = "ports"
	bareACKsSet  = "bare_acks"
	anchorHelper = "anchor"
)

// Names of the counters, the keys of Kernel.Counters.
const (
	// Queued counts segments of control connections that were handed to the daemon.
	Queued = "queued"
	// Guarded counts enhanced GRE of a known call that was dropped because its conntrack entry was not there: it came
	// in the instant of a replacement, or after the end.
	Guarded = "guarded"
	// Unmapped counts enhanced GRE that belongs to no known call, the router's own tunnels included. Like the two that
	// follow it leaves out flows that conntrack has seen a reply of, which GRE with keys never has.
	Unmapped = "unmapped"
	// Truncated counts enhanced GRE that is too short for a Call ID, Unknown GRE of version 1 that is not PPTP's.
	Truncated = "truncated"
	Unknown   = "unknown"
	// Blocked counts forwarded enhanced GRE of no known call that GuardAll dropped.
	Blocked = "blocked"
)

// Guard says which enhanced GRE is dropped.
type Guard string

const (
	// GuardCalls drops only what would harm a known call: a packet with the tuple of a call that conntrack takes for a
	// new flow. Everything else is the business of the user's own firewall. The zero Guard means the same.
	GuardCalls Guard = "calls"
	// GuardAll drops, besides, every forwarded packet of enhanced GRE that belongs to no known call. What the router
	// itself sends and receives is left alone.
	GuardAll Guard = "all"
)

// Config is what a Ruleset is made from.
type Config struct {
	// Queue is the first nfnetlink queue.
	Queue uint16
	// Queues is how many queues share the load, from Queue upwards; 0 means 1. The kernel picks by a hash of the two
	// addresses that is the same in both directions (and not by CPU, which would part the directions of a connection):
	// all control connections between two hosts stay with one queue.
	Queues uint16
	// Ports are the TCP ports of control connections (1723, RFC 2637 section 1.3 names no other). The port that the
	// server really listens on counts, and so does the one that the client dialled, if a DNAT makes them differ.
	Ports []uint16
	// Guard says which enhanced GRE is dropped.
	Guard Guard
	// Rate is how many segments of control connections a client may send in a second; 0: as many as it likes. What is
	// beyond is dropped before the queue, which all share; TCP sends it again. Ask Kernel.Features whether this can be.
	Rate uint32
	// Native selects the nftables queue expression; otherwise the xtables target NFQUEUE is used, which kernels without
	// that expression have. Ask Kernel.Features.
	Native bool
	// Anchor is the name of the conntrack helper that new control connections get, so that no flow table takes their
	// packets past the daemon (see anchored); "": none. The kernel has to know the helper: ask Kernel.Helper.
	Anchor string
}

// A Ruleset is the daemon's table as it should be. Make it with New; it is immutable.
type Ruleset struct {
	config Config
	table  table
}

// The parts of a table. Every one knows both its nft text and its netlink form, side by side, so that the two cannot
// drift apart unseen.
type (
	table struct {
		comment  string
		counters []counter
		helpers  []helper
		sets     []set
		chains   []chain
	}
	counter struct {
		name, comment string
	}
	chain struct {
		name, comment string
		hook          *hook // nil: reached by a jump only
		rules         []rule
	}
	hook struct {
		kind     string // "filter" or "nat"
		name     string
		number   uint32 // NF_INET_*
		priority string // as nft names it
		value    int32
	}
	rule struct {
		clauses []clause
		comment string
	}
)

// New makes the ruleset for a configuration, or says what is wrong with the latter.
func New(c Config) (Ruleset, error) {
	if c.Queues == 0 {
		c.Queues = 1
	}
	if int(c.Queue)+int(c.Queues)-1 > 0xffff {
		return Ruleset{}, fmt.Errorf("rules: %d queues from number %d on: the last queue number is 65535", c.Queues, c.Queue)
	}
	if len(c.Ports) == 0 {
		return Ruleset{}, fmt.Errorf("rules: no control port: name at least one (PPTP's own is 1723)")
	}
	c.Ports = slices.Clone(c.Ports)
	slices.Sort(c.Ports)
	c.Ports = slices.Compact(c.Ports)
	if c.Ports[0] == 0 {
		return Ruleset{}, fmt.Errorf("rules: control port 0: TCP ports are 1 to 65535")
	}
	switch c.Guard {
	case "":
		c.Guard = GuardCalls
	case GuardCalls, GuardAll:
	default:
		return Ruleset{}, fmt.Errorf("rules: guard %q: it is %q or %q", string(c.Guard), GuardCalls, GuardAll)
	}
	if len(c.Anchor) > helperNameLength {
		return Ruleset{}, fmt.Errorf("rules: conntrack helper %q: a name has at most %d characters", c.Anchor, helperNameLength)
	}
	return Ruleset{config: c, table: compose(c)}, nil
}

// Config returns what the ruleset was made from, defaults filled in.
func (r Ruleset) Config() Config {
	c := r.config
	c.Ports = slices.Clone(c.Ports)
	return c
}

// tableComment also tells another daemon which queue the table's owner listens on.
const tableComment = "PPTP passthrough with queue %d; kept by pptp-alg, which replaces the table when it is edited"

// compose writes the table. What costs a packet most is to enter a base chain at all, so that there are as few as can be; and
// the first rule of each, two expressions, is the last for most of what comes: prerouting is left by all that conntrack
// knows already, the packets of calls among it, and the others by all that is not TCP.
func compose(c Config) table {
	t := table{
		comment: fmt.Sprintf(tableComment, c.Queue),
		counters: []counter{
			{Queued, "segments of control connections given to pptp-alg"},
			{Guarded, "enhanced GRE of known calls dropped for want of their conntrack entry"},
			{Unmapped, "enhanced GRE of no known call, the router's own included"},
			{Truncated, "enhanced GRE that is too short for a Call ID"},
			{Unknown, "GRE of version 1 with a protocol that is not PPTP's"},
			{Stray, "segments of known control connections that no conntrack entry fits"},
		},
		sets: []set{controlPorts(c.Ports), bareACKs(), callTuples(), connections()},
	}
	if c.Rate > 0 {
		t.counters = append(t.counters, counter{Excess, "segments of control connections dropped: their client sends too many"})
		t.sets = append(t.sets, senders())
	}

	ofTCP := []rule{{[]clause{ipTCP(), jump("segments")}, "TCP; anything else leaves here"}}
	// firewalld's chains are at filter + 10, all others' at filter.
	forward := chain{
		name:    "forward",
		comment: "behind the user's filter: pptp-alg sees only what that lets pass, with the inside addresses",
		hook:    &hook{"filter", "forward", unix.NF_INET_FORWARD, "filter + 20", 20},
		rules:   slices.Clone(ofTCP),
	}
	// The router's own PPTP client and server share its addresses with the clients behind it.
	input := chain{
		name:    "input",
		comment: "to the router's own PPTP client or server",
		hook:    &hook{"filter", "input", unix.NF_INET_LOCAL_IN, "filter + 20", 20},
		rules:   ofTCP,
	}
	output := chain{
		name:    "output",
		comment: "from the router's own PPTP client or server",
		hook:    &hook{"filter", "output", unix.NF_INET_LOCAL_OUT, "filter + 20", 20},
		rules:   ofTCP,
	}
	segments := chain{
		name:    "segments",
		comment: "TCP: the three ways to recognise a control connection",
		rules: []rule{
			{[]clause{tcpPort("dport"), jump("control")}, "towards the server of a control connection"},
			{[]clause{tcpPort("sport"), jump("control")}, "and back"},
			// A port forwarding may lead to another port inside; conntrack remembers the one that was dialled.
			{[]clause{tcp(), dialledPort(), jump("control")}, "both ways, where DNAT changed the port"},
		},
	}
	control := chain{
		name:    "control",
		comment: "segments of control connections",
		rules: []rule{
			// A SYN is not confirmed in conntrack yet and must not leave the hook for user space: with a helper of the
			// daemon's own on the flow, reinjection would confirm it before source NAT has happened.
			{[]clause{notEstablished(), verdict("return")}, "no connection yet: nothing to translate"},
			{[]clause{synAlone(), verdict("return")}, "SYN alone: nothing to translate"},
			{[]clause{noSYNFINRST(), bareACK(), verdict("return")}, "no payload: nothing to translate"},
			{[]clause{count(Queued), queue(c)}, "translated by pptp-alg; passes as it is while nobody listens"},
		},
	}

	if c.Rate > 0 {
		control.rules = slices.Insert(control.rules, len(control.rules)-1, rule{
			[]clause{excessive(c.Rate), count(Excess), verdict("drop")}, "one client must not fill the queue of all; TCP sends again",
		})
	}

	prerouting := chain{
		name:    "prerouting",
		comment: "what is not established; behind dstnat (-100), and before filter (0), where firewalls give out helpers",
		hook:    &hook{"filter", "prerouting", unix.NF_INET_PRE_ROUTING, "dstnat + 10", -90},
		rules: []rule{
			{[]clause{isEstablished(), verdict("return")}, "the packets of calls leave here, and most others"},
			{[]clause{gre(), jump("gre")}, "GRE of any kind"},
			{[]clause{noSYN(), jump("strays")}, "TCP that is not established, and begins no connection either"},
		},
	}
	greChain := chain{
		name:    "gre",
		comment: "GRE that would become a flow of its own; what is not PPTP's is left alone",
		rules: []rule{
			{[]clause{enhancedGRE(), newFlow(), callTuple(), count(Guarded), verdict("drop")}, "no ordinary conntrack entry may arise for a known call"},
			{[]clause{enhancedGRE(), withKey(), count(Unmapped), verdict("return")}, "no call of ours"},
			{[]clause{enhancedGRE(), count(Truncated), verdict("return")}, "too short for a Call ID"},
			{[]clause{versionOne(), count(Unknown)}, "enhanced GRE by its version, but not PPTP's protocol 0x880b"},
		},
	}
	nat := chain{
		name:    "nat",
		comment: "empty: conntrack translates only where a nat chain exists",
		hook:    &hook{"nat", "prerouting", unix.NF_INET_PRE_ROUTING, "dstnat", -100},
	}
	if c.Anchor != "" {
		t.helpers = []helper{{anchorHelper, c.Anchor, "does nothing here: the kernel offloads no connection that has a helper"}}
		prerouting.rules = append(prerouting.rules, anchoring()...)
	}
	t.chains = []chain{forward, input, output, segments, control, prerouting, greChain, strays(), known(c), nat}

	if c.Guard == GuardAll {
		t.counters = append(t.counters, counter{Blocked, "forwarded enhanced GRE of no known call, dropped: guard = all"})
		t.chains[0].rules = append(t.chains[0].rules,
			rule{[]clause{enhancedGRE(), jump("guard_all")}, "guard = all: enhanced GRE needs a call"})
		t.chains = slices.Insert(t.chains, 5, chain{
			name:    "guard_all",
			comment: "forwarded enhanced GRE; the router's own tunnels never come here",
			rules: []rule{
				{[]clause{mapped(), verdict("return")}, "a call of ours"},
				// No condition: what conntrack does not track has no status to compare, and is no call either.
				{[]clause{count(Blocked), verdict("drop")}, "no call of ours"},
			},
		})
	}
	return t
}

// String is the ruleset in the language of nft(8): `nft -f` of it installs what Apply installs. The one thing that nft
// cannot express, the xtables target, stands there as a comment.
func (r Ruleset) String() string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format, a...) }
	p("table ip %s {\n", TableName)
	p("\tcomment %q\n", r.table.comment)
	for _, c := range r.table.counters {
		p("\n\tcounter %s {\n\t\tcomment %q\n\t}\n", c.name, c.comment)
	}
	for _, h := range r.table.helpers {
		p("%s", h.text())
	}
	for _, s := range r.table.sets {
		p("\n\tset %s {\n\t\t%s\n\t\tcomment %q\n", s.name, s.declaration, s.comment)
		if len(s.elements) > 0 {
			texts := make([]string, len(s.elements))
			for i, e := range s.elements {
				texts[i] = e.text
			}
			p("\t\telements = { %s }\n", strings.Join(texts, ", "))
		}
		p("\t}\n")
	}
	for _, c := range r.table.chains {
		p("\n\tchain %s {\n\t\tcomment %q\n", c.name, c.comment)
		if h := c.hook; h != nil {
			p("\t\ttype %s hook %s priority %s; policy accept;\n", h.kind, h.name, h.priority)
		}
		for _, rule := range c.rules {
			p("%s", rule.text("\t\t"))
		}
		p("\t}\n")
	}
	p("}\n")
	return b.String()
}

// text is the rule as a line of nft's, or as a comment where nft has no words for one of its clauses.
func (r rule) text(indent string) string {
	var words []string
	foreign := ""
	for _, c := range r.clauses {
		words = append(words, c.text)
		if c.foreign {
			foreign = c.text
		}
	}
	line := fmt.Sprintf("%s comment %q", strings.Join(words, " "), r.comment)
	if foreign == "" {
		return indent + line + "\n"
	}
	return indent + "# nft has no words for the " + foreign + "; over netlink this rule is installed:\n" +
		indent + "# " + line + "\n"
}
