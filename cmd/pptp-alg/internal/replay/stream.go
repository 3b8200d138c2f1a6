package replay

import (
	"encoding/binary"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// Bounds of what is kept of a direction.
const (
	maxAhead  = 256     // segments that came before their turn
	maxPeers  = 4096    // bytes of changed Call IDs
	maxWhole  = 1 << 10 // of a message; the longest has 168 bytes
	headBytes = 12      // of a message (RFC 2637, section 1.4)
)

// segment is a segment of a control connection, with its packet.
type segment struct {
	alg.Segment
	conn     *conn
	number   int    // in the file
	ip       []byte // the packet; what the capture cut off is zero
	captured int    // how many of these bytes were captured
	data     int    // where the payload begins in ip

	// The payload as it comes to the router, and its checksum: what a segment
	// of the server's is written with. nil for one of the client's.
	outside    []byte
	outsideSum uint16
}

func (s *segment) dataSeq() uint32 {
	if s.Flags&alg.SYN != 0 {
		return s.Seq + 1
	}
	return s.Seq
}

// set changes a byte of the payload.
func (s *segment) set(i int, b byte) {
	if old := s.Payload[i]; old != b {
		s.Checksum = alg.ReplaceByte(s.Checksum, i, old, b)
		s.Payload[i] = b
	}
	if s.outside != nil {
		s.outsideSum = alg.ReplaceByte(s.outsideSum, i, s.outside[i], b)
		s.outside[i] = b
	}
}

// stream is one direction of a control connection as the capture has it: its
// messages, in order. It does not judge; the ALG does that.
type stream struct {
	conn    *conn
	side    nat.Side
	started bool
	lost    bool   // in the middle of something: looking for a message
	next    uint32 // sequence number
	head    []byte // the first bytes of the current message, as they were captured
	n       int    // how many bytes of it have come
	size    int    // its length; 0: not known
	none    bool   // it is none, but bytes that belong to the one before
	excess  int    // so many such bytes may follow, see header
	ahead   []*segment
	peers   map[uint32]byte // bytes of the receiver's Call IDs that were changed
}

// peerOffset is where the receiver's Call ID is in a message (RFC 2637, sections
// 2.8 to 2.15).
func peerOffset(t alg.MessageType) int {
	switch t {
	case alg.OutgoingCallReplyType, alg.IncomingCallReplyType:
		return 14
	case alg.IncomingCallConnectedType, alg.WANErrorNotifyType, alg.SetLinkInfoType, alg.CallDisconnectNotifyType:
		return 12
	}
	return 0
}

// take takes a segment. It brings it and those that it was missing for into
// the form in which they come to the router, and returns the messages that are
// complete with it.
func (d *stream) take(s *segment) (done [][]byte) {
	if s.Flags&alg.SYN != 0 {
		d.reset(s.dataSeq(), false)
	}
	if len(s.Payload) == 0 {
		return nil
	}
	if !d.started {
		d.reset(s.dataSeq(), true)
	}
	if int32(s.dataSeq()-d.next) > 0 {
		if len(d.ahead) == maxAhead { // the bytes between are not in the capture
			d.reset(s.dataSeq(), true)
		} else {
			d.ahead = append(d.ahead, s)
			return nil
		}
	}
	done = d.inOrder(s, done)
	for again := true; again; {
		again = false
		for i, a := range d.ahead {
			if int32(a.dataSeq()-d.next) <= 0 {
				d.ahead = append(d.ahead[:i], d.ahead[i+1:]...)
				done = d.inOrder(a, done)
				again = true
				break
			}
		}
	}
	return done
}

// acknowledged takes note of what the receiver has: what did not come by is not
// in the capture.
func (d *stream) acknowledged(ack uint32) {
	if !d.started || int32(ack-d.next) <= 1 { // one more is the FIN
		return
	}
	d.reset(ack, true)
	var rest []*segment
	for _, s := range d.ahead {
		if int32(s.dataSeq()-d.next) >= 0 {
			rest = append(rest, s)
		}
	}
	d.ahead = rest
}

func (d *stream) reset(seq uint32, lost bool) {
	d.started, d.lost, d.next, d.excess = true, lost, seq, 0
	d.begin()
}

// begin begins a message.
func (d *stream) begin() { d.head, d.n, d.size, d.none = d.head[:0], 0, 0, false }

// inOrder takes a segment that does not begin after what has come.
func (d *stream) inOrder(s *segment, done [][]byte) [][]byte {
	seq := s.dataSeq()
	for i := range s.Payload {
		at := seq + uint32(i)
		if int32(at-d.next) < 0 {
			if b, ok := d.peers[at]; ok {
				s.set(i, b)
			}
			continue
		}
		if d.size == 0 && d.n == headBytes { // no header: look one byte further
			d.head = append(d.head[:0], d.head[1:]...)
			d.n--
		}
		if len(d.head) < maxWhole {
			d.head = append(d.head, s.Payload[i])
		}
		d.n++
		d.next++
		d.peer(s, i)
		if d.size == 0 && d.n == headBytes {
			d.header()
		}
		if d.size > 0 && d.n >= d.size {
			if !d.none {
				done = append(done, append([]byte(nil), d.head...))
			}
			d.begin()
		}
	}
	return done
}

// header looks at the beginning of a message.
func (d *stream) header() {
	h, ok := alg.AsHeader(d.head)
	excess := d.excess
	d.excess = 0
	switch {
	case ok && h.Type() == alg.IncomingCallReplyType && h.Length() == 148:
		// One that says it has 148 bytes, as a builder in wide use writes, has
		// 24 if a message follows those.
		d.size, d.lost = h.Type().Length(), false
		d.excess = 148 - d.size
	case ok && (!d.lost || h.Type().Length() > 0):
		d.size, d.lost = int(h.Length()), false
	case excess > 0:
		d.size, d.none = excess, true
	default:
		d.lost = true // the ALG says what it thinks of it
	}
}

// peer brings the receiver's Call ID at payload offset i, whose byte was just
// added to head, into the form that the router tells.
func (d *stream) peer(s *segment, i int) {
	if d.size == 0 || d.none || d.n > 16 || d.conn.alg == nil {
		return
	}
	t := alg.MessageType(binary.BigEndian.Uint16(d.head[8:]))
	off := peerOffset(t)
	at := d.n - 1
	if off == 0 || at != off && at != off+1 {
		return
	}
	var b byte
	var known bool
	switch {
	case at == off+1:
		id := binary.BigEndian.Uint16(d.head[off:])
		var told uint16
		if told, known = d.told(t, id); known {
			// The whole ID is known now; its high byte may have to be mended.
			d.put(s, i-1, d.next-2, byte(told>>8))
			b = byte(told)
		}
	case i+1 < len(s.Payload):
		return // decided with the low byte
	default:
		b, known = d.high(s.Payload[i])
	}
	if known {
		d.put(s, i, d.next-1, b)
	}
}

// put changes the byte with a sequence number, which is at offset i of the
// segment, if it is in it.
func (d *stream) put(s *segment, i int, seq uint32, b byte) {
	if i < 0 || s.Payload[i] == b { // what is in an earlier segment has gone on
		return
	}
	s.set(i, b)
	if d.peers == nil || len(d.peers) >= maxPeers {
		d.peers = map[uint32]byte{}
	}
	d.peers[seq] = b
}

// told returns what the router tells in place of the receiver's Call ID.
func (d *stream) told(t alg.MessageType, id uint16) (uint16, bool) {
	calls := d.conn.alg.Calls()
	if t == alg.CallDisconnectNotifyType && calls.Own(d.side, id) != nil {
		return 0, false // the sender's own, as the RFC has it
	}
	if call := calls.Own(d.side.Other(), id); call != nil {
		return call.End(d.side.Other()).Told, true
	}
	return 0, false
}

// high guesses the high byte of a Call ID whose low byte is in a later segment.
func (d *stream) high(b byte) (told byte, known bool) {
	d.conn.alg.Calls().Blocks(d.side.Other(), func(r, t byte) {
		if r == b && !known {
			told, known = t, true
		}
	})
	return told, known
}
