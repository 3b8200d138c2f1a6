// Package mschap holds the arithmetic of MS-CHAP version 2: the proof that a
// client knows its password, and the proof that the server knows it too
// (RFC 2759). No packets are made here, and nothing is remembered.
//
// None of this is safe by today's standards, which is why it is needed: it is
// what PPTP peers speak.
package mschap
