package conntrack

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// zoneOriginal adds "ip saddr ADDRESS ct original zone set ID" in prerouting. The messages are built by hand,
// because google/nftables does not send the direction of a zone.
func (n *namespace) zoneOriginal(address string, id uint16) {
	n.t.Helper()
	n.rules(func(c *nftables.Conn, t *nftables.Table) {
		c.AddChain(&nftables.Chain{Name: "zone", Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
	})
	be32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	expression := func(name string, data ...[]byte) []byte {
		return nla(unix.NFTA_LIST_ELEM|nested, nla(unix.NFTA_EXPR_NAME, []byte(name+"\x00")), nla(unix.NFTA_EXPR_DATA|nested, data...))
	}
	rule := bytes.Join([][]byte{
		{unix.NFPROTO_IPV4, 0, 0, 0},
		nla(unix.NFTA_RULE_TABLE, []byte("test\x00")),
		nla(unix.NFTA_RULE_CHAIN, []byte("zone\x00")),
		nla(unix.NFTA_RULE_EXPRESSIONS|nested,
			expression("payload", nla(unix.NFTA_PAYLOAD_DREG, be32(1)), nla(unix.NFTA_PAYLOAD_BASE, be32(unix.NFT_PAYLOAD_NETWORK_HEADER)),
				nla(unix.NFTA_PAYLOAD_OFFSET, be32(12)), nla(unix.NFTA_PAYLOAD_LEN, be32(4))),
			expression("cmp", nla(unix.NFTA_CMP_SREG, be32(1)), nla(unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ)),
				nla(unix.NFTA_CMP_DATA|nested, nla(unix.NFTA_DATA_VALUE, ip4(address)))),
			expression("immediate", nla(unix.NFTA_IMMEDIATE_DREG, be32(1)),
				nla(unix.NFTA_IMMEDIATE_DATA|nested, nla(unix.NFTA_DATA_VALUE, binary.NativeEndian.AppendUint16(nil, id)))),
			expression("ct", nla(unix.NFTA_CT_SREG, be32(1)), nla(unix.NFTA_CT_KEY, be32(unix.NFT_CT_ZONE)),
				nla(unix.NFTA_CT_DIRECTION, []byte{0}))), // IP_CT_DIR_ORIGINAL
	}, nil)
	n.must(func() error {
		conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		const subsys = unix.NFNL_SUBSYS_NFTABLES
		batch := []byte{0, 0, 0, subsys} // struct nfgenmsg; the resource ID is the subsystem, big-endian
		_, err = conn.SendMessages([]netlink.Message{
			{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: batch},
			{Header: netlink.Header{Type: subsys<<8 | unix.NFT_MSG_NEWRULE,
				Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append}, Data: rule},
			{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batch},
		})
		if err != nil {
			return err
		}
		_, err = conn.Receive()
		return err
	})
}

// An inside network in a zone of its own, the outside in none: the zone of the control connection's entry
// says what both entries of a call need.
func TestZoneOfOneDirection(t *testing.T) {
	l := newLab(t)
	l.router.rules(sourceNAT(clientAddr, publicAddr))
	l.router.zoneOriginal(clientAddr, 7)

	src, dst, _, _ := control(t, l.client, l.server, serverAddr+":1723", serverAddr+":1723")
	conn, err := l.ct.Lookup(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	if conn.Zone != (Zone{ID: 7, Direction: OriginalOnly}) || conn.Reply.Dst.Addr() != addr(publicAddr) {
		t.Fatalf("Lookup: %+v", conn)
	}
	toClient, toServer := masquerade(5, 777, 9, 888)
	toServer.Zone, toClient.Zone = conn.Zone, conn.Zone.Opposite()
	create(t, l.ct, toClient, toServer)
	l.atClient.send(serverAddr, 888, "from client")
	l.atServer.expect(toServer.Leaves, "from client")
	l.atServer.send(publicAddr, 777, "from server")
	l.atClient.expect(toClient.Leaves, "from server")
	for _, e := range []Entry{toClient, toServer} {
		if err := l.ct.Replace(e); err != nil {
			t.Error(err)
		}
		if err := l.ct.Delete(e); err != nil {
			t.Error(err)
		}
	}

	// Without the zone, what the client sends passes the entry by.
	toServer.Zone = Zone{}
	if err := l.ct.Replace(toServer); err != nil {
		t.Fatal(err)
	}
	l.atClient.send(serverAddr, 888, "unzoned")
	if got, ok := l.atServer.receive(2e9); !ok || got.CallID != 888 {
		t.Errorf("arrived %v, %v; want it untranslated", got, ok)
	}
}
