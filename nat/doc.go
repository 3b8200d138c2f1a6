// Package nat decides which Call IDs each end of a PPTP call is told.
//
// A PPTP call has two Call IDs, one chosen by each end (RFC 2637, section
// 3.1.3). Enhanced GRE carries nothing but the receiver's Call ID, so on a
// shared public address that ID has to be unique, and the ends, which know
// nothing of each other, choose equal ones. The package keeps, for every side
// of every call, a Mapping: the real Call ID, which the side itself uses, and
// the told Call ID, which the other side is given in its place.
//
// One rule covers every topology. Let X be a side and Y the other one, and let
// every address have a real form (where the host is) and a told form (what the
// other side sees; the same one where nothing is translated). GRE towards X
//
//	arrives from Y.real to X.told with X's told Call ID, and
//	leaves  from Y.told to X.real with X's real Call ID.
//
// Masquerading, port forwarding, hairpin NAT, and no NAT at all differ only in
// the four addresses of the Path.
//
// The package is pure: no sockets, no clock, no goroutines. Time is an
// argument, expiry a question (Table.Next, Table.Expire), randomness comes in
// through the constructor, and the packets are somebody else's: a DataPlane.
// A Table must be used by one goroutine at a time.
package nat
