package lab

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Offloaded is IPS_OFFLOAD (linux/netfilter/nf_conntrack_common.h), the status
// bit of flows that a flow table carries past all hooks.
const Offloaded = 1 << 14

// FlowOffload puts established TCP and UDP flows between devices into a flow
// table, as the first rule of the forward chain (give it before other pieces):
//
//	meta l4proto { tcp, udp } flow add @offload
//
// Kernels without CONFIG_NFT_FLOW_OFFLOAD do not load it.
func FlowOffload(devices ...string) Piece {
	const name = "offload"
	return func(f *firewall) {
		f.conn.AddFlowtable(&nftables.Flowtable{Table: f.table, Name: name, Devices: devices})
		for _, l4 := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			f.rule("forward", just(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{l4}},
				&expr.FlowOffload{Name: name}))
		}
	}
}

// Control gives the conntrack entries of TCP connections to a port.
func (h *Host) Control(port uint16) ([]Flow, error) {
	flows, err := h.Conntrack()
	return slices.DeleteFunc(flows, func(f Flow) bool { return f.Protocol != unix.IPPROTO_TCP || f.Original.DstPort != port }), err
}
