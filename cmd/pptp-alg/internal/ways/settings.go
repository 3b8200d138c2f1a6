package ways

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// settings are what matters of a device's net.ipv4.conf: its forwarding and rp_filter are a part of the kernel's answers.
type settings struct {
	index    int  // of the device; below 0: of all devices, of new ones
	linkdown bool // ignore_routes_with_linkdown: routes come and go with the carrier
}

// From linux/netconf.h and rtnetlink.h.
const (
	rtmGetNetconf    = 0x52
	rtmDelNetconf    = 0x51
	netconfaIfIndex  = 1
	netconfaLinkdown = 6
	sizeofNetconf    = 4 // netconfmsg, padded
)

// listSettings finds out whether any device has routes that come and go with the carrier.
func (w *Ways) listSettings() error {
	if w.settings != nil {
		return nil
	}
	replies, err := w.asks.Execute(netlink.Message{
		Header: netlink.Header{Type: rtmGetNetconf, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_INET, 0, 0, 0},
	})
	if err != nil {
		return fmt.Errorf("list the settings of devices: %w", err)
	}
	w.settings = &settings{}
	for _, m := range replies {
		if s, ok := parseSettings(m); ok && s.linkdown {
			w.settings.linkdown = true
		}
	}
	return nil
}

// parseSettings reads an RTM_NEWNETCONF or RTM_DELNETCONF: a netconfmsg and attributes in host byte order.
func parseSettings(m netlink.Message) (s settings, ok bool) {
	if m.Header.Type != unix.RTM_NEWNETCONF && m.Header.Type != rtmDelNetconf || len(m.Data) < sizeofNetconf {
		return settings{}, false
	}
	d, err := netlink.NewAttributeDecoder(m.Data[sizeofNetconf:])
	if err != nil {
		return settings{}, false
	}
	for d.Next() {
		switch d.Type() {
		case netconfaIfIndex:
			s.index, ok = int(d.Int32()), true
		case netconfaLinkdown:
			s.linkdown = d.Int32() != 0
		}
	}
	return s, ok && d.Err() == nil
}
