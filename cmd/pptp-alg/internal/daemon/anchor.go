package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/cmd/pptp-alg/internal/queue"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// The conntrack helpers that can keep control connections out of flow tables:
// one of our own that does nothing, and the kernel's FTP helper. That one reads
// what passes, and opens a port where it finds what looks like FTP.
const (
	ownHelper = "pptp-alg"
	ftpHelper = "ftp"
	noHelper  = "none" // in words
)

// anchorReview is how often new connections make the daemon look whether its
// helper still is the right one. See others.
const anchorReview = 30 * time.Second

// anchor is which helper control connections get.
type anchor struct {
	helper     string // "": none
	others     bool   // another program received packets when it was chosen
	registered bool   // the own helper was
	reviewed   time.Time
}

func (a anchor) String() string {
	if a.helper == "" {
		return noHelper
	}
	return a.helper
}

// Why the own helper is not the one.
var (
	errNotWanted = errors.New("the configuration wants the FTP helper")
	errOthers    = errors.New("another program receives packets from a queue of its own (nfnetlink_queue): " +
		"if new connections are among them, they would leave without their source NAT")
)

// choose finds the best helper. own and ftp say why the kernel cannot give
// connections that one, as the returned errors do where it is not the choice.
func choose(wish config.Anchor, others bool, own, ftp func() error) (helper string, notOwn, notFTP error) {
	switch {
	case wish == config.AnchorOff:
		return "", nil, nil
	case wish == config.AnchorFTP:
		notOwn = errNotWanted
	case others:
		notOwn = errOthers
	default:
		if notOwn = own(); notOwn == nil {
			return ownHelper, nil, nil
		}
	}
	if notFTP = ftp(); notFTP == nil {
		helper = ftpHelper
	}
	return helper, notOwn, notFTP
}

// chooseAnchor chooses the helper, and registers it if it is the own one.
func (d *daemon) chooseAnchor(wish config.Anchor) {
	own := func() error {
		if err := d.plane.ct.RegisterHelper(ownHelper); err != nil {
			return err
		}
		d.anchor.registered = true
		return d.plane.rules.Helper(ownHelper)
	}
	ftp := func() error { return d.plane.rules.Helper(ftpHelper) }
	d.anchor.others = others(d.config.Queue)
	helper, notOwn, notFTP := choose(wish, d.anchor.others, own, ftp)
	d.anchor.helper = helper
	switch {
	case notFTP != nil:
		d.log.Warn("control connections cannot be kept out of flow tables: where the firewall offloads flows, calls are not translated",
			"why no helper of our own", notOwn, "why not the FTP helper", notFTP)
	case notOwn != nil && notOwn != errNotWanted:
		d.log.Info("the kernel's FTP helper keeps control connections out of flow tables", "why no helper of our own", notOwn)
	}
}

// Ruleset returns what a daemon with this configuration would install here.
// Who may not ask the kernel gets the usual answers.
func Ruleset(c config.Config) (rules.Ruleset, error) {
	has := rules.Features{Queue: true, Target: true, Limit: true}
	kernel, err := rules.Dial()
	if err != nil {
		return rules.New(rulesConfig(c, has))
	}
	defer kernel.Close()
	if f, err := kernel.Features(); err == nil {
		has = f
	}
	r := rulesConfig(c, has)
	ct, err := conntrack.Dial()
	if err != nil {
		return rules.New(r)
	}
	defer ct.Close()
	unless := func(err error) error { // what may not be asked may be there
		if errors.Is(err, unix.EPERM) {
			return nil
		}
		return err
	}
	r.Anchor, _, _ = choose(c.Anchor, others(c.Queue),
		func() error { return unless(ct.ProbeHelper(ownHelper)) }, func() error { return unless(kernel.Helper(ftpHelper)) })
	return rules.New(r)
}

// others reports whether another program in this namespace receives packets
// than the one with this queue. If those are the first ones of connections, the
// own helper must not be on them: when such a packet comes back from user
// space, the kernel enters the connection into its table for the sake of the
// helper, before source NAT.
func others(own uint16) bool {
	listeners, err := queue.Kernels()
	return err == nil && slices.ContainsFunc(listeners, func(l queue.Kernel) bool { return l.Queue != own })
}

// reviewAnchor chooses again when another program has begun to receive packets,
// or has ceased to. The kernel does not tell of that. It comes with a change of
// the rules, of which it does, or with rules of iptables: so this is called then,
// and now and then when a control connection begins.
func (d *daemon) reviewAnchor(now time.Time) {
	d.anchor.reviewed = now
	if d.config.Anchor != config.AnchorAuto || others(d.config.Queue) == d.anchor.others {
		return
	}
	before := d.anchor.helper
	d.chooseAnchor(d.config.Anchor)
	if d.anchor.helper == before {
		return
	}
	r, err := d.rulesFor(d.config)
	if err == nil {
		err = d.install(r, rules.Elements{})
	}
	if err != nil {
		d.log.Error("cannot change the anchor of control connections", "to", d.anchor, "error", err)
		d.anchor.helper = before
		return
	}
	d.ruleset = r
	d.log.Info("the anchor of control connections has changed", "to", d.anchor)
}

// install brings about a ruleset with these elements and those that are there, whose helper the kernel has to know. The
// registry is one for all namespaces: a daemon in another one, which is just
// stopping, may have taken ours for nobody's.
func (d *daemon) install(r rules.Ruleset, e rules.Elements) error {
	for try := 1; ; try++ {
		if r.Config().Anchor == ownHelper {
			if err := d.plane.ct.RegisterHelper(ownHelper); err != nil {
				return err
			}
			d.anchor.registered = true
		}
		err := d.plane.rules.ApplyWith(r, e)
		var lacking *rules.UnsupportedError
		if err == nil || try == 3 || !errors.As(err, &lacking) {
			return err
		}
	}
}

// reclaim takes control connections back that a flow table has carried since
// before there was an anchor.
func (d *daemon) reclaim() {
	if d.anchor.helper == "" {
		return
	}
	offloaded, err := d.plane.ct.Offloaded()
	if err != nil {
		d.log.Warn("cannot look for control connections in flow tables", "error", err)
		return
	}
	for _, c := range offloaded {
		// Either end may be the one with the control port: see orient.
		if !slices.ContainsFunc([]netip.AddrPort{c.Original.Dst, c.Reply.Src, c.Original.Src, c.Reply.Dst},
			func(a netip.AddrPort) bool { return slices.Contains(d.ports, a.Port()) }) {
			continue
		}
		switch err := d.plane.ct.Reclaim(c, d.anchor.helper); {
		case errors.Is(err, conntrack.ErrNotFound): // it has just ended
		case err != nil:
			d.log.Warn("cannot take a control connection out of a flow table", "connection", c.Original.String(), "error", err)
		default:
			d.counters.reclaimed++
			d.log.Info("took a control connection out of a flow table", "connection", c.Original.String())
		}
	}
}

// unregister removes the own helper. Only words come of a failure: it does
// nothing, to nobody.
func (d *daemon) unregister() error {
	if !d.anchor.registered {
		return nil
	}
	if err := d.plane.ct.UnregisterHelper(ownHelper); err != nil {
		d.log.Warn("a conntrack helper without a function stays registered", "error", err)
	}
	return nil
}

// removeHelper removes the own helper, if there is one and no other daemon's
// rules use it.
func removeHelper() error {
	ct, err := conntrack.Dial()
	if err != nil {
		return err
	}
	defer ct.Close()
	if err := ct.ProbeHelper(ownHelper); err != nil {
		return nil // the kernel has no such helpers, or it is not ours
	}
	return ct.UnregisterHelper(ownHelper)
}

// sysctlHelpers makes the kernel attach its helpers by port, on kernels before
// Linux 6.0.
const sysctlHelpers = "/proc/sys/net/netfilter/nf_conntrack_helper"

// kernelHelped is told when the kernel's own PPTP helper turns out to be
// attached to a connection. It translates the Call IDs on their way out, behind
// us: ours would be translated again.
func (d *daemon) kernelHelped(p nat.Path) string {
	d.counters.kernelHelped++
	d.limited("the kernel's own PPTP helper is attached to a control connection: it is left to that, and has all the helper's limits",
		"path", describe(p), "what to do", d.unhelp())
	return "left to the kernel's own PPTP helper, which is attached to the connection; the log says how to detach it"
}

// detached takes the kernel's helper away from a connection that has just begun, and
// reports whether it could. A rule that comes before the anchor has given it that helper, as
// shorewall's do. The helper has not read anything yet: its turn is behind ours. One that is
// in the midst of a conversation may have translated something and has to go on. Without
// an anchor, nobody else's helper is touched either.
func (d *daemon) detached(p *queue.Packet, c *alg.Connection) bool {
	if d.anchor.helper == "" || !p.Flags.Has(queue.SYN) {
		return false
	}
	if err := d.plane.ct.Detach(d.entryOfConnection(c)); err != nil {
		d.limited("cannot take the kernel's own PPTP helper away from a control connection", "path", describe(c.Path()), "error", err)
		return false
	}
	d.counters.detached++
	d.log.Debug("took the kernel's own PPTP helper away from a control connection", "path", describe(c.Path()))
	return true
}

// unhelp says how to get rid of the kernel's helper.
func (d *daemon) unhelp() string {
	if b, err := os.ReadFile(sysctlHelpers); err == nil && strings.TrimSpace(string(b)) == "1" {
		return "sysctl -w net.netfilter.nf_conntrack_helper=0; then let the client connect again"
	}
	var first string
	if d.anchor.helper == "" {
		first = fmt.Sprintf("set anchor = %q in the configuration (or start with --anchor %[1]s); or else ", config.AnchorAuto)
	}
	return first + "remove the rule that attaches it: nft -a list ruleset | grep 'ct helper set', " +
		"iptables -t raw -S | grep helper; on OpenWrt: uci set firewall.@zone[N].auto_helper=0 for each zone N, uci commit firewall, " +
		"service firewall restart; then let the client connect again"
}
