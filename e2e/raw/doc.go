// Package raw is a host that speaks ARP, IPv4, TCP and GRE by hand, over a
// packet socket on a device whose kernel has no address.
//
// The kernel's TCP cannot be told to send a segment twice with another cut, to
// overlap, to leave a gap, to put data into its SYN or to reset in the middle of
// a message. Here a scenario says which segment leaves, and sees every segment
// that arrives. Positions in a stream are counted from 0, the first byte after
// the SYN; sequence numbers start wherever the scenario wants, just before the
// wrap-around for instance.
//
// Nothing is sent behind the scenario's back except ARP, the handshake and, if
// not switched off, plain acknowledgements. Checksums of all that arrives are
// verified.
package raw
