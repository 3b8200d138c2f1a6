package rules

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// otherGRE are packets that PPTP has nothing to do with. Each has the Call ID of the guarded call where an enhanced
// header would have it.
func otherGRE(src, dst netip.Addr) map[string][]byte {
	return map[string][]byte{
		"version 0 with a key":            grePacket(src, dst, []byte{0x20, 0x00, 0x08, 0x00, 0, 4, 0, 5, 1, 2, 3, 4}),
		"version 0 with protocol 0x880b":  grePacket(src, dst, []byte{0x20, 0x00, 0x88, 0x0b, 0, 4, 0, 5, 1, 2, 3, 4}),
		"version 1 with another protocol": grePacket(src, dst, []byte{0x30, 0x01, 0x08, 0x00, 0, 4, 0, 5, 1, 2, 3, 4}),
		"version 5 with protocol 0x880b":  grePacket(src, dst, []byte{0x30, 0x05, 0x88, 0x0b, 0, 4, 0, 5, 1, 2, 3, 4}),
		"shorter than a header":           grePacket(src, dst, []byte{0x30, 0x01, 0x88}),
		"shorter than a Call ID":          grePacket(src, dst, []byte{0x30, 0x01, 0x88, 0x0b, 0, 4, 0}),
	}
}

// strange says which of otherGRE look like PPTP's and are not, and where they count.
var strange = map[string]string{
	"version 1 with another protocol": Unknown,
	"shorter than a header":           Unknown,
	"shorter than a Call ID":          Truncated,
}

func (r *router) tracked(callID uint16) bool {
	r.Helper()
	table, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
	if err != nil {
		r.Skip("no /proc/net/nf_conntrack")
	}
	return bytes.Contains(table, fmt.Appendf(nil, "dstkey=%#x ", callID))
}

func TestGuardDropsWhatWouldBecomeAFlow(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}})
	counters, err := r.kernel.Counters()
	must(t, err)
	try := func(pass bool, what, counter string, packet []byte, from *os.File) {
		t.Helper()
		r.passes(pass, what, packet, from)
		want := map[string]uint64{}
		if counter != "" {
			want[counter] = 1
		}
		counters = r.counts(what, counters, want)
	}
	known := enhanced(client, server, 5, "five")
	try(true, "nobody's call", Unmapped, known, r.inside)
	must(t, r.kernel.Add(Call{client, server, 5}, Call{server, public, 6}))
	try(false, "a known call whose packets have made a flow already", Guarded, known, r.inside)

	must(t, r.kernel.Add(Call{client, server, 7}))
	try(false, "a known call without entry", Guarded, enhanced(client, server, 7, "x"), r.inside)
	try(false, "again", Guarded, enhanced(client, server, 7, "x"), r.inside)
	try(false, "the other direction, to the router's own address", Guarded, enhanced(server, public, 6, "x"), r.outer)
	try(true, "another Call ID", Unmapped, enhanced(client, server, 8, "x"), r.inside)
	try(true, "another source", Unmapped, enhanced(netip.MustParseAddr("192.168.77.12"), server, 7, "x"), r.inside)
	try(true, "another destination", Unmapped, enhanced(client, netip.MustParseAddr("203.0.113.3"), 7, "x"), r.inside)
	try(true, "the way back", Unmapped, enhanced(server, client, 7, "x"), r.outer)
	if r.tracked(7) && !r.tracked(8) {
		t.Error("the wrong flows are tracked")
	}
	for what, packet := range otherGRE(client, server) {
		try(true, what, strange[what], packet, r.inside)
	}

	parts := fragments(enhanced(client, server, 7, "0123456789abcdef0123456789abcdef"), 16)
	r.passes(false, "first fragment", parts[0], r.inside)
	try(false, "last fragment", Guarded, parts[1], r.inside)

	r.track(client, server, 7, netip.Addr{}, established|statusFixedTimeout)
	try(true, "a known call with its entry", "", enhanced(client, server, 7, "x"), r.inside)
	r.passes(false, "first fragment", parts[0], r.inside)
	if out := r.send(parts[1], r.inside); out == nil {
		t.Error("a fragmented packet of a call did not pass")
	}
	r.receive(r.outer, unix.IPPROTO_GRE, patience) // it leaves in fragments again
	counters = r.counts("fragments of a call", counters, nil)

	// Somebody else's established entry is in the way of the call, but it is not about to arise.
	must(t, r.kernel.Add(Call{client, server, 10}))
	r.track(client, server, 10, netip.Addr{}, established)
	try(true, "a known call with somebody's entry", "", enhanced(client, server, 10, "x"), r.inside)

	must(t, r.kernel.Delete(Call{client, server, 5}))
	try(true, "no known call any more", Unmapped, known, r.inside)
}

// The guard has the tuples as they arrive. A user who leads all GRE to a host inside changes them before the guard is asked.
func TestGuardKnowsWhatArrived(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}})
	nft(t, fmt.Sprintf("table ip user { chain in { type nat hook prerouting priority dstnat; ip daddr %v ip protocol gre dnat to %v; }; }", public, client), "-f", "-")
	must(t, r.kernel.Add(Call{server, public, 7}))
	counters, err := r.kernel.Counters()
	must(t, err)
	r.passes(false, "a known call", enhanced(server, public, 7, "x"), r.outer)
	counters = r.counts("a known call", counters, map[string]uint64{Guarded: 1})
	r.passes(true, "no known call", enhanced(server, public, 8, "x"), r.outer)
	r.counts("no known call", counters, map[string]uint64{Unmapped: 1})
}

// timeval has another width on 32-bit machines.
func timeval(d time.Duration) *unix.Timeval {
	v := unix.NsecToTimeval(d.Nanoseconds())
	return &v
}

// The router's own GRE is a raw socket's here.
func ownGRE(t *testing.T) (send func([]byte), receive func() bool) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_GRE)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, timeval(patience)))
	return func(packet []byte) {
			t.Helper()
			must(t, unix.Sendto(fd, packet[20:], 0, &unix.SockaddrInet4{Addr: [4]byte(packet[ipDestination : ipDestination+4])}))
		}, func() bool {
			var b [2048]byte
			_, _, err := unix.Recvfrom(fd, b[:], 0)
			return err == nil
		}
}

func TestGuardAllDropsForwardedGREWithoutCall(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}, Guard: GuardAll})
	counters, err := r.kernel.Counters()
	must(t, err)
	r.passes(false, "unmapped", enhanced(client, server, 8, "x"), r.inside)
	counters = r.counts("unmapped", counters, map[string]uint64{Unmapped: 1, Blocked: 1})
	r.passes(false, "unmapped, from outside", enhanced(server, client, 8, "x"), r.outer)
	counters = r.counts("unmapped, from outside", counters, map[string]uint64{Unmapped: 1, Blocked: 1})
	for what, packet := range otherGRE(client, server) {
		want := map[string]uint64{strange[what]: 1}
		if strange[what] == Truncated { // PPTP's, by version and protocol
			want[Blocked] = 1
		}
		r.passes(want[Blocked] == 0, what, packet, r.inside)
		counters = r.counts(what, counters, want)
	}
	r.track(client, server, 9, netip.Addr{}, established|statusFixedTimeout)
	r.passes(true, "mapped", enhanced(client, server, 9, "x"), r.inside)
	counters = r.counts("mapped", counters, nil)

	nft(t, "table ip user { chain raw { type filter hook prerouting priority raw; ip protocol gre ip saddr 192.168.77.12 notrack; }; }", "-f", "-")
	r.passes(false, "untracked", enhanced(netip.MustParseAddr("192.168.77.12"), server, 8, "x"), r.inside)
	counters = r.counts("untracked", counters, map[string]uint64{Unmapped: 1, Blocked: 1})

	send, receive := ownGRE(t)
	send(enhanced(public, server, 8, "own"))
	if r.receive(r.outer, unix.IPPROTO_GRE, patience) == nil {
		t.Error("the router's own GRE did not leave")
	}
	counters = r.counts("own, out", counters, nil)
	r.put(enhanced(server, public, 8, "own"), r.outer)
	if !receive() {
		t.Error("GRE for the router itself did not arrive")
	}
	r.counts("own, in", counters, map[string]uint64{Unmapped: 1})
}

// Conntrack entries translate on a router that has no NAT of its own, because of the table's empty nat chain.
func TestTableSwitchesTranslationOn(t *testing.T) {
	r := newRouter(t, Config{Queue: 1723, Ports: []uint16{1723}})
	source := func(callID uint16) netip.Addr {
		r.track(client, server, callID, public, established|statusFixedTimeout)
		out := r.send(enhanced(client, server, callID, "x"), r.inside)
		if out == nil {
			t.Fatal("a packet of a call did not pass")
		}
		return netip.AddrFrom4([4]byte(out[ipSource : ipSource+4]))
	}
	if a := source(5); a != public {
		t.Errorf("packet left from %s, want %s", a, public)
	}
	// Without the chain it does not: the test can tell.
	nft(t, "delete chain ip pptp-alg nat", "-f", "-")
	if a := source(6); a != client {
		t.Errorf("without a nat chain the packet left from %s: this test proves nothing", a)
	}
}
