package rules

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A helper is a conntrack helper as an object of nftables, by which rules give it to connections.
type helper struct {
	name, kind, comment string // kind is the kernel's name of it, such as "ftp"
}

// helperNameLength is NF_CT_HELPER_NAME_LEN (linux/netfilter/nf_conntrack_helper.h) without the final zero.
const helperNameLength = 15

// anchoring are the rules that keep control connections out of flow tables. A firewall with a flow table has the kernel
// carry established connections past every hook ("flow add"), the control connections too, whose messages the daemon then
// never sees. The kernel leaves alone only connections that have a conntrack helper: so they get one that does nothing.
//
// The place is behind DNAT, so that the server's own port is known, and before the priority "filter", at which firewalls
// give out helpers: a connection keeps the first one, and the kernel's PPTP helper does not get hold of it. A helper can
// only be given before the connection's first packet has left the router; what begins in its middle for conntrack (after
// a flush) may begin with a packet from the server.
func anchoring() []rule {
	return []rule{
		{[]clause{notNew(), verdict("return")}, "a connection keeps the helper that it began with"},
		{[]clause{tcpPort("dport"), setHelper(anchorHelper)}, "towards the server of a control connection: no flow table, and not the kernel's helper"},
		{[]clause{tcpPort("sport"), setHelper(anchorHelper)}, "a control connection that goes on after conntrack forgot it"},
		{[]clause{tcp(), dialledPort(), setHelper(anchorHelper)}, "where DNAT changed the port"},
	}
}

// notNew compares the whole state, in which exactly one bit is set.
func notNew() clause {
	return clause{
		text:  "ct state != new",
		exprs: []expression{ct(expr.CtKeySTATE), differs(host(expr.CtStateBitNEW)...)},
		needs: needConntrack,
	}
}

// setHelper gives the packet's connection a helper, if it is new and has none.
func setHelper(object string) clause {
	return clause{
		text:  fmt.Sprintf("ct helper set %q", object),
		exprs: []expression{encoded(&expr.Objref{Type: unix.NFT_OBJECT_CT_HELPER, Name: object})},
		needs: needHelper,
	}
}

// text is the object in nft's words.
func (h helper) text() string {
	return fmt.Sprintf("\n\tct helper %s {\n\t\tcomment %q\n\t\ttype %q protocol tcp;\n\t\tl3proto ip;\n\t}\n", h.name, h.comment, h.kind)
}

func newHelper(h helper) message {
	return message{unix.NFT_MSG_NEWOBJ, create, encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_OBJ_TABLE, TableName)
		e.String(unix.NFTA_OBJ_NAME, h.name)
		e.Uint32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_CT_HELPER)
		nest(e, unix.NFTA_OBJ_DATA, h.encode)
		e.Bytes(objectUserdata, comment(h.comment))
	}), fmt.Sprintf("conntrack helper %q", h.kind), needs{needHelper}}
}

// describe is the object's part of a state.
func (h helper) describe() string {
	return describeHelper(encode(h.encode), comment(h.comment))
}

func (h helper) encode(e *netlink.AttributeEncoder) {
	e.String(unix.NFTA_CT_HELPER_NAME, h.kind)
	e.Uint16(unix.NFTA_CT_HELPER_L3PROTO, unix.NFPROTO_IPV4)
	e.Uint8(unix.NFTA_CT_HELPER_L4PROTO, unix.IPPROTO_TCP)
}

func describeHelper(data, userdata []byte) string {
	var kind string
	var network uint16
	var protocol uint8
	for attribute, v := range nested(data) {
		switch {
		case attribute == unix.NFTA_CT_HELPER_NAME:
			kind = text(v)
		case attribute == unix.NFTA_CT_HELPER_L3PROTO && len(v) == 2:
			network = binary.BigEndian.Uint16(v)
		case attribute == unix.NFTA_CT_HELPER_L4PROTO && len(v) == 1:
			protocol = v[0]
		}
	}
	return fmt.Sprintf("%s %d %d %q", kind, network, protocol, userdata)
}

// Helper asks whether a ruleset with this conntrack helper as its anchor can be installed, without installing anything:
// nil, or an error that wraps an *UnsupportedError when the kernel does not know the helper, or knows no helper objects.
// The question may make the kernel load modules.
func (k *Kernel) Helper(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	doing := fmt.Sprintf("look for the conntrack helper %q", name)
	only := table{helpers: []helper{{anchorHelper, name, ""}}}
	messages := only.messages(nil, nil)
	failures, err := k.transact(messages, false)
	if err != nil {
		return explain(doing, err)
	}
	return objection(doing, messages, failures)
}
