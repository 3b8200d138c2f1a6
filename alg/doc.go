// Package alg translates the Call IDs in PPTP control connections (RFC 2637).
//
// An ALG holds one Connection for every control connection that passes the
// router. Each TCP segment goes through Connection.Segment, which changes the
// Call ID fields in place, so that lengths and sequence numbers stay as they
// are, and decides what becomes of the segment. Which ID becomes which is
// package nat's decision; alg knows where the IDs are.
//
// Direction logic is a single rule. A "Call ID" field holds the sender's own
// ID and is translated from real to told; a "Peer's Call ID" field holds the
// receiver's and is translated from told to real. It does not matter which
// side opened the connection, nor which is PNS and which is PAC.
//
// The layers, each a file or two:
//
//   - wire.go, views.go, codes.go: the messages, as views over bytes
//   - checksum.go: the TCP checksum, updated incrementally
//   - history.go: what was already forwarded, so that a retransmission says
//     the same again, however it is cut and whatever it contains
//   - direction.go: one direction's segments, put in order
//   - framer.go: the byte stream cut into messages
//   - fields.go: the Call ID fields of a message, also when they come in pieces
//   - messages.go: what a message means for the calls
//   - connection.go, alg.go: a control connection, and all of them
//
// Like nat, the package is pure: no sockets, no clock, no goroutines.
package alg
