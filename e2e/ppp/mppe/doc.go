// Package mppe encrypts PPP packets as Microsoft's Point-to-Point Encryption
// does (RFC 3078), with keys that come from MS-CHAP version 2 (RFC 3079
// section 3).
//
// A Sender and a Receiver are one direction each. Stateless, every packet has a
// key of its own, and a lost one costs nothing but itself. Stateful, the cipher
// runs on from packet to packet; after a loss the Receiver takes nothing until
// the Sender, asked to by the Compression Control Protocol, starts anew.
package mppe
