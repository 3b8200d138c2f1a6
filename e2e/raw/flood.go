package raw

import (
	"context"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// A Frame is a packet that is ready to be sent, any number of times.
type Frame []byte

// Frame builds a segment, for Host.Flood. Its Checksum and Corrupt do not count.
func (c *Conn) Frame(s Segment) (Frame, error) {
	return c.host.build(c.key.remote.Addr(), layers.IPProtocolTCP, c.header(s, 0), gopacket.Payload(s.Payload))
}

// Flood sends the frames in turn, again and again, as fast as it can until the
// context ends, and says how many it sent. What the device does not take is
// left out: a flood waits for nobody.
func (h *Host) Flood(ctx context.Context, frames []Frame) (sent uint64) {
	for ctx.Err() == nil {
		for _, f := range frames {
			if h.frame(f) == nil {
				sent++
			}
		}
	}
	return sent
}
