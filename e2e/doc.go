// Package e2e runs the built program in a network lab and judges it by what
// PPTP peers, captures and the kernel's tables show. It imports nothing of the
// program.
//
// Subpackages: lab makes the networks, wire is a codec of its own, peer emulates
// PPTP clients and servers over the kernel's TCP, raw is a host that speaks TCP
// by hand. The scenarios are this package's tests.
//
//	go test ./e2e/...            all scenarios, with a program built for it
//	go test -short ./e2e/...     fewer cuts, fewer clients
//	PPTP_ALG_BIN=bin/pptp-alg    takes this program (a path from the module's root)
//	CI=1                         what is missing fails instead of skipping
//
// The same packages make the demonstration, cmd/pptp-lab.
//
// A scenario that fails prints the router's ruleset and conntrack entries, the
// daemon's log and its status.
package e2e
