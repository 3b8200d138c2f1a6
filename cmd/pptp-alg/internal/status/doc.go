// Package status defines what `pptp-alg status` tells: the document that the
// daemon fills in and that --json prints, and the table for people.
//
// The JSON shape is an interface that scripts rely on. Fields may be added; none
// is renamed, and none disappears: what is unknown is null. Addresses are strings,
// Call IDs and counts numbers, times RFC 3339.
package status
