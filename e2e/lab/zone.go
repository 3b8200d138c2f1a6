package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ZoneOriginal adds "iifname DEVICE ct original zone set ID" to the chain that
// the piece Raw makes. Only what the opening side of a connection sends is then
// in the zone. The message is built by hand: google/nftables does not send the
// direction of a zone.
func (h *Host) ZoneOriginal(device string, id uint16) error {
	be32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	expression := func(name string, data ...[]byte) []byte {
		return attribute(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, attribute(unix.NFTA_EXPR_NAME, []byte(name+"\x00")),
			attribute(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data...))
	}
	value := func(kind uint16, v []byte) []byte {
		return attribute(kind|unix.NLA_F_NESTED, attribute(unix.NFTA_DATA_VALUE, v))
	}
	var padded [unix.IFNAMSIZ]byte
	copy(padded[:], device)
	rule := bytes.Join([][]byte{
		{unix.NFPROTO_IPV4, 0, 0, 0}, // struct nfgenmsg
		attribute(unix.NFTA_RULE_TABLE, []byte(FirewallTable+"\x00")),
		attribute(unix.NFTA_RULE_CHAIN, []byte("raw\x00")),
		attribute(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED,
			expression("meta", attribute(unix.NFTA_META_DREG, be32(1)), attribute(unix.NFTA_META_KEY, be32(unix.NFT_META_IIFNAME))),
			expression("cmp", attribute(unix.NFTA_CMP_SREG, be32(1)), attribute(unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ)),
				value(unix.NFTA_CMP_DATA, padded[:])),
			expression("immediate", attribute(unix.NFTA_IMMEDIATE_DREG, be32(1)),
				value(unix.NFTA_IMMEDIATE_DATA, binary.NativeEndian.AppendUint16(nil, id))),
			expression("ct", attribute(unix.NFTA_CT_SREG, be32(1)), attribute(unix.NFTA_CT_KEY, be32(unix.NFT_CT_ZONE)),
				attribute(unix.NFTA_CT_DIRECTION, []byte{0}))), // IP_CT_DIR_ORIGINAL
	}, nil)
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(h.ns)})
	if err != nil {
		return fmt.Errorf("open nftables of %s: %w", h.name, err)
	}
	defer func() { _ = conn.Close() }()
	const subsystem = unix.NFNL_SUBSYS_NFTABLES
	batch := []byte{0, 0, 0, subsystem} // struct nfgenmsg; the resource ID is the subsystem, big-endian
	_, err = conn.SendMessages([]netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: batch},
		{Header: netlink.Header{Type: subsystem<<8 | unix.NFT_MSG_NEWRULE,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append}, Data: rule},
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batch},
	})
	if err == nil {
		_, err = conn.Receive()
	}
	if err != nil {
		return fmt.Errorf("set zone of %s on %s: %w", device, h.name, err)
	}
	return nil
}

// attribute is struct nlattr with its data, padded to four bytes.
func attribute(kind uint16, data ...[]byte) []byte {
	body := bytes.Join(data, nil)
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(body)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), body...)
	return append(b, make([]byte, -len(b)&3)...)
}
