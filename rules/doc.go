// Package rules is the daemon's nftables ruleset: what should be in the kernel, as a value (Ruleset), how that reads in
// the language of nft(8) (Ruleset.String), and the hand that puts it there (Kernel).
//
// There is one table, `ip pptp-alg`, and nothing outside of it is ever read for a decision or changed. In it:
//
//   - a forward chain behind the user's own filter, which hands the segments of PPTP control connections to the daemon's
//     queue: those with payload, FIN, RST, and SYN with ACK. A bare SYN or ACK carries nothing to translate. Chains on
//     input and output do the same for the connections of the router itself;
//   - a prerouting chain for what conntrack has not established. Of enhanced GRE (RFC 2637, section 4.1) it drops what
//     conntrack is about to take for a new flow of its own although a call owns the tuple: the guard. It also gives new
//     control connections their helper (see anchoring);
//   - an empty nat chain, because conntrack entries translate only where NAT is switched on in the namespace.
//
// The ruleset is desired state. Kernel.Apply compares before it acts, so it can be called at any time: when all is there
// it changes nothing, not even a counter; when something is missing or different it replaces the table in one
// transaction and keeps the guard's elements and the counters. Kernel.Present tells cheaply whether that is needed.
//
// Linux 5.10 or later is assumed: comments of tables, chains and counters came with it.
package rules
