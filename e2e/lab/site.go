package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// The addresses of a Site.
var (
	LANRouter = netip.MustParseAddr("10.77.0.1")
	WANRouter = netip.MustParseAddr("198.18.0.1")
)

// siteBits is the prefix length on both sides of a Site.
const siteBits = 16

// Plan describes a Site.
type Plan struct {
	Clients int
	Servers int
	// Shared puts all clients into one namespace, each with an address of its
	// own: two hundred clients then cost hardly more than one. Otherwise every
	// client is a host.
	Shared bool
	// RawClients and RawServers are hosts whose kernel has no address: a place
	// for packages that speak TCP by hand.
	RawClients, RawServers int
	// Firewall is the router's; nil means plain masquerading.
	Firewall []Piece
	// Routed gives the servers a route to the inside, for labs without NAT.
	Routed bool
}

// Station is an address on a host.
type Station struct {
	*Host
	Address netip.Addr
}

// Site is the ordinary lab: clients inside, one router, servers outside. The
// router's devices are "lan" and "wan". Servers know no way to inside addresses
// (unless Routed), so a packet that leaves untranslated is never answered.
type Site struct {
	*Lab
	Router     *Host
	LAN, WAN   *Segment
	Clients    []Station
	Servers    []Station
	RawClients []Station
	RawServers []Station
}

// NewSite builds a site and waits until it carries traffic.
func NewSite(ctx context.Context, p Plan) (_ *Site, err error) {
	l, err := New()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	s := &Site{Lab: l}
	if s.Router, err = l.Router("router"); err != nil {
		return nil, err
	}
	if s.LAN, err = l.Segment("lan"); err != nil {
		return nil, err
	}
	if s.WAN, err = l.Segment("wan"); err != nil {
		return nil, err
	}
	if err = s.Router.Attach(s.LAN, netip.PrefixFrom(LANRouter, siteBits)); err != nil {
		return nil, err
	}
	if err = s.Router.Attach(s.WAN, netip.PrefixFrom(WANRouter, siteBits)); err != nil {
		return nil, err
	}
	// Counters of entries; some distributions have them off. The setting is there once conntrack is loaded, and asking
	// for entries loads it.
	if _, err = s.Router.Conntrack(); err != nil {
		return nil, err
	}
	if err = s.Router.Sysctl("net.netfilter.nf_conntrack_acct", "1"); err != nil {
		return nil, err
	}
	firewall := p.Firewall
	if firewall == nil {
		firewall = []Piece{Masquerade("wan")}
	}
	if err = s.Router.Firewall(firewall...); err != nil {
		return nil, err
	}
	if err = s.populate(p); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return s, l.Settle(ctx)
}

func (s *Site) populate(p Plan) error {
	var shared *Host
	for i := range p.Clients {
		h := shared
		address := nth(LANRouter, i)
		if h == nil {
			var err error
			if h, err = s.Host(fmt.Sprintf("client%d", i+1)); err != nil {
				return err
			}
			if err := h.Attach(s.LAN, netip.PrefixFrom(address, siteBits)); err != nil {
				return err
			}
			if err := h.Route(netip.Prefix{}, LANRouter); err != nil {
				return err
			}
			if p.Shared {
				shared = h
			}
		} else if err := h.AddAddress("lan", netip.PrefixFrom(address, siteBits)); err != nil {
			return err
		}
		s.Clients = append(s.Clients, Station{h, address})
	}
	for i := range p.Servers {
		h, err := s.Host(fmt.Sprintf("server%d", i+1))
		if err != nil {
			return err
		}
		address := nth(WANRouter, i)
		if err := h.Attach(s.WAN, netip.PrefixFrom(address, siteBits)); err != nil {
			return err
		}
		if p.Routed {
			if err := h.Route(netip.PrefixFrom(LANRouter, siteBits), WANRouter); err != nil {
				return err
			}
		}
		s.Servers = append(s.Servers, Station{h, address})
	}
	for i := range p.RawClients {
		h, err := s.Host(fmt.Sprintf("rawclient%d", i+1))
		if err != nil {
			return err
		}
		if err := h.Attach(s.LAN); err != nil {
			return err
		}
		s.RawClients = append(s.RawClients, Station{h, nth(LANRouter, 20_000+i)})
	}
	for i := range p.RawServers {
		h, err := s.Host(fmt.Sprintf("rawserver%d", i+1))
		if err != nil {
			return err
		}
		if err := h.Attach(s.WAN); err != nil {
			return err
		}
		s.RawServers = append(s.RawServers, Station{h, nth(WANRouter, 20_000+i)})
	}
	return nil
}

// nth is the address of the i-th host in the router's network, from x.x.1.1
// on; it passes over .0 and .255, which some software dislikes.
func nth(router netip.Addr, i int) netip.Addr {
	a := router.As4()
	a[2], a[3] = byte(1+i/250), byte(1+i%250)
	return netip.AddrFrom4(a)
}

// Check tells what this machine lacks for a lab, in words; nil if nothing.
func Check(ctx context.Context) error {
	s, err := NewSite(ctx, Plan{Clients: 1, Servers: 1, Firewall: []Piece{Masquerade("wan"), StrictForward("lan", 1723)}})
	if err != nil {
		return fmt.Errorf("this machine cannot make a network lab (root, or CAP_SYS_ADMIN and CAP_NET_ADMIN, and a kernel with network namespaces, veth, bridge and nftables NAT are needed): %w", err)
	}
	return s.Close()
}
