package conntrack

import "github.com/mdlayher/netlink"

// The constants of linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h that this package uses,
// under the kernel's names.

// Message types. The upper byte is the nfnetlink subsystem.
const (
	subsysCTNetlink = 1 << 8 // NFNL_SUBSYS_CTNETLINK

	// IPCTNL_MSG_CT_NEW: creates or changes; also the type of every answer and of NEW events.
	msgNew netlink.HeaderType = subsysCTNetlink + 0
	// IPCTNL_MSG_CT_GET: one entry by a tuple, or a dump.
	msgGet netlink.HeaderType = subsysCTNetlink + 1
	// IPCTNL_MSG_CT_DELETE: one entry by a tuple. WITHOUT A TUPLE IT EMPTIES THE WHOLE TABLE, and an
	// ID alone does not prevent that. Only encodeDelete builds it. Also the type of DESTROY events.
	msgDelete netlink.HeaderType = subsysCTNetlink + 2
)

// Multicast groups (enum nfnetlink_groups).
const (
	groupDestroy = 3 // NFNLGRP_CONNTRACK_DESTROY
)

// struct nfgenmsg, between the netlink header and the attributes: family u8, version u8, and a
// resource ID u16 that ctnetlink does not use.
const (
	nfgenLen      = 4
	nfgenFamily   = 0 // offset
	nfgenVersion0 = 0 // NFNETLINK_V0
	nlmsghdrLen   = 16
	nlmsghdrPID   = 12 // offset of nlmsg_pid

	familyIPv4 = 2 // AF_INET
)

// enum ctattr_type: the attributes of an entry.
const (
	// CTA_TUPLE_ORIG, nested: packets as they arrive.
	ctaTupleOrig = 1
	// CTA_TUPLE_REPLY, nested: as answers would arrive. At creation it holds the *untranslated* addresses
	// (the kernel applies CTA_NAT_* to them); everywhere else it holds the result. Sent for an
	// existing entry it answers OK and changes nothing.
	ctaTupleReply = 2
	// CTA_STATUS, u32: a Status. At creation it has to contain IPS_CONFIRMED, else EBUSY. The NAT bits may
	// not be sent, the kernel sets them itself.
	ctaStatus = 3
	// CTA_PROTOINFO, nested.
	ctaProtoinfo = 4
	// CTA_HELP, nested: the helper of the connection.
	ctaHelp = 5
	// CTA_NAT_SRC, nested, only at creation: EOPNOTSUPP for an existing entry, and on kernels without NAT.
	ctaNATSrc = 6
	// CTA_TIMEOUT, u32, seconds left. Above INT_MAX/HZ (24.8 days at 1000 HZ) the kernel cuts it in silence.
	// For an entry with IPS_FIXED_TIMEOUT it can only be set at creation, later EPERM.
	ctaTimeout = 7
	// CTA_MARK, u32. Silently ignored where the kernel has no marks (CONFIG_NF_CONNTRACK_MARK).
	ctaMark = 8
	// CTA_COUNTERS_ORIG, nested; absent unless nf_conntrack_acct was 1 when the entry was made.
	ctaCountersOrig = 9
	// CTA_COUNTERS_REPLY, nested; same.
	ctaCountersReply = 10
	// CTA_ID, u32, opaque. An entry that is deleted and made again can get the same one. In a delete it
	// has to match, besides the tuple, else ENOENT.
	ctaID = 12
	// CTA_NAT_DST, nested; see ctaNATSrc.
	ctaNATDst = 13
	// CTA_ZONE, u16: a zone for both directions. One direction: ctaTupleZone. Both together: EINVAL.
	ctaZone = 18
	// CTA_FILTER, nested, in a dump request: which fields of the tuples count. Since Linux 5.8; older
	// kernels ignore it, and dump everything. Without the nested flag: EINVAL.
	ctaFilter = 25
	// CTA_STATUS_MASK, u32, in a dump request: which bits of CTA_STATUS have to match. Older kernels ignore it.
	ctaStatusMask = 26
)

// enum ctattr_tuple: inside CTA_TUPLE_*.
const (
	ctaTupleIP    = 1 // CTA_TUPLE_IP, nested
	ctaTupleProto = 2 // CTA_TUPLE_PROTO, nested
	ctaTupleZone  = 3 // CTA_TUPLE_ZONE, u16: a zone for the direction of the tuple it is in
)

// enum ctattr_ip: inside CTA_TUPLE_IP. Addresses in network order.
const (
	ctaIPv4Src = 1 // CTA_IP_V4_SRC
	ctaIPv4Dst = 2 // CTA_IP_V4_DST
	ctaIPv6Src = 3 // CTA_IP_V6_SRC
	ctaIPv6Dst = 4 // CTA_IP_V6_DST
)

// enum ctattr_l4proto: inside CTA_TUPLE_PROTO.
const (
	ctaProtoNum = 1 // CTA_PROTO_NUM, u8: the IP protocol
	// CTA_PROTO_SRC_PORT, u16: for GRE the source key. Packets carry no such thing: it is 0 unless the
	// kernel's own PPTP helper is at work. Required for GRE where the kernel knows GRE keys (EINVAL), ignored and
	// never returned where it does not (CONFIG_NF_CT_PROTO_GRE).
	ctaProtoSrcPort = 2
	// CTA_PROTO_DST_PORT, u16: for GRE the Call ID in the packet, that is, the receiver's.
	ctaProtoDstPort = 3
)

// enum ctattr_nat: inside CTA_NAT_*.
const (
	ctaNATv4MinIP = 1 // CTA_NAT_V4_MINIP: the address to translate to
	ctaNATv4MaxIP = 2 // CTA_NAT_V4_MAXIP: end of the range; the same
	ctaNATProto   = 3 // CTA_NAT_PROTO, nested: ports; without it the kernel chooses
)

// enum ctattr_protonat: inside CTA_NAT_PROTO.
const (
	ctaProtoNATPortMin = 1 // CTA_PROTONAT_PORT_MIN, u16
	ctaProtoNATPortMax = 2 // CTA_PROTONAT_PORT_MAX, u16
)

// enum ctattr_protoinfo and ctattr_protoinfo_tcp.
const (
	ctaProtoinfoTCP      = 1 // CTA_PROTOINFO_TCP, nested
	ctaProtoinfoTCPState = 1 // CTA_PROTOINFO_TCP_STATE, u8: enum tcp_conntrack

	ctaProtoinfoTCPFlagsOriginal = 4 // CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: struct nf_ct_tcp_flags, two bytes
	ctaProtoinfoTCPFlagsReply    = 5 // CTA_PROTOINFO_TCP_FLAGS_REPLY
)

// enum ctattr_help: inside CTA_HELP.
const ctaHelpName = 1 // CTA_HELP_NAME, string with a final zero

// enum ctattr_counters: inside CTA_COUNTERS_*.
const (
	ctaCountersPackets = 1 // CTA_COUNTERS_PACKETS, u64
	ctaCountersBytes   = 2 // CTA_COUNTERS_BYTES, u64, IP headers included
)

// enum ctattr_filter: inside CTA_FILTER. The flags are u32 in HOST byte order, unlike everything else.
const (
	ctaFilterOrigFlags  = 1 // CTA_FILTER_ORIG_FLAGS, for CTA_TUPLE_ORIG
	ctaFilterReplyFlags = 2 // CTA_FILTER_REPLY_FLAGS, for CTA_TUPLE_REPLY
)

// The bits of those flags: the kernel's CTA_FILTER_F_* (not in a public header, but part of the
// interface all the same). Ports without the protocol number: EINVAL.
const (
	filterIPSrc        = 1 << 0 // CTA_FILTER_F_CTA_IP_SRC
	filterProtoNum     = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM
	filterProtoSrcPort = 1 << 4 // CTA_FILTER_F_CTA_PROTO_SRC_PORT
	filterProtoDstPort = 1 << 5 // CTA_FILTER_F_CTA_PROTO_DST_PORT
)

// IP protocols.
const (
	protocolTCP = 6
	protocolGRE = 47
)
