package alg

import (
	"errors"
	"fmt"
	"time"
)

// mode says how much the framer knows about the stream.
type mode uint8

const (
	parsing mode = iota // the message boundaries are known
	seeking             // in the middle of a stream: looking for a message
	blind               // the stream is not PPTP: bytes pass as they are
)

// maxSought bounds how many bytes are searched for the beginning of a message.
const maxSought = 64 << 10

// framer cuts the stream into messages. It sees every byte once, in order, and
// keeps no more of a message than its first bytes.
type framer struct {
	mode   mode
	head   [maxNeeded]byte // first bytes of the current message, as they were sent
	n      int             // bytes of the current message that were forwarded
	size   int             // length of the current message; 0 before its header is complete
	layout *layout         // of the current message; nil for an unknown type
	kind   MessageType
	split  bool   // the current message came in several segments
	excess int    // bytes that may follow and belong to the last message, see header
	sought int    // bytes searched in vain
	guess  bool   // decide halves of Call IDs now, rightly or not
	fields fields // what was decided about the current message
}

func (f *framer) restart(m mode) {
	*f = framer{mode: m, guess: f.guess}
}

// consume takes the segment's payload from offset i on, translating in place.
// It returns how many bytes can be forwarded: all of them, or all but the
// last, when that is half a Call ID which can't be translated by itself. An
// error says why the stream can't be understood; what was consumed before it
// is valid.
func (d *direction) consume(now time.Time, s *Segment, i int) (int, error) {
	from := i
	if d.n > 0 && d.mode == parsing && !d.split {
		d.split = true
		d.conn.alg.Counters.Split[d.side]++
	}
	for i < len(s.Payload) {
		p := s.Payload[i:]
		switch {
		case d.mode == seeking:
			n, found := d.seek(p)
			i += n
			if !found && d.sought > maxSought {
				return i - from, fmt.Errorf("no control message in %d bytes", d.sought)
			}
			if !found {
				continue
			}
			d.conn.found()
			if err := d.header(); err != nil {
				if errors.Is(err, errShort) {
					d.conn.alg.Counters.Short[d.side]++
				}
				return i - from, err
			}
			d.begin(now)
		case d.size == 0:
			k := copy(d.head[d.n:headerSize], p)
			d.n += k
			i += k
			if d.n < headerSize {
				continue
			}
			if err := d.header(); err != nil {
				if errors.Is(err, errShort) {
					d.conn.alg.Counters.Short[d.side]++
				}
				return i - from, err
			}
			d.begin(now)
		case d.layout != nil && d.n < d.layout.needed:
			k := copy(d.head[d.n:d.layout.needed], p)
			done := d.translate(now, s, i, k)
			i += done
			d.n += done
			if done < k {
				return i - from, nil
			}
			if d.n == d.layout.needed {
				d.conn.message(now, d)
			}
		default:
			k := min(d.size-d.n, len(p))
			d.n += k
			i += k
		}
		if d.size != 0 && d.n == d.size {
			d.n, d.size, d.layout, d.split = 0, 0, nil, false
		}
	}
	return i - from, nil
}

// begin starts on a message whose header is complete.
func (d *direction) begin(now time.Time) {
	d.fields = fields{}
	if d.layout != nil && d.layout.needed == headerSize {
		d.conn.message(now, d)
	}
}

// header judges a complete header.
//
// A message may be longer than the RFC has it: the rest passes. It can't be
// shorter. The length field is believed, with one exception: an
// Incoming-Call-Reply of 148 bytes is in truth 24 bytes long when the bytes
// behind those begin a message, because a builder in wide use writes that.
func (f *framer) header() error {
	excess := f.excess
	f.excess = 0
	if err := f.check(); err != nil {
		if excess > 0 {
			// The last message was as long as it said. These bytes are its.
			f.size, f.layout, f.kind = excess, nil, 0
			return nil
		}
		return err
	}
	f.size = int(be16(f.head[offLength:]))
	f.kind, f.layout = 0, nil
	if be16(f.head[offKind:]) != kindControl {
		return nil // management messages: reserved by the RFC, none defined
	}
	f.kind = MessageType(be16(f.head[offMessageType:]))
	f.layout = layoutOf(f.kind)
	if f.kind == overstatedType && f.size == overstatedLength {
		f.excess = f.size - f.layout.length
		f.size = f.layout.length
	}
	return nil
}

// errShort says that a message is too short to be what it says.
var errShort = errors.New("truncated message")

// check returns an error when the bytes in head are no header.
func (f *framer) check() error {
	if cookie := be32(f.head[offMagicCookie:]); cookie != magicCookie {
		return fmt.Errorf("wrong magic cookie %#08x", cookie)
	}
	length := int(be16(f.head[offLength:]))
	if length < headerSize {
		return fmt.Errorf("%w: impossible message length %d", errShort, length)
	}
	if be16(f.head[offKind:]) != kindControl {
		return nil
	}
	t := MessageType(be16(f.head[offMessageType:]))
	if l := layoutOf(t); l != nil && length < l.length {
		return fmt.Errorf("%w: %s of %d bytes, which has %d", errShort, l.name, length, l.length)
	}
	return nil
}

// seek looks for a header in the middle of a stream. It returns how many bytes
// it took and whether head now holds a header.
func (f *framer) seek(p []byte) (int, bool) {
	for i, b := range p {
		if f.n == headerSize {
			copy(f.head[:], f.head[1:headerSize])
			f.n--
		}
		f.head[f.n] = b
		f.n++
		f.sought++
		if f.n == headerSize && f.plausible() {
			f.mode, f.sought = parsing, 0
			return i + 1, true
		}
	}
	return len(p), false
}

// plausible reports whether head holds the header of a known message. It is
// stricter than check: between messages anything may look like one.
func (f *framer) plausible() bool {
	t := MessageType(be16(f.head[offMessageType:]))
	return be32(f.head[offMagicCookie:]) == magicCookie &&
		be16(f.head[offKind:]) == kindControl &&
		be16(f.head[offReserved0:]) == 0 &&
		layoutOf(t) != nil && (f.check() == nil)
}
