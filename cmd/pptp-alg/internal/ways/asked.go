package ways

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// asked are the addresses that questions were for: destinations, and sources, which the kernel looks up for rp_filter. News of
// routes to others change nothing. A router with the Internet's routes hears of those all the time.
type asked struct {
	set    map[uint32]struct{}
	sorted []uint32 // of set, as far as it was asked for
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func (a *asked) add(q Question) {
	a.set[number(q.Src)] = struct{}{}
	a.set[number(q.Dst)] = struct{}{}
}

// in reports whether an address is in a prefix.
func (a *asked) in(p netip.Prefix) bool {
	if len(a.sorted) != len(a.set) {
		a.sorted = a.sorted[:0]
		for n := range a.set {
			a.sorted = append(a.sorted, n)
		}
		slices.Sort(a.sorted)
	}
	first := number(p.Masked().Addr())
	last := uint64(first) + 1<<(32-p.Bits()) - 1
	i, _ := slices.BinarySearch(a.sorted, first)
	return i < len(a.sorted) && uint64(a.sorted[i]) <= last
}

// parsePrefix reads where the route of an RTM_NEWROUTE or RTM_DELROUTE leads to.
func parsePrefix(m netlink.Message) (netip.Prefix, bool) {
	if len(m.Data) < unix.SizeofRtMsg || m.Data[0] != unix.AF_INET {
		return netip.Prefix{}, false
	}
	dst := netip.IPv4Unspecified() // of the default route
	d, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofRtMsg:])
	if err != nil {
		return netip.Prefix{}, false
	}
	for d.Next() {
		if d.Type() == unix.RTA_DST {
			dst, _ = netip.AddrFromSlice(d.Bytes())
		}
	}
	p := netip.PrefixFrom(dst, int(m.Data[1]))
	return p, d.Err() == nil && dst.Is4() && p.IsValid()
}
