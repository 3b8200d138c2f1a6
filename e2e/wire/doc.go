// Package wire holds the PPTP control messages and the enhanced GRE header of
// RFC 2637 as the test peers speak them.
//
// It is the oracle's codec: it shares no line with the program under test, so
// that a misreading of the RFC in one shows as a difference to the other. For
// the same reason it is built the other way round. The program looks at single
// fields through offsets; this package copies whole messages into structures
// whose fields stand in the order of the RFC's drawings, and encoding/binary
// does the counting.
package wire
