package examine

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pptp-alg/conntrack"
	"pptp-alg/rules"
)

// Install commands that several findings share.
var (
	installConntrack = &Fix{"modprobe nf_conntrack_netlink", "opkg update && opkg install kmod-nf-conntrack-netlink"}
	installQueue     = &Fix{"modprobe nft_queue", "opkg update && opkg install kmod-nft-queue"}
	runAsRoot        = both("run this command as root")
)

func capabilities(Config) []Finding {
	const name = "capability"
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return []Finding{warning(name, nil, "cannot read the capabilities of this process: %v", err)}
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return []Finding{fail(name, runAsRoot, "CAP_NET_ADMIN is missing: what follows cannot all be seen without")}
	}
	return []Finding{ok(name, "CAP_NET_ADMIN is there")}
}

// kernel asks for features in a network namespace of its own, which has no rules and
// no connections that could be disturbed.
func kernel(Config) []Finding {
	var found []Finding
	err := scratch(func() { found = append(conntrackFeatures(), nftablesFeatures()...) })
	if err != nil {
		return []Finding{warning("kernel", runAsRoot, "cannot make a network namespace to try its features in: %v", err)}
	}
	return found
}

// scratch runs f on a thread in a new network namespace. The thread ends with it, as
// it may not be used for anything else.
func scratch(f func()) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err
	}()
	return <-done
}

func conntrackFeatures() []Finding {
	const name = "conntrack"
	ct, err := conntrack.Dial()
	if err != nil {
		return []Finding{fail(name, installConntrack, "%v", err)}
	}
	defer ct.Close()
	if err := ct.Probe(); err != nil {
		return []Finding{fail(name, installConntrack, "%v", err)}
	}
	// A NAT chain makes the kernel translate: install and remove the daemon's rules in
	// here, then an entry of a call.
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	entry := conntrack.Entry{
		Arrives: conntrack.GRE{Src: a, Dst: b, CallID: 7},
		Leaves:  conntrack.GRE{Src: netip.MustParseAddr("203.0.113.1"), Dst: b, CallID: 8},
		Timeout: time.Minute,
	}
	if err := ct.Create(entry); err != nil {
		var missing *conntrack.UnsupportedError
		fix := &Fix{"modprobe -a nf_nat nf_conntrack_netlink", "opkg update && opkg install kmod-nf-nat kmod-nf-conntrack-netlink kmod-nf-nathelper-extra"}
		if errors.As(err, &missing) {
			fix = both(missing.Fix)
		}
		return []Finding{fail("GRE in conntrack", fix, "a call's entry cannot be made: %v", err)}
	}
	if err := ct.Delete(entry); err != nil {
		return []Finding{warning("GRE in conntrack", nil, "a call's entry cannot be deleted: %v", err)}
	}
	return []Finding{
		ok(name, "the kernel lets user space make entries"),
		ok("GRE in conntrack", "an entry that translates a Call ID was made and deleted in a scratch namespace"),
	}
}

func nftablesFeatures() []Finding {
	const name = "nftables"
	k, err := rules.Dial()
	if err != nil {
		return []Finding{fail(name, &Fix{"modprobe nf_tables", "opkg update && opkg install kmod-nft-core"}, "%v", err)}
	}
	defer k.Close()
	f, err := k.Features()
	if err != nil {
		return []Finding{fail(name, installQueue, "%v", err)}
	}
	found := []Finding{ok(name, "the daemon's rules are accepted by the kernel: %v", f)}
	if !f.Limit {
		found = append(found, warning("limits", &Fix{"modprobe nft_limit", "opkg update && opkg install kmod-nft-core"},
			"the kernel has no `limit`: a client that floods the control port slows others down"))
	}
	return found
}

// helpers says with which conntrack helper the daemon keeps control connections out of
// flow tables, and the kernel's own PPTP helper off them.
func helpers(Config) []Finding {
	const name = "user-space helpers"
	fix := &Fix{"modprobe nfnetlink_cthelper", "opkg update && opkg install kmod-nfnetlink-cthelper"}
	switch anchor() {
	case "pptp-alg":
		return []Finding{ok(name, "the kernel takes conntrack helpers from user space")}
	case "":
		return []Finding{warning(name, fix, "the kernel takes no conntrack helper from user space, and has none to use instead: "+
			"flow offload, or its own PPTP helper, would take control connections from the daemon")}
	default:
		return []Finding{ok(name, "the kernel takes no conntrack helper from user space; the daemon makes do with the one for FTP")}
	}
}

func accounting(c Config) []Finding {
	const name = "accounting"
	on, err := conntrack.Accounting()
	switch fix := both("sysctl -w net.netfilter.nf_conntrack_acct=1"); {
	case err != nil:
		return []Finding{warning(name, fix, "%v", err)}
	case !on && c.Running:
		return []Finding{warning(name, fix, "net.netfilter.nf_conntrack_acct is 0: calls have no packet counters, and nobody can tell which side is silent")}
	case !on:
		return []Finding{ok(name, "net.netfilter.nf_conntrack_acct is 0; the daemon sets it to 1 where it may")}
	}
	return []Finding{ok(name, "packets of calls are counted")}
}

func sysctl(path string) (string, error) {
	b, err := os.ReadFile("/proc/sys/" + path)
	return strings.TrimSpace(string(b)), err
}

func forwarding(Config) []Finding {
	const name = "forwarding"
	fix := &Fix{
		"sysctl -w net.ipv4.ip_forward=1 && echo net.ipv4.ip_forward=1 > /etc/sysctl.d/50-forward.conf",
		"sysctl -w net.ipv4.ip_forward=1",
	}
	v, err := sysctl("net/ipv4/ip_forward")
	switch {
	case err != nil:
		return []Finding{warning(name, nil, "cannot read net.ipv4.ip_forward: %v", err)}
	case v != "1":
		return []Finding{fail(name, fix, "net.ipv4.ip_forward is %s: this host forwards nothing", v)}
	}
	return []Finding{ok(name, "net.ipv4.ip_forward is 1")}
}

// tables looks how full the connection table is.
func tables(Config) []Finding {
	const name = "connection table"
	number := func(path string) (int, error) {
		v, err := sysctl(path)
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(v)
	}
	limit, err := number("net/netfilter/nf_conntrack_max")
	if err == nil {
		var used int
		if used, err = number("net/netfilter/nf_conntrack_count"); err == nil {
			return []Finding{fill(name, used, limit)}
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return []Finding{warning(name, installConntrack, "conntrack is not loaded yet; the daemon loads it")}
	}
	return []Finding{warning(name, nil, "cannot be read: %v", err)}
}

// fill judges how full the table is. It is refused to nobody before it is full.
func fill(name string, used, limit int) Finding {
	text := fmt.Sprintf("%d of %d entries are used", used, limit)
	fix := both(fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*max(limit, 16384)))
	switch {
	case limit > 0 && used >= limit:
		return fail(name, fix, "%s: no call can be made", text)
	case limit > 0 && used > limit*9/10:
		return warning(name, fix, "%s: calls fail when it is full", text)
	}
	return ok(name, "%s", text)
}

func running(c Config) []Finding {
	if c.Running {
		return []Finding{ok("daemon", "it is running and answers")}
	}
	return []Finding{warning("daemon", &Fix{"systemctl enable --now pptp-alg", "service pptp-alg enable; service pptp-alg start"},
		"it is not running: PPTP passes untranslated, which is enough for one client (%s)", c.NotRunning)}
}
