package ppp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// optionAddress is the one IPCP option that this package takes (RFC 1332
// section 3.3). Van Jacobson compression and the rest are rejected.
const optionAddress = 3

// addresses are what IPCP has agreed on.
type addresses struct {
	wish          netip.Addr // asked for; zero: any
	silent        bool       // the other side does not take the option
	local, remote netip.Addr
}

// ipcp is the Link as IPCP's negotiator.
type ipcp Link

// wish is the address to ask for: 0.0.0.0 asks to be given one.
func (c *ipcp) wish() netip.Addr {
	switch {
	case c.addresses.wish.IsValid():
		return c.addresses.wish
	case c.cfg.Address.IsValid():
		return c.cfg.Address
	}
	return netip.IPv4Unspecified()
}

func (c *ipcp) request() []option {
	if c.addresses.silent {
		return nil
	}
	return []option{{optionAddress, c.wish().AsSlice()}}
}

func (c *ipcp) review(now time.Time, theirs []option) (code, []option) {
	var naks, rejects []option
	address := netip.Addr{}
	for _, o := range theirs {
		if o.kind != optionAddress || len(o.data) != 4 || slices.Contains(c.cfg.RefuseIPCP, o.kind) {
			rejects = append(rejects, o)
			continue
		}
		address = netip.AddrFrom4([4]byte(o.data))
		switch assign := c.cfg.Assign; {
		case assign.IsValid() && address != assign:
			naks = append(naks, option{optionAddress, assign.AsSlice()})
		case address.IsUnspecified(): // nothing to give
			rejects = append(rejects, o)
		}
	}
	switch {
	case len(rejects) > 0:
		return configureReject, rejects
	case len(naks) > 0:
		return configureNak, naks
	}
	c.addresses.remote = address
	return configureAck, nil
}

func (c *ipcp) nak(now time.Time, options []option) {
	for _, o := range options {
		if o.kind != optionAddress || len(o.data) != 4 {
			continue
		}
		given := netip.AddrFrom4([4]byte(o.data))
		if c.cfg.Address.IsValid() && given != c.cfg.Address {
			continue // this side knows its address and stays with it
		}
		if !given.IsUnspecified() {
			c.addresses.wish = given
		}
	}
}

func (c *ipcp) reject(now time.Time, options []option) {
	for _, o := range options {
		if o.kind == optionAddress {
			c.addresses.silent = true
		}
	}
	if !c.cfg.Address.IsValid() {
		(*Link)(c).fail(now, ErrNoIPv4) // asked for an address and got none
	}
}

func (c *ipcp) layerUp(now time.Time) {
	l := (*Link)(c)
	if c.addresses.local = c.wish(); c.addresses.local.IsUnspecified() {
		l.fail(now, ErrNoIPv4)
		return
	}
	if assign := c.cfg.Assign; assign.IsValid() && c.addresses.remote != assign {
		l.fail(now, fmt.Errorf("%w: the other side does not take %v", ErrNoIPv4, assign))
		return
	}
	if l.phase == Network && (c.ccp.state == opened || !c.cfg.Encryption.Required) {
		l.enter(Up)
	}
}

func (c *ipcp) layerDown(now time.Time) {
	l := (*Link)(c)
	if c.ipcp.state == stopping || c.ipcp.state == closing {
		l.fail(now, ErrTerminated)
		return
	}
	if l.phase == Up {
		l.enter(Network)
	}
}

func (c *ipcp) layerFinished(now time.Time) { (*Link)(c).fail(now, ErrNoIPv4) }

func (c *ipcp) other(time.Time, packet) bool { return false }
