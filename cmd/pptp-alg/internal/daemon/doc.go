// Package daemon wires the parts together: the queue of control segments, the
// translation (alg and nat), the conntrack entries that carry GRE, and the
// nftables rules.
//
// One goroutine, the owner, holds all state; there is no lock. What comes from
// elsewhere reaches it through channels: packets from the queue, removals from
// the conntrack event socket, questions from the control socket, deadlines
// from one timer. It makes its own netlink requests and waits for their
// answers, because a segment may go on only when the entries for it exist.
//
// The kernel holds the calls. When the daemon ends, its table is removed and
// the entries of calls that are up stay.
package daemon
