// Package peer emulates PPTP clients and servers: control connections over the
// kernel's TCP, calls in both roles (PNS and PAC), and GRE over raw sockets.
//
// A Node is one address that speaks PPTP. It dials Sessions (control
// connections), accepts them, or both; on a Session either side can place
// Calls. Everything is goroutines: hundreds of nodes fit into one process.
//
// The peers are there to judge what lies between them, so they are strict and
// distrustful. Both ends of a call know a number that no other call has, the
// token, carried in the telephone number field of the call request, which a
// translator has no business with. Every payload is made of this token, and
// every byte of it is checked. Whatever arrives that should not have arrived
// is recorded as a Fault: GRE with a Call ID that nobody here has, a payload of
// another call, a control message about an unknown call, bytes that changed.
//
// The package knows nothing about tests or namespaces: where sockets are opened
// is up to a Network, which a lab's host is.
package peer
