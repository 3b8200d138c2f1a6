// Package replay runs the translation over a capture, with neither root nor
// kernel: alg and nat are pure, the capture has the packets and the clock, and
// the data plane only remembers.
//
// # What is simulated
//
// A capture was made at one point, and shows the Call IDs as they were there.
// The router that is simulated stands between the two ends. Without a public
// address it does no NAT; with one it masquerades every client behind it. The
// ends, though, do not know of it: a server in the capture answers with the
// Call ID that the capture's client had, not with the one that the simulated
// router tells. So a segment is brought into the form in which it would come to
// the router before the ALG gets it: the receiver's Call IDs in it are those
// that the router told (stream.go).
//
// What is written is the capture as it would be on the server's side of that
// router: it is a conversation that fits together, and has unique Call IDs.
//
// # The layers
//
//   - ip.go: IPv4, TCP and GRE headers, also cut ones
//   - stream.go: one direction's bytes in order, its messages, the peer's IDs
//   - describe.go: a message in words
//   - replay.go: what becomes of each packet
//   - calls.go: calls, and the GRE that was seen of them
//   - diagnosis.go: what is wrong, in words
//   - event.go, text.go, summary.go: what is reported, and how it reads
package replay
