package alg

// maxHistory bounds how many forwarded bytes one direction remembers. It
// covers a receive window without scaling.
const maxHistory = 64 << 10

// keepHistory is the buffer that an idle direction may keep.
const keepHistory = 1 << 10

// maxMarks bounds how many translated bytes are remembered for longer.
const maxMarks = 256

// history holds the last bytes of a direction as they were forwarded, until
// the receiver acknowledges them. The copy that was forwarded first is the one
// that every retransmission repeats: the receiver may have either, so both
// have to be the same, and a sender can't change afterwards what was judged
// before.
//
// A sender may repeat what was acknowledged as well, when the acknowledgement
// was lost. Its receiver will not look at it, but others on the way may: so
// the bytes that were translated are remembered for longer.
type history struct {
	buf   []byte // forwarded bytes, the last of them just before the direction's next
	edge  uint32 // the receiver has everything before this sequence number
	marks []mark // the last translated bytes, the oldest first

	forgot bool   // marks were dropped,
	floor  uint32 // the last of them at this sequence number
}

// mark is one byte that was forwarded otherwise than it was sent.
type mark struct {
	seq uint32
	b   byte
}

// reset forgets everything; the stream goes on at seq.
func (h *history) reset(seq uint32) {
	h.buf, h.edge = h.buf[:0], seq
}

// base returns the sequence number of the first byte remembered.
func (h *history) base(next uint32) uint32 { return next - uint32(len(h.buf)) }

// add remembers bytes that are forwarded now.
func (h *history) add(p []byte) {
	if len(p) > maxHistory {
		p = p[len(p)-maxHistory:]
	}
	if drop := len(h.buf) + len(p) - maxHistory; drop > 0 {
		h.buf = append(h.buf[:0], h.buf[drop:]...)
	}
	h.buf = append(h.buf, p...)
}

// mark remembers a translated byte.
func (h *history) mark(seq uint32, b byte) {
	drop := 0
	for drop < len(h.marks) && seq-h.marks[drop].seq > 1<<30 {
		drop++ // sequence numbers come round
	}
	if drop == 0 && len(h.marks) == maxMarks {
		drop = maxMarks / 4
	}
	if drop > 0 {
		h.forgot, h.floor = true, h.marks[drop-1].seq
		h.marks = append(h.marks[:0], h.marks[drop:]...)
	}
	h.marks = append(h.marks, mark{seq, b})
}

// acknowledge forgets what the receiver has. ack is at most next.
func (h *history) acknowledge(ack, next uint32) {
	if after(ack, h.edge) {
		h.edge = ack
	}
	have := int(int32(ack - h.base(next)))
	if have <= 0 {
		return
	}
	rest := copy(h.buf, h.buf[have:])
	if rest == 0 && cap(h.buf) > keepHistory {
		h.buf = nil
		return
	}
	h.buf = h.buf[:rest]
}

// shrink gives back what an idle direction does not need.
func (h *history) shrink() {
	if len(h.buf) == 0 {
		h.buf = nil
	}
	h.marks = append([]mark(nil), h.marks...)
}

// lost reports whether [seq, end) touches bytes that were forwarded, may not
// have reached the receiver, and can't be repeated: neither are the bytes
// themselves known, nor all that were translated among them.
func (h *history) lost(seq, end, next uint32) bool {
	base := h.base(next)
	return after(base, h.edge) && before(seq, base) && after(end, h.edge) &&
		h.forgot && !after(seq, h.floor)
}

// overlay writes the remembered bytes over s, as far as it repeats them.
func (h *history) overlay(s *Segment, seq, next uint32) {
	if before(seq, h.base(next)) {
		for _, m := range h.marks {
			if i := m.seq - seq; i < uint32(len(s.Payload)) {
				s.set(int(i), m.b)
			}
		}
	}
	// Where the segment begins in buf. 64 bits, since it can be -2^31, which
	// has no negative in 32.
	at := int64(int32(seq - h.base(next)))
	for i := max(0, -at); i < int64(len(s.Payload)) && at+i < int64(len(h.buf)); i++ {
		s.set(int(i), h.buf[at+i])
	}
}

// Sequence numbers are compared modulo 2^32 (RFC 9293, section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return int32(a-b) > 0 }
