// Package cli is the command line of pptp-lab: it reads flags and hands over to
// the packages that do the work.
package cli
