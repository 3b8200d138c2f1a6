package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// Kind is what the router of a lab does with PPTP.
type Kind string

// The competitors.
const (
	Plain  Kind = "plain"  // forwarding: neither connection tracking nor NAT
	Masq   Kind = "masq"   // masquerading, nothing that knows PPTP
	Helper Kind = "helper" // masquerading and the kernel's own PPTP helper
	ALG    Kind = "alg"    // masquerading and pptp-alg
	Fast   Kind = "fast"   // masquerading and pptp-alg with its fast path
	// Entries is ALG whose rules are taken away once the calls are up, to see what
	// these cost. Nothing protects the calls then.
	Entries Kind = "entries"
)

// ours says whether the daemon sets up calls.
func (k Kind) ours() bool { return k == ALG || k == Fast || k == Entries }

// Name is the competitor's name for people.
func (k Kind) Name() string {
	switch k {
	case Plain:
		return "plain forwarding"
	case Masq:
		return "masquerading only"
	case Helper:
		return "kernel helper"
	case Entries:
		return "entries alone"
	case Fast:
		return "fast path"
	}
	return "pptp-alg"
}

// The addresses of a lab. All clients are in one namespace.
var (
	network    = netip.MustParsePrefix("10.77.0.0/16")
	lanRouter  = netip.MustParseAddr("10.77.0.1")
	wanRouter  = netip.MustParseAddr("198.18.0.1")
	wanServer  = netip.MustParseAddr("198.18.1.1")
	prefixBits = 16
)

// clientCount is how many clients call at once; the neighbour table of the kernel
// has room for some hundreds.
const clientCount = 64

func clientAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(1 + i/250), byte(1 + i%250)})
}

// world is one lab: inside, router and outside in a row.
type world struct {
	*lab.Lab
	kind                    Kind
	inside, router, outside *lab.Host
	macs                    map[string]net.HardwareAddr // of "inside", "lan", "wan", "outside"
	daemon                  *lab.Daemon
	clients                 []*peer.Node
	server                  *peer.Node
	pairs                   []pair
	failures                int // calls that could not be had
	ports                   atomic.Uint32
}

// options of newWorld.
type options struct {
	program string // pptp-alg
	config  string // of the daemon
	inside  inside
}

// inside says how the inside is connected with the router.
type inside int

const (
	routed  inside = iota // a device of its own
	bridged               // a bridge
	watched               // a bridge where the firewall sees packets at the ports (bridge-nf-call-iptables)
)

// limitsOff lifts the daemon's limits that many calls of few clients run into.
const limitsOff = "[limits]\ncalls_per_client = 0\ncalls_per_connection = 0\ncalls = 0\nconnections_per_client = 0\nconnections = 0\nsegments_per_client = 0\n"

// errNoHelper says that the kernel cannot be compared with.
var errNoHelper = errors.New("this kernel has no PPTP helper (CONFIG_NF_CONNTRACK_PPTP, CONFIG_NF_NAT_PPTP)")

// newWorld builds a lab whose peers can talk.
func newWorld(ctx context.Context, kind Kind, o options) (_ *world, err error) {
	l, err := lab.New()
	if err != nil {
		return nil, err
	}
	w := &world{Lab: l, kind: kind, macs: map[string]net.HardwareAddr{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("lab with %s: %w", kind.Name(), err), w.close())
		}
	}()
	if err := w.wire(o); err != nil {
		return w, err
	}
	if err := l.Settle(ctx); err != nil {
		return w, err
	}
	if err := w.protect(ctx, o); err != nil {
		return w, err
	}
	return w, w.populate()
}

// wire makes hosts, links, addresses, and what hosts know of their neighbours.
func (w *world) wire(o options) (err error) {
	if w.router, err = w.Router("router"); err != nil {
		return err
	}
	if w.inside, err = w.Host("inside"); err != nil {
		return err
	}
	if w.outside, err = w.Host("outside"); err != nil {
		return err
	}
	wired := func() error { return w.Link(w.inside, "lan", w.router, "lan") }
	if o.inside != routed {
		wired = func() error { return w.bridged(o.inside == watched) }
	}
	err = errors.Join(wired(), w.Link(w.router, "wan", w.outside, "wan"),
		w.router.AddAddress("lan", netip.PrefixFrom(lanRouter, prefixBits)), w.router.AddAddress("wan", netip.PrefixFrom(wanRouter, prefixBits)),
		w.outside.AddAddress("wan", netip.PrefixFrom(wanServer, prefixBits)))
	if err != nil {
		return err
	}
	var clients []netip.Addr
	for i := range clientCount {
		clients = append(clients, clientAddress(i))
		if err := w.inside.AddAddress("lan", netip.PrefixFrom(clients[i], prefixBits)); err != nil {
			return err
		}
	}
	if err := w.inside.Route(netip.Prefix{}, lanRouter); err != nil {
		return err
	}
	if w.kind == Plain {
		if err := w.outside.Route(network, wanRouter); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		host   *lab.Host
		device string
		name   string
	}{{w.inside, "lan", "inside"}, {w.router, "lan", "lan"}, {w.router, "wan", "wan"}, {w.outside, "wan", "outside"}} {
		link, err := d.host.Netlink().LinkByName(d.device)
		if err != nil {
			return fmt.Errorf("find %s on %s: %w", d.device, d.host.Name(), err)
		}
		w.macs[d.name] = link.Attrs().HardwareAddr
	}
	// Known for ever: no ARP in the middle of a measurement.
	return errors.Join(w.know(w.inside, "lan", w.macs["lan"], lanRouter), w.know(w.router, "lan", w.macs["inside"], clients...),
		w.know(w.router, "wan", w.macs["outside"], wanServer), w.know(w.outside, "wan", w.macs["wan"], wanRouter))
}

func (w *world) know(h *lab.Host, device string, mac net.HardwareAddr, addresses ...netip.Addr) error {
	link, err := h.Netlink().LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s on %s: %w", device, h.Name(), err)
	}
	for _, a := range addresses {
		n := &netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
		if err := h.Netlink().NeighSet(n); err != nil {
			return fmt.Errorf("tell %s of %v: %w", h.Name(), a, err)
		}
	}
	return nil
}

// protect gives the router what the lab is there to measure.
func (w *world) protect(ctx context.Context, o options) error {
	switch w.kind {
	case Plain:
		return nil
	case Helper:
		if err := w.router.Firewall(lab.KernelHelper(peer.Port), lab.Masquerade("wan")); err != nil {
			return fmt.Errorf("%w: %w", errNoHelper, err)
		}
		return nil
	case ALG, Fast, Entries:
		if err := w.router.Firewall(lab.Masquerade("wan")); err != nil {
			return err
		}
		return w.startDaemon(ctx, o)
	}
	return w.router.Firewall(lab.Masquerade("wan"))
}

func (w *world) startDaemon(ctx context.Context, o options) (err error) {
	config := "log_level = \"warn\"\n"
	if w.kind == Fast {
		config += "fast_path = \"on\"\n"
	}
	w.daemon, err = w.router.StartDaemon(lab.DaemonOptions{Program: o.program, Config: config + o.config})
	if err != nil {
		return err
	}
	return w.daemon.Ready(ctx)
}

func (w *world) populate() (err error) {
	w.server, err = peer.Start(peer.Config{Name: "server", Network: w.outside, Address: wanServer, CallID: peer.Counting(1), Timeout: time.Minute})
	if err != nil {
		return err
	}
	if err := w.server.Listen(peer.Port); err != nil {
		return err
	}
	for i := range clientCount {
		// Every client has the same Call IDs, as real ones do.
		n, err := peer.Start(peer.Config{Name: fmt.Sprintf("client%d", i+1), Network: w.inside, Address: clientAddress(i),
			CallID: peer.Counting(1), Timeout: time.Minute})
		if err != nil {
			return err
		}
		w.clients = append(w.clients, n)
	}
	return nil
}

// bare takes the daemon's rules away, and keeps it from putting them back. What
// stays of its table is the empty NAT chain, which conntrack needs.
func (w *world) bare() error {
	if err := w.daemon.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	c, err := w.router.Nftables()
	if err != nil {
		return err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, chain := range chains {
		if chain.Table.Name == daemonTable && chain.Type == nftables.ChainTypeFilter {
			c.FlushChain(chain)
			c.DelChain(chain)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("take the daemon's rules away: %w", err)
	}
	return nil
}

// daemonTable is the name of the daemon's nftables table (family ip).
const daemonTable = "pptp-alg"

func (w *world) close() error {
	var errs []error
	if w.kind == Entries && w.daemon != nil {
		errs = append(errs, w.daemon.Signal(syscall.SIGCONT))
	}
	for _, n := range append(w.clients, w.server) {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(append(errs, w.Close())...)
}
