// Package demo plays the one scene that pptp-alg was written for: two clients
// with the same Call ID, behind one public address, at one server.
package demo
