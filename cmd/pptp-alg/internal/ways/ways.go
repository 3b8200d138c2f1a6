// Package ways says how the kernel would forward a packet, whether a program may do that in the kernel's place, and
// when an answer may have become wrong.
//
// It speaks rtnetlink and XFRM's netlink to the kernel of the network namespace in which Open was called, and decides
// nothing itself: the route is the one that the kernel finds. Where its answer would not hold for every packet of a call, or a
// packet that does not take the kernel's own way would miss something (IPsec, shaping), the answer is an Unsafe.
package ways

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Question is a packet as it is when the kernel routes it: after the translation of its destination, and before that of
// its source.
type Question struct {
	Src, Dst netip.Addr // IPv4
	Mark     uint32     // the firewall's mark
	Link     int        // index of the device that it comes in by: a bridge, not its port. Whether it can be taken there is another question
}

// A Way is how a packet leaves the router.
type Way struct {
	Link     int        // index of the device
	Name     string     // its name
	Gateway  netip.Addr // next hop, whose neighbour entry gives the Ethernet address; IPv6 for some routes; the destination itself where that is on the link
	MTU      int        // bytes of the largest IP packet: what is larger is the kernel's
	Ethernet bool       // otherwise packets leave without a link-layer header: PPP, tun
}

// Unsafe says in words for the user why packets have to go the ordinary way.
type Unsafe struct{ Reason string }

func (u *Unsafe) Error() string { return u.Reason }

func refuse(format string, a ...any) error { return &Unsafe{fmt.Sprintf(format, a...)} }

// remembered is how many answers are kept until something changes.
const remembered = 4096

// Ways asks the kernel and watches for changes. Its methods may be called by several goroutines.
type Ways struct {
	asks, events, neighbours *netlink.Conn
	whereabouts              *netlink.Conn // which tells where bridges' stations are
	ipsec, policyEvents      *netlink.Conn // nil: this kernel has no IPsec

	changes  chan struct{}
	appeared chan struct{}
	moved    chan struct{}
	readers  sync.WaitGroup

	// What was learned since the last change of its kind.
	mu       sync.Mutex
	links    map[int]link
	arrives  map[int]error
	hops     map[hop]bool      // that answers named
	stations map[Station]*spot // that Port was asked for; nil: they have moved since
	ports    map[int]link      // where stations are: their news concern only those
	gone     map[Station]bool  // that moved and were not told of
	answers  map[Question]answer
	asked    asked
	rules    *rules
	policies []policy
	known    bool      // policies
	settings *settings // nil: not known
	services bool      // a route is there, or was, for one type of service only
	listed   bool      // services
	deaf     error     // why no news come any more
	port     uint32    // see Ours
	closed   bool
}

type answer struct {
	way Way
	err error
}

// groups are the multicast groups of rtnetlink with news that can change an answer; neighbours have a socket of their own.
var groups = []uint32{
	unix.RTNLGRP_LINK, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
	unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_NEXTHOP,
}

// Open begins to watch.
func Open() (*Ways, error) {
	w := &Ways{changes: make(chan struct{}, 1), appeared: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
	w.forget()
	err := w.dial()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch routes: %w", err), w.Close())
	}
	w.readers.Go(func() { w.watch(w.events, w.when(w.route), w.lost) })
	w.readers.Go(func() { w.watch(w.neighbours, w.when(w.neighbour), w.lost) })
	w.readers.Go(func() { w.watch(w.whereabouts, w.move, w.allMoved) })
	if w.policyEvents != nil {
		w.readers.Go(func() { w.watch(w.policyEvents, w.when(w.anything), w.lost) })
	}
	return w, nil
}

func (w *Ways) dial() (err error) {
	if w.events, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
		return err
	}
	for _, g := range groups {
		// A kernel before 5.3 has no next hop objects, one without traffic control no filters.
		if err = w.events.JoinGroup(g); err != nil && g != unix.RTNLGRP_NEXTHOP && g != unix.RTNLGRP_TC {
			return err
		}
	}
	if w.asks, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
		return err
	}
	if w.neighbours, err = neighbours(failures); err != nil {
		return err
	}
	if w.whereabouts, err = neighbours(ofBridges); err == nil {
		err = w.whereabouts.SetReadBuffer(1 << 20) // news of all stations of all bridges come
	}
	if err != nil {
		return err
	}
	if w.ipsec, err = netlink.Dial(unix.NETLINK_XFRM, nil); errors.Is(err, unix.EPROTONOSUPPORT) {
		w.ipsec = nil
		return nil
	} else if err != nil {
		return err
	}
	if w.policyEvents, err = netlink.Dial(unix.NETLINK_XFRM, nil); err != nil {
		return err
	}
	return w.policyEvents.JoinGroup(xfrmPolicyGroup)
}

// Close ends the watch, and closes the channel of Changes.
func (w *Ways) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	var errs []error
	for _, c := range []*netlink.Conn{w.events, w.neighbours, w.whereabouts, w.policyEvents, w.asks, w.ipsec} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	w.readers.Wait()
	close(w.changes)
	return errors.Join(errs...)
}

// Changes tells that answers may have become wrong: a route, rule, link, address, filter or IPsec policy has changed, a
// next hop that an answer named does not answer, or news of it were lost. It holds one piece of news: an answer that was given before the news were read is not to be
// trusted, one that is asked for afterwards is.
func (w *Ways) Changes() <-chan struct{} { return w.changes }

// Ours says from which netlink port this program changes filters: that somebody else takes one of them away is news.
func (w *Ways) Ours(port uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.port = port
}

// Appeared tells that a device can be used now that Links did not list. No answer is wrong therefore.
func (w *Ways) Appeared() <-chan struct{} { return w.appeared }

// Find says how the packet would be forwarded. The error is an *Unsafe where it must go the ordinary way.
func (w *Ways) Find(q Question) (Way, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deaf != nil {
		return Way{}, w.deaf
	}
	var reason *Unsafe
	if a, ok := w.answers[q]; ok {
		return a.way, a.err
	}
	if q.Src.Is4() && q.Dst.Is4() {
		w.asked.add(q)
	}
	way, err := w.find(q)
	if err != nil && !errors.As(err, &reason) {
		return Way{}, fmt.Errorf("find the route to %v: %w", q.Dst, err)
	}
	if len(w.answers) >= remembered {
		clear(w.answers)
	}
	w.answers[q] = answer{way, err}
	if err == nil {
		w.hops[hop{way.Link, way.Gateway}] = true
	}
	return way, err
}

func (w *Ways) find(q Question) (Way, error) {
	if _, err := w.link(q.Link); err != nil {
		return Way{}, err
	}
	if !q.Src.Is4() || !q.Dst.Is4() {
		return Way{}, refuse("%v to %v is not IPv4", q.Src, q.Dst)
	}
	if err := w.listSettings(); err != nil {
		return Way{}, err
	}
	protocol, err := w.protocol()
	if err != nil {
		return Way{}, err
	}
	r, err := w.lookup(q, protocol)
	if err != nil {
		return Way{}, err
	}
	out, err := w.link(r.link)
	if err != nil {
		return Way{}, err
	}
	if err := out.usable(); err != nil {
		return Way{}, err
	}
	if err := w.clear(q); err != nil {
		return Way{}, err
	}
	way := Way{Link: r.link, Name: out.name, Gateway: r.gateway, MTU: out.mtu, Ethernet: out.ethernet()}
	if !way.Gateway.IsValid() {
		way.Gateway = q.Dst
	}
	if r.mtu > 0 && r.mtu < way.MTU {
		way.MTU = r.mtu
	}
	return way, nil
}

// Arrives says whether a program may take packets at this device's ingress. The error is an *Unsafe where it may not.
func (w *Ways) Arrives(index int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.arrive(index)
}

func (w *Ways) arrive(index int) error {
	l, err := w.link(index)
	if err, ok := w.arrives[index]; ok {
		return err
	}
	if err == nil {
		err = l.usable()
	}
	if err == nil {
		err = w.ingress(l)
	}
	var reason *Unsafe
	if err == nil || errors.As(err, &reason) {
		w.arrives[index] = err
	}
	return err
}

// Filtered says whether the firewall has seen packets that come by this device before they get there: by a bridge whose ports it is
// at. The error is an *Unsafe then. It looks every time: no news tell of it.
func (w *Ways) Filtered(index int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, err := w.link(index)
	if err == nil && l.kind == "bridge" && (l.filtered || bridgesFiltered()) {
		err = refuse("%s passes packets through the firewall at its ports (bridge-nf-call-iptables)", l.name)
	}
	return err
}
