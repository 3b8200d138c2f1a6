// Package queue hands the packets of a netfilter queue to the daemon and gives
// the daemon's verdicts back to the kernel.
//
// [Open] binds the queue; from then on packets arrive, decoded, on the channel
// [Queue.Packets]. Every packet needs exactly one verdict: [Queue.Accept],
// [Queue.AcceptModified] or [Queue.Drop]. A verdict may come at any later time,
// from any goroutine, and in any order: the kernel knows packets by their ID. Until
// then the packet's bytes belong to whoever holds it.
//
// Only unfragmented IPv4 TCP segments reach the channel. Everything else that a
// rule may send here is accepted unchanged at once, and counted: a packet that
// this package does not understand is none of our business, and stopping it
// would break what worked before we came.
//
// # What the kernel does before a packet gets here
//
// The queue is opened without NFQA_CFG_F_GSO. The kernel then cuts super-packets
// into the segments that will be seen on the wire and completes checksums that
// were left to the network card (CHECKSUM_PARTIAL), so that a checksum can be
// updated incrementally. With the flag it would do neither.
//
// NFQA_CFG_F_CONNTRACK is requested and given up silently where the kernel was
// built without CONFIG_NETFILTER_NETLINK_GLUE_CT. Where it works,
// [Packet.Conntrack] holds the conntrack entry of the packet as ctnetlink
// attributes (NFQA_CT), which package conntrack can parse.
//
// NFQA_CFG_F_FAIL_OPEN is not requested. When the queue overflows, the kernel
// drops; TCP sends again. A control message that slips through untranslated
// would instead cost a call.
//
// # Memory
//
// Each packet owns its bytes, so that it can be held. They are copied out of a
// buffer that is used again. There is no pool: it would save two allocations a packet,
// and turn a verdict given twice into a verdict on somebody else's packet.
package queue
