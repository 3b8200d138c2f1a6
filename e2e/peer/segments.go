package peer

import (
	"net"
	"slices"
	"time"
)

// Segments says how a control stream is cut into TCP segments. The zero value
// sends every Send in one piece, however many messages it has.
type Segments struct {
	// Cuts gives the offsets at which to cut what is about to be sent.
	Cuts func(b []byte) []int
	// Pause waits after every piece until the other side has acknowledged it,
	// but no longer than this. With 0 pieces follow each other at once; each
	// is still a segment of its own as long as the congestion window is open.
	Pause time.Duration
}

// CutAt cuts at fixed offsets.
func CutAt(offsets ...int) func([]byte) []int {
	return func([]byte) []int { return offsets }
}

// CutEvery cuts into pieces of n bytes.
func CutEvery(n int) func([]byte) []int {
	return func(b []byte) []int {
		var cuts []int
		for i := n; i < len(b); i += n {
			cuts = append(cuts, i)
		}
		return cuts
	}
}

// pieces cuts b; offsets outside of it are ignored.
func (s Segments) pieces(b []byte) [][]byte {
	var cuts []int
	if s.Cuts != nil {
		cuts = slices.Clone(s.Cuts(b))
	}
	slices.Sort(cuts)
	var out [][]byte
	last := 0
	for _, c := range cuts {
		if c > last && c < len(b) {
			out = append(out, b[last:c])
			last = c
		}
	}
	return append(out, b[last:])
}

func (s Segments) write(c *net.TCPConn, b []byte) error {
	pieces := s.pieces(b)
	for i, p := range pieces {
		// Go sets TCP_NODELAY on every connection: a write is sent at once.
		if _, err := c.Write(p); err != nil {
			return err
		}
		if i == len(pieces)-1 || s.Pause == 0 {
			continue
		}
		for end := time.Now().Add(s.Pause); time.Now().Before(end); time.Sleep(500 * time.Microsecond) {
			if n, err := unsent(c); err != nil || n == 0 {
				break
			}
		}
	}
	return nil
}
