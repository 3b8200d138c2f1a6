package ways

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// From linux/xfrm.h.
const (
	xfrmGetPolicy   = 0x15
	xfrmNewPolicy   = 0x13
	xfrmPolicyGroup = 4   // XFRMNLGRP_POLICY
	xfrmPolicyID    = 64  // bytes of xfrm_userpolicy_id
	xfrmPolicyInfo  = 164 // bytes of xfrm_userpolicy_info, without its padding
	xfrmPolicyDir   = 160 // where the direction is in it
	xfrmPolicyIn    = 0
)

// A policy is what matters of an IPsec policy: packets that are forwarded to these addresses may be its.
type policy struct{ dst netip.Prefix }

// clear says whether a packet may be IPsec's: a program would forward in the clear what is to be encrypted. That the
// policy may say "none", or be for other sources, is not looked at.
func (w *Ways) clear(q Question) error {
	if !w.known && w.ipsec != nil {
		replies, err := w.ipsec.Execute(netlink.Message{
			Header: netlink.Header{Type: xfrmGetPolicy, Flags: netlink.Request | netlink.Dump},
			Data:   make([]byte, xfrmPolicyID),
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("list IPsec policies: %w", err)
		}
		w.policies = parsePolicies(replies)
	}
	w.known = true
	for _, p := range w.policies {
		if p.dst.Contains(q.Dst) {
			return refuse("an IPsec policy is for packets to %v", p.dst)
		}
	}
	return nil
}

// parsePolicies reads XFRM_MSG_NEWPOLICYs: an xfrm_userpolicy_info, which begins with an xfrm_selector (destination 16 bytes,
// source 16, ports 8, family in host byte order 2, length of the destination's prefix 1, of the source's 1, protocol 1).
func parsePolicies(replies []netlink.Message) []policy {
	var all []policy
	for _, m := range replies {
		if m.Header.Type != xfrmNewPolicy || len(m.Data) < xfrmPolicyInfo {
			continue
		}
		family, bits, protocol := binary.NativeEndian.Uint16(m.Data[40:42]), int(m.Data[42]), m.Data[44]
		if family == unix.AF_INET6 || m.Data[xfrmPolicyDir] == xfrmPolicyIn || protocol != 0 && protocol != unix.IPPROTO_GRE {
			continue
		}
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte(m.Data[:4])), bits).Masked()
		if !dst.IsValid() {
			dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		all = append(all, policy{dst})
	}
	return all
}
