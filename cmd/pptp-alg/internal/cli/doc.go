// Package cli is the command line: sub-commands, their flags, help and exit codes.
//
// Exit codes are 0, 1 for a failure, 2 for a wrong command line, and 3 when
// `status` finds no daemon. What was asked for goes to standard output, everything
// else to standard error.
package cli
