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
	master   int     // index of the bridge, bond or VRF that it is a part of
	kind     string  // IFLA_INFO_KIND; empty for most physical devices
	filtered bool    // a bridge whose ports' packets the firewall sees
	vlans    bool    // a bridge that looks at VLANs
	address  [6]byte // Ethernet address of a bridge
	state    uint8   // BR_STATE_* of a bridge's port
	locked   bool    // a bridge's port that is for certain stations
	port     bool    // of a bridge
}

// Devices that hand a packet on as it is. What encapsulates IP in IP is not among them: such a device wants to know the
// packet's route.
var (
	ethernetKinds = map[string]bool{"": true, "bridge": true, "vlan": true, "veth": true, "bond": true, "team": true,
		"macvlan": true, "dsa": true, "tun": true}
	plainKinds = map[string]bool{"": true, "ppp": true, "tun": true, "wwan": true, "rmnet": true, "wireguard": true}
)

// asWay is what matters of a device as a way; the rest matters to who is at a bridge's port.
func (l link) asWay() link {
	l.vlans, l.address, l.state, l.locked = false, [6]byte{}, 0, false
	return l
}

// ethernet reports whether packets have an Ethernet header there.
func (l link) ethernet() bool { return l.hardware == unix.ARPHRD_ETHER }

// usable says why a program could not take packets from the link or give them to it.
func (l link) usable() error {
	if err := l.works(); err != nil {
		return err
	}
	if l.master != 0 {
		return refuse("%s is a part of another device (a bridge, a bond or a VRF)", l.name)
	}
	return nil
}

// works is usable for a part of another device, too.
func (l link) works() error {
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
	}
	return nil
}

// link asks for a device, whose news count from now on.
func (w *Ways) link(index int) (link, error) {
	if l, ok := w.links[index]; ok {
		return l, nil
	}
	l, err := w.askLink(index)
	if err == nil {
		w.links[index] = l
	}
	return l, err
}

// askLink asks for a device.
func (w *Ways) askLink(index int) (link, error) {
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
			return l, nil
		}
	}
	return link{}, fmt.Errorf("ask for device %d: no answer", index)
}

// parseLink reads an RTM_NEWLINK: an ifinfomsg and attributes in host byte order.
func parseLink(m netlink.Message) (link, bool) {
	if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
		return link{}, false // AF_BRIDGE tells of a bridge's ports: parsePort
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
	var data, slave []byte // of the kind, of the master's kind
	whole := false         // news of wireless extensions say nothing but whose they are
	var address []byte
	var master string // kind
	for d.Next() {
		switch d.Type() {
		case unix.IFLA_IFNAME:
			l.name = d.String()
		case unix.IFLA_MTU:
			l.mtu, whole = int(d.Uint32()), true
		case unix.IFLA_MASTER:
			l.master = int(d.Uint32())
		case unix.IFLA_ADDRESS:
			address = d.Bytes()
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
					case unix.IFLA_INFO_SLAVE_KIND:
						master = n.String()
					case unix.IFLA_INFO_SLAVE_DATA:
						slave = n.Bytes()
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
			switch n.Type() {
			case unix.IFLA_BR_NF_CALL_IPTABLES:
				l.filtered = n.Uint8() != 0
			case unix.IFLA_BR_VLAN_FILTERING:
				l.vlans = n.Uint8() != 0
			}
		}
		if len(address) == len(l.address) {
			l.address = [6]byte(address)
		}
	}
	if master == "bridge" && !l.portData(slave) {
		return link{}, false
	}
	l.port = master == "bridge"
	return l, whole && d.Err() == nil
}

// portData reads the attributes that a bridge's port has as such, IFLA_BRPORT_*.
func (l *link) portData(b []byte) bool {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return false
	}
	for d.Next() {
		switch d.Type() {
		case unix.IFLA_BRPORT_STATE:
			l.state = d.Uint8()
		case unix.IFLA_BRPORT_LOCKED:
			l.locked = d.Uint8() != 0
		}
	}
	return d.Err() == nil
}

// parsePort reads an RTM_NEWLINK by which a bridge tells of a port: of the link, only what it is as a port is known.
func parsePort(m netlink.Message) (link, bool) {
	if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_BRIDGE {
		return link{}, false
	}
	l := link{index: int(int32(binary.NativeEndian.Uint32(m.Data[4:8])))}
	d, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return link{}, false
	}
	ok := false
	for d.Next() {
		if d.Type() == unix.IFLA_PROTINFO {
			ok = l.portData(d.Bytes())
		}
	}
	return l, ok && d.Err() == nil
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
	Bridge   bool
	Port     bool // of a bridge: it is nobody's way, but packets for the bridge can be taken there
}

// Links lists the devices that a program can take packets from or give them to: those that are up, of a known type, and not a
// part of another one, but of a bridge.
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
		if l, ok := parseLink(m); ok && (l.usable() == nil || l.state != 0 && l.works() == nil) {
			if _, asked := w.links[l.index]; !asked && l.master == 0 { // news that it is another now are still to be read, and have to differ
				w.links[l.index] = l
			}
			all = append(all, Link{l.index, l.name, l.ethernet(), l.kind == "bridge", l.master != 0})
		}
	}
	return all, nil
}
