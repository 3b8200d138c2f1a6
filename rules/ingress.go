package rules

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Families with chains at the ingress of devices, and the number of that hook in each (linux/netfilter.h).
var ingress = []struct {
	family byte
	name   string
	hook   uint32
}{{unix.NFPROTO_NETDEV, "netdev", 0}, {unix.NFPROTO_INET, "inet", 5}}

// IngressChains lists the chains of anybody at the ingress of devices, as "family table chain". Flow tables are none.
func (k *Kernel) IngressChains() (all []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range ingress {
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
					hooked = hookNumber(data) == f.hook
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
