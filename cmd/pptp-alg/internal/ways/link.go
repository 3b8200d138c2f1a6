package ways

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A link is what matters of a network device.
type link struct {
	index    int
	name     string
	hardware uint16 // ARPHRD_*
	up       bool   // administratively
	carrier  bool
	mtu      int
	master   int    // index of the bridge, bond or VRF that it is a part of
	kind     string // IFLA_INFO_KIND; empty for most physical devices
	filtered bool   // a bridge whose ports' packets the firewall sees
}

// Devices that hand a packet on as it is. What encapsulates IP in IP is not among them: such a device wants to know the
// packet's route.
var (
	ethernetKinds = map[string]bool{"": true, "bridge": true, "vlan": true, "veth": true, "bond": true, "team": true,
		"macvlan": true, "dsa": true, "tun": true}
	plainKinds = map[string]bool{"": true, "ppp": true, "tun": true, "wwan": true, "rmnet": true, "wireguard": true}
)

// ethernet reports whether packets have an Ethernet header there.
func (l link) ethernet() bool { return l.hardware == unix.ARPHRD_ETHER }

// usable says why a program could not take packets from the link or give them to it.
func (l link) usable() error {
	known := false
	switch l.hardware {
	case unix.ARPHRD_ETHER:
		known = ethernetKinds[l.kind]
	case unix.ARPHRD_PPP, unix.ARPHRD_NONE, unix.ARPHRD_RAWIP:
		known = plainKinds[l.kind]
	}
	switch {
	case l.hardware == unix.ARPHRD_PPP && !pppTakes():
		return refuse("%s is a PPP device, to which this kernel gives packets in a wrong form: Linux 6.6 does not, nor do late releases of 6.1, 5.15 and 5.10", l.name)
	case !known && l.kind != "":
		return refuse("%s is a device of a kind that the fast path does not know: %s", l.name, l.kind)
	case !known:
		return refuse("%s is a device of a type that the fast path does not know: %d", l.name, l.hardware)
	case !l.up:
		return refuse("%s is down", l.name)
	case !l.carrier:
		return refuse("%s has no carrier", l.name)
	case l.master != 0:
		return refuse("%s is a part of another device (a bridge, a bond or a VRF)", l.name)
	}
	return nil
}

// link asks for a device.
func (w *Ways) link(index int) (link, error) {
	if l, ok := w.links[index]; ok {
		return l, nil
	}
	request := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(request[4:8], uint32(index))
	replies, err := w.asks.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: request})
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) { // EINVAL: 0
		return link{}, refuse("there is no device with the index %d any more", index)
	}
	if err != nil {
		return link{}, fmt.Errorf("ask for device %d: %w", index, err)
	}
	for _, m := range replies {
		if l, ok := parseLink(m); ok && l.index == index {
			w.links[index] = l
			return l, nil
		}
	}
	return link{}, fmt.Errorf("ask for device %d: no answer", index)
}

// parseLink reads an RTM_NEWLINK: an ifinfomsg and attributes in host byte order.
func parseLink(m netlink.Message) (link, bool) {
	if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
		return link{}, false // AF_BRIDGE tells of a bridge's ports
	}
	flags := binary.NativeEndian.Uint32(m.Data[8:12])
	l := link{
		hardware: binary.NativeEndian.Uint16(m.Data[2:4]),
		index:    int(int32(binary.NativeEndian.Uint32(m.Data[4:8]))),
		up:       flags&unix.IFF_UP != 0,
		carrier:  flags&unix.IFF_LOWER_UP != 0,
	}
	d, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return link{}, false
	}
	var data []byte // of the kind
	for d.Next() {
		switch d.Type() {
		case unix.IFLA_IFNAME:
			l.name = d.String()
		case unix.IFLA_MTU:
			l.mtu = int(d.Uint32())
		case unix.IFLA_MASTER:
			l.master = int(d.Uint32())
		case unix.IFLA_CARRIER:
			l.carrier = d.Uint8() != 0
		case unix.IFLA_LINKINFO:
			d.Nested(func(n *netlink.AttributeDecoder) error {
				for n.Next() {
					switch n.Type() {
					case unix.IFLA_INFO_KIND:
						l.kind = n.String()
					case unix.IFLA_INFO_DATA:
						data = n.Bytes()
					}
				}
				return nil
			})
		}
	}
	if l.kind == "bridge" {
		n, err := netlink.NewAttributeDecoder(data)
		if err != nil {
			return link{}, false
		}
		for n.Next() {
			if n.Type() == unix.IFLA_BR_NF_CALL_IPTABLES {
				l.filtered = n.Uint8() != 0
			}
		}
	}
	return l, d.Err() == nil
}

// bridges is the switch of br_netfilter, in the namespace that the thread is in.
const bridges = "/proc/sys/net/bridge/bridge-nf-call-iptables"

// bridgesFiltered reports whether the firewall sees what passes through any bridge (br_netfilter). No news tell of it.
func bridgesFiltered() bool {
	b, err := os.ReadFile(bridges)
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// A Link is a device by which packets come to the router or leave it.
type Link struct {
	Index    int
	Name     string
	Ethernet bool // otherwise packets have no link-layer header there: PPP, tun
}

// Links lists the devices that a program can take packets from or give them to: those that are up, of a known type, and not a
// part of another one.
func (w *Ways) Links() ([]Link, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	replies, err := w.asks.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfInfomsg),
	})
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var all []Link
	for _, m := range replies {
		if l, ok := parseLink(m); ok && l.usable() == nil {
			if _, asked := w.links[l.index]; !asked { // news that it is another now are still to be read, and have to differ
				w.links[l.index] = l
			}
			all = append(all, Link{l.index, l.name, l.ethernet()})
		}
	}
	return all, nil
}
