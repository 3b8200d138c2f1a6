// Package conntrack is a small ctnetlink client: it reads and writes the connection tracking
// table of a Linux network namespace, as far as PPTP passthrough needs it.
//
// A PPTP call is two streams of enhanced GRE (RFC 2637 section 4.1), one each way. Each is known
// by its addresses and by the Call ID of the side that receives it. The kernel translates both
// streams by itself, at the cost of a hash lookup per packet, once the table holds one entry per
// stream; this package makes those entries:
//
//   - [Client.Create], [Client.Replace], [Client.Delete], [Client.Get] and [Client.List] work on
//     an [Entry], which says how packets arrive and how they leave. What has to be in a message to
//     the kernel to bring that about, and why, is written at encodeEntry.
//   - [Client.Lookup] finds the TCP connection that a packet belongs to, with both of its tuples:
//     they say how the addresses of both ends are translated. [ParseConnection] does the same with
//     the conntrack attribute of a queued packet, on kernels which send it.
//   - [Listen] reports entries that disappear, whoever removed them.
//   - [Client.Probe] says what the kernel lacks, and what to do about it.
//
// Entries stay when the program ends: that is the purpose. Nothing in this package keeps state of
// its own; the kernel's table is the state.
//
// # Which entries are ours
//
// Ours are GRE entries with all of [StatusOurs] set and with the shape that encodeEntry gives
// them. Ordinary traffic never has StatusFixedTimeout. The connection mark is the user's, labels
// are dropped unless a rule uses them, and an entry's ID is used again at once, so none of these can
// serve.
//
// # Byte order
//
// The values inside ctnetlink attributes are big-endian, with one exception: the flags within
// CTA_FILTER are in host byte order. Headers of netlink messages and attributes are in host byte
// order. Encoding and decoding are plain functions over bytes, apart from the sockets, in
// encode.go and decode.go.
//
// # Requirements
//
// CAP_NET_ADMIN; nfnetlink, ctnetlink, NAT and GRE keys in the kernel (see [Client.Probe]). And two
// things that the rule set has to provide: a chain of type nat in the namespace, without which no
// entry of ours is translated, and any rule that switches connection tracking on.
package conntrack
