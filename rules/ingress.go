package rules

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// place is where chains of a family are hooked.
type place struct {
	family byte
	name   string
	hook   uint32 // its number in the family (linux/netfilter.h)
	any    bool   // whatever the hook
}

// IngressChains lists the chains of anybody at the ingress of devices, as "family table chain". Flow tables are none.
func (k *Kernel) IngressChains() ([]string, error) {
	return k.hooked(place{family: unix.NFPROTO_NETDEV, name: "netdev", hook: 0}, place{family: unix.NFPROTO_INET, name: "inet", hook: 5})
}

// BridgeChains lists the chains of anybody that see what passes bridges, as "bridge table chain".
func (k *Kernel) BridgeChains() ([]string, error) {
	return k.hooked(place{family: unix.NFPROTO_BRIDGE, name: "bridge", any: true})
}

// hooked lists the base chains of these places.
func (k *Kernel) hooked(places ...place) (all []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range places {
		replies, err := k.getOf(f.family, unix.NFT_MSG_GETCHAIN, netlink.Dump, nil)
		if err != nil {
			return nil, explain("list chains at devices", err)
		}
		for _, r := range replies {
			var table, chain string
			hooked := false
			for kind, data := range attributes(r) {
				switch kind {
				case unix.NFTA_CHAIN_TABLE:
					table = strings.TrimRight(string(data), "\x00")
				case unix.NFTA_CHAIN_NAME:
					chain = strings.TrimRight(string(data), "\x00")
				case unix.NFTA_CHAIN_HOOK:
					hooked = f.any || hookNumber(data) == f.hook
				}
			}
			if hooked {
				all = append(all, fmt.Sprintf("%s %s %s", f.name, table, chain))
			}
		}
	}
	return all, nil
}

// hookNumber reads an NFTA_CHAIN_HOOK.
func hookNumber(data []byte) uint32 {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return ^uint32(0)
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		if d.Type() == unix.NFTA_HOOK_HOOKNUM {
			return d.Uint32()
		}
	}
	return ^uint32(0)
}
