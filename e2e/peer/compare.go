package peer

import (
	"bytes"
	"fmt"

	"pptp-alg/e2e/wire"
)

// CompareStreams proves that a translator on the way changed nothing but Call
// IDs: sent is the stream as its sender wrote it, read as its receiver got it.
// With exact, not even those may differ.
func CompareStreams(sent, read []byte, exact bool) error {
	if len(sent) != len(read) {
		return fmt.Errorf("%d bytes were sent and %d received", len(sent), len(read))
	}
	for at := 0; at < len(sent); {
		m, n, err := wire.Decode(sent[at:])
		if err != nil {
			n = len(sent) - at // not a message: to the last byte the same
		}
		a, b := bytes.Clone(sent[at:at+n]), bytes.Clone(read[at:at+n])
		if m != nil && !exact {
			own, peer := wire.CallIDs(m)
			if own != nil {
				blank(a, b, wire.HeaderSize)
			}
			if peer != nil && own != nil {
				blank(a, b, wire.HeaderSize+2)
			} else if peer != nil {
				blank(a, b, wire.HeaderSize)
			}
		}
		for i := range a {
			if a[i] != b[i] {
				return fmt.Errorf("byte %d of the stream (message at %d) was sent as %#x and received as %#x", at+i, at, a[i], b[i])
			}
		}
		at += n
	}
	return nil
}

func blank(a, b []byte, at int) { clear(a[at : at+2]); clear(b[at : at+2]) }
