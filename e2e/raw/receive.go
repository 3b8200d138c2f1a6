package raw

import (
	"bytes"
	"net/netip"

	"github.com/google/gopacket/layers"
)

// takeTCP handles a segment that arrived.
func (h *Host) takeTCP(from netip.Addr, t *layers.TCP) {
	key := connKey{uint16(t.DstPort), netip.AddrPortFrom(from, uint16(t.SrcPort))}
	h.mu.Lock()
	c := h.conns[key]
	if l := h.listening[key.local]; l != nil && t.SYN && !t.ACK && (c == nil || c.irs != t.Seq) {
		c = h.newConn(key, l.sequence)
		c.irs = t.Seq
		l.ready = append(l.ready, c)
	}
	if c == nil {
		h.mu.Unlock()
		return
	}
	if t.SYN && t.ACK {
		c.irs, c.open = t.Seq, true
	}
	s := Segment{Offset: int(int32(t.Seq - c.irs - 1)), Ack: int(int32(t.Ack - c.iss - 1)), Payload: bytes.Clone(t.Payload)}
	for _, f := range []struct {
		set  bool
		flag Flags
	}{{t.FIN, FIN}, {t.SYN, SYN}, {t.RST, RST}, {t.PSH, PSH}, {t.ACK, ACK}} {
		if f.set {
			s.Flags |= f.flag
		}
	}
	c.seen = append(c.seen, s)
	c.arrived(s)
	answer := Segment{Offset: c.next, Flags: ACK, Ack: c.positionLocked()}
	wanted := (len(s.Payload) > 0 || s.Flags&(SYN|FIN) != 0) && s.Flags&RST == 0
	if s.Flags&(SYN|ACK) == SYN {
		answer, wanted = Segment{Offset: -1, Flags: SYN | ACK, Ack: c.positionLocked()}, true
	}
	h.mu.Unlock()
	if wanted {
		_ = c.SendSegment(answer)
	}
}

// arrived puts a segment into the stream. host.mu is held.
func (c *Conn) arrived(s Segment) {
	if s.Flags&RST != 0 {
		c.reset = true
		return
	}
	if s.Flags&ACK != 0 {
		c.acked = max(c.acked, s.Ack)
		if s.Flags&SYN == 0 {
			c.open = true
		}
	}
	offset := s.Offset
	if s.Flags&SYN != 0 {
		offset = 0 // data in a SYN starts the stream
	}
	if s.Flags&FIN != 0 {
		c.fin = offset + len(s.Payload)
	}
	if len(s.Payload) > 0 && len(c.pending[offset]) < len(s.Payload) {
		c.pending[offset] = s.Payload
	}
	for progress := true; progress; {
		progress = false
		for at, b := range c.pending {
			if at <= len(c.stream) {
				delete(c.pending, at)
				if end := at + len(b); end > len(c.stream) {
					c.stream = append(c.stream, b[len(c.stream)-at:]...)
					progress = true
				}
			}
		}
	}
}
