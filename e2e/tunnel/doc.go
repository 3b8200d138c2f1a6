// Package tunnel carries PPP over the GRE of a call (RFC 2637 section 4): it
// puts package ppp and package peer together into whole PPTP clients and
// servers.
//
// Flow is the transport, and pure: sequence numbers and acknowledgements, the
// windows of both directions, order restored as far as packets come soon
// enough. A Tunnel is a Flow, a ppp.Link and one goroutine, so that thousands
// fit into a process. A Server makes one of every call that comes in; Dial
// makes one towards a server.
package tunnel
