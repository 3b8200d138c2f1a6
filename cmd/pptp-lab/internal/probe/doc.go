// Package probe finds out whether PPTP gets through from here to a server, and
// if not, what stops it. It is for somebody behind a router that he may not be
// able to look into, so it says in words what it saw and what follows from it.
//
// It goes as far as a real client would, step by step: TCP, the control
// connection, a call, GRE with PPP's first words in it. Without a user and
// password it stops there; with them it logs in.
package probe
