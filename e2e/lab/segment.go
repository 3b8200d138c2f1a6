package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Segment is an Ethernet with any number of hosts: a bridge in a namespace of
// its own.
type Segment struct {
	lab   *Lab
	name  string
	host  *Host
	ports int
}

// bridgeName is the bridge device in a segment's namespace.
const bridgeName = "switch"

// Segment adds a switch. Hosts attached to it get a device of its name.
func (l *Lab) Segment(name string) (*Segment, error) {
	h, err := newHost(l, "segment "+name)
	if err != nil {
		return nil, fmt.Errorf("make segment %s: %w", name, err)
	}
	s := &Segment{lab: l, name: name, host: h}
	l.OnClose(func() error { h.close(); return nil })
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}, MulticastSnooping: &snooping}
	if err := h.handle.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("make bridge for segment %s: %w", name, err)
	}
	if err := h.up(bridgeName); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = append(l.segments, s)
	return s, nil
}

// Name is the segment's name, and that of the devices on it.
func (s *Segment) Name() string { return s.name }

func (h *Host) up(device string) error {
	link, err := h.handle.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s on %s: %w", device, h.name, err)
	}
	if err := h.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s on %s: %w", device, h.name, err)
	}
	return nil
}

// Attach plugs the host into a segment. The device has the segment's name.
// Without an address it stays silent: a place for a raw host.
func (h *Host) Attach(s *Segment, addresses ...netip.Prefix) error {
	return h.AttachAs(s.name, s, addresses...)
}

// AttachAs is Attach with a device name of one's choice.
func (h *Host) AttachAs(device string, s *Segment, addresses ...netip.Prefix) error {
	h.lab.mu.Lock()
	s.ports++
	port := fmt.Sprintf("p%d", s.ports)
	h.lab.mu.Unlock()
	bridge, err := s.host.handle.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find bridge of %s: %w", s.name, err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: device, PeerNamespace: netlink.NsFd(int(h.ns))}
	veth.Name, veth.MasterIndex = port, bridge.Attrs().Index
	if err := s.host.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("attach %s to %s: %w", h.name, s.name, err)
	}
	for host, dev := range map[*Host]string{s.host: port, h: device} {
		if err := host.Do(func() error { return offloadsOff(dev) }); err != nil {
			return err
		}
		if err := host.up(dev); err != nil {
			return err
		}
	}
	return h.AddAddress(device, addresses...)
}

// Link connects two hosts directly, with a device of the given name on each.
// It is the fastest path there is, for measurements.
func (l *Lab) Link(a *Host, deviceA string, b *Host, deviceB string) error {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: deviceB, PeerNamespace: netlink.NsFd(int(b.ns))}
	veth.Name = deviceA
	if err := a.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s and %s: %w", a.name, b.name, err)
	}
	return errors.Join(a.up(deviceA), b.up(deviceB))
}

// AddAddress gives a device addresses.
func (h *Host) AddAddress(device string, addresses ...netip.Prefix) error {
	if len(addresses) == 0 {
		return nil
	}
	link, err := h.handle.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s on %s: %w", device, h.name, err)
	}
	for _, p := range addresses {
		if err := h.handle.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
			return fmt.Errorf("add %v to %s on %s: %w", p, device, h.name, err)
		}
	}
	return nil
}

// DeleteAddress takes an address away.
func (h *Host) DeleteAddress(device string, p netip.Prefix) error {
	link, err := h.handle.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s on %s: %w", device, h.name, err)
	}
	return h.handle.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)})
}

// Route adds a route; the zero Prefix is the default route.
func (h *Host) Route(to netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{Gw: via.AsSlice()}
	if to.IsValid() {
		r.Dst = ipNet(to.Masked())
	}
	if err := h.handle.RouteAdd(r); err != nil {
		return fmt.Errorf("route %v via %v on %s: %w", to, via, h.name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Settle waits until every device carries traffic. The kernel brings the ports
// of a bridge into service a moment after they were set up, and a TCP SYN lost
// in that moment costs a second.
func (l *Lab) Settle(ctx context.Context) error {
	l.mu.Lock()
	all := append([]*Host(nil), l.hosts...)
	for _, s := range l.segments {
		all = append(all, s.host)
	}
	l.mu.Unlock()
	for _, h := range all {
		for {
			waiting, err := h.notUp()
			if err != nil {
				return err
			}
			if waiting == "" {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for %s on %s: %w", waiting, h.name, ctx.Err())
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	return nil
}

// notUp names a device that is set up but does not carry traffic yet.
func (h *Host) notUp() (string, error) {
	links, err := h.handle.LinkList()
	if err != nil {
		return "", fmt.Errorf("list devices of %s: %w", h.name, err)
	}
	for _, link := range links {
		a := link.Attrs()
		if a.Flags&net.FlagUp != 0 && a.OperState != netlink.OperUp && a.OperState != netlink.OperUnknown {
			return a.Name, nil
		}
	}
	return "", nil
}

// ethtoolValue is struct ethtool_value (linux/ethtool.h).
type ethtoolValue struct{ cmd, data uint32 }

// ethtool commands of linux/ethtool.h that unix does not name.
const (
	ethtoolSetTxChecksum = 0x17 // ETHTOOL_STXCSUM
	ethtoolSetTSO        = 0x1f // ETHTOOL_STSO
	ethtoolSetGSO        = 0x24 // ETHTOOL_SGSO
	ethtoolSetGRO        = 0x2c // ETHTOOL_SGRO
)

// offloadsOff makes a virtual device behave like a wire: whole checksums and
// packets no larger than the MTU. With offloads on, checksums inside one
// machine are not computed at all, so a wrong one would never be noticed, and
// a capture would show segments that no wire ever carries.
func offloadsOff(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for ethtool: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, cmd := range []uint32{ethtoolSetTSO, ethtoolSetGSO, ethtoolSetGRO, ethtoolSetTxChecksum} {
		if err := ethtool(fd, device, &ethtoolValue{cmd: cmd}); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("ethtool %#x on %s: %w", cmd, device, err)
		}
	}
	return nil
}
