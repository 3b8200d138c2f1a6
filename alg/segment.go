package alg

import "pptp-alg/nat"

// Flags are the control bits of a TCP header, as in its 14th byte.
type Flags uint8

// The control bits that matter here (RFC 9293, section 3.1).
const (
	FIN Flags = 1 << 0
	SYN Flags = 1 << 1
	RST Flags = 1 << 2
	ACK Flags = 1 << 4
)

// Verdict says what becomes of a segment.
type Verdict uint8

const (
	// Accept lets the segment go on, as it now is.
	Accept Verdict = iota
	// Drop discards it. Its sender will send it again.
	Drop
)

// Segment is one TCP segment of a control connection.
type Segment struct {
	From     nat.Side
	Seq, Ack uint32 // as in the header, host byte order
	Flags    Flags
	Payload  []byte // changed in place
	Checksum uint16 // of the TCP header, host byte order; kept right for Payload
	Changed  bool   // set when Payload and Checksum were changed
	Packet   any    // the caller's

}

// set writes one byte of the payload.
func (s *Segment) set(i int, b byte) {
	if old := s.Payload[i]; old != b {
		// A TCP header is a multiple of four bytes long, so parity in the
		// payload is parity in the checksummed data.
		s.Checksum = ReplaceByte(s.Checksum, i, old, b)
		s.Payload[i] = b
		s.Changed = true
	}
}

// dataSeq returns the sequence number of the first payload byte.
func (s *Segment) dataSeq() uint32 {
	if s.Flags&SYN != 0 {
		return s.Seq + 1 // the SYN comes first (RFC 9293, section 3.4)
	}
	return s.Seq
}
