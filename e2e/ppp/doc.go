// Package ppp is one end of a PPP link: LCP (RFC 1661), PAP (RFC 1334),
// CHAP with MD5 (RFC 1994) and MS-CHAP version 2 (RFC 2759), CCP (RFC 1962)
// with MPPE (RFC 3078), IPCP (RFC 1332).
//
// A Link is pure: frames, datagrams and the time go in, frames, datagrams and
// events come out. It has no goroutine, no timer and no socket; Deadline says
// when to call Tick. Both ends of a link are the same: who demands proof of
// whom, and who gives addresses to whom, is a matter of Config.
//
// Frames have no flags, no escapes and no checksum, as PPTP carries them
// (RFC 2637 section 4.1). The layers below may lose frames. They should not
// change their order: a stateful cipher, and the negotiation's end, would take
// it amiss, though nothing breaks for good.
//
// The package is an oracle for what lies between two ends: it shares no line
// with the program under test, and counts in Stats what it did not expect.
package ppp
