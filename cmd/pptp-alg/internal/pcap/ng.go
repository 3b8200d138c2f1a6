package pcap

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"
)

// Blocks of pcapng (draft-ietf-opsawg-pcapng, section 4).
const (
	blockSection   = 0x0a0d0d0a // reads the same in both byte orders
	blockInterface = 1
	blockOldPacket = 2 // obsolete
	blockSimple    = 3
	blockPacket    = 6

	byteOrderMagic = 0x1a2b3c4d
	blockHead      = 8  // type and length
	blockFrame     = 12 // with the length at its end
)

// Options of an Interface Description Block.
const (
	optionEnd        = 0
	optionResolution = 9  // if_tsresol
	optionOffset     = 14 // if_tsoffset
)

// maxInterfaces bounds the interfaces of a section.
const maxInterfaces = 1 << 16

// iface is an interface of the current section.
type iface struct {
	link    LinkType
	snap    uint32
	units   resolution
	seconds int64 // to be added to timestamps
}

// resolution is the if_tsresol option: timestamps count 10^-n seconds, or
// 2^-n with the highest bit set.
type resolution byte

// nextBlock reads blocks up to the next packet.
func (r *Reader) nextBlock() (Packet, error) {
	for {
		at := r.at
		h, err := r.take(blockHead)
		if err != nil {
			return Packet{}, err
		}
		if binary.BigEndian.Uint32(h) == blockSection {
			if err := r.section(at, [4]byte(h[4:])); err != nil {
				return Packet{}, err
			}
			continue
		}
		if r.order == nil {
			return Packet{}, damaged(at, "no section header")
		}
		kind, size := r.order.Uint32(h), r.order.Uint32(h[4:])
		if size < blockFrame || size%4 != 0 || size > 1<<30 {
			return Packet{}, damaged(at, "a block of %d bytes", size)
		}
		body := int(size - blockFrame)
		switch kind {
		case blockInterface, blockPacket, blockOldPacket, blockSimple:
			if body > maxPacket+64<<10 {
				return Packet{}, damaged(at, "a block of %d bytes", size)
			}
			b, err := r.take(body + 4)
			if err != nil {
				return Packet{}, inside(err)
			}
			b = b[:body]
			if kind == blockInterface {
				if err := r.describe(at, b); err != nil {
					return Packet{}, err
				}
				continue
			}
			return r.packet(at, kind, b)
		default: // names, statistics, secrets, what others invented
			if err := r.skip(body + 4); err != nil {
				return Packet{}, err
			}
		}
	}
}

// section begins a section, of which the type and the length were read.
func (r *Reader) section(at int64, length [4]byte) error {
	m, err := r.take(4)
	if err != nil {
		return inside(err)
	}
	switch {
	case binary.LittleEndian.Uint32(m) == byteOrderMagic:
		r.order = binary.LittleEndian
	case binary.BigEndian.Uint32(m) == byteOrderMagic:
		r.order = binary.BigEndian
	default:
		return damaged(at, "a section without its byte order")
	}
	size := r.order.Uint32(length[:])
	if size < 28 || size%4 != 0 || size > 1<<24 {
		return damaged(at, "a section header of %d bytes", size)
	}
	v, err := r.take(4)
	if err != nil {
		return inside(err)
	}
	if major := r.order.Uint16(v); major != 1 {
		return fmt.Errorf("%w that is understood: pcapng version %d", ErrFormat, major)
	}
	r.interfaces = r.interfaces[:0]
	return r.skip(int(size) - blockHead - 4 - 4)
}

// describe reads an Interface Description Block.
func (r *Reader) describe(at int64, b []byte) error {
	if len(b) < 8 || len(r.interfaces) == maxInterfaces {
		return damaged(at, "an interface that is described in %d bytes", len(b))
	}
	i := iface{link: LinkType(r.order.Uint16(b)), snap: r.order.Uint32(b[4:]), units: 6}
	for b = b[8:]; len(b) >= 4; {
		code, n := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
		b = b[4:]
		if code == optionEnd || n > len(b) {
			break
		}
		switch {
		case code == optionResolution && n == 1:
			i.units = resolution(b[0])
		case code == optionOffset && n == 8:
			i.seconds = int64(r.order.Uint64(b))
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	r.interfaces = append(r.interfaces, i)
	return nil
}

// packet reads a block with a packet.
func (r *Reader) packet(at int64, kind uint32, b []byte) (Packet, error) {
	head, index := 20, uint32(0)
	switch {
	case kind == blockSimple:
		head = 4
		if len(b) < head {
			return Packet{}, damaged(at, "a packet block of %d bytes", len(b))
		}
	case len(b) < head:
		return Packet{}, damaged(at, "a packet block of %d bytes", len(b))
	case kind == blockOldPacket:
		index = uint32(r.order.Uint16(b))
	default:
		index = r.order.Uint32(b)
	}
	if index >= uint32(len(r.interfaces)) {
		return Packet{}, damaged(at, "a packet of interface %d, which is not described", index)
	}
	i := &r.interfaces[index]
	p := Packet{Link: i.link}
	var n, length uint32
	if kind == blockSimple {
		length = r.order.Uint32(b)
		if n = length; i.snap > 0 {
			n = min(n, i.snap)
		}
		n = min(n, uint32(len(b)-head))
		p.Time = time.Unix(i.seconds, 0).UTC()
	} else {
		ts := uint64(r.order.Uint32(b[4:]))<<32 | uint64(r.order.Uint32(b[8:]))
		p.Time = i.time(ts)
		n, length = r.order.Uint32(b[12:]), r.order.Uint32(b[16:])
	}
	if n > uint32(len(b)-head) || length > 1<<30 {
		return Packet{}, damaged(at, "a packet of %d bytes in a block of %d", max(n, length), len(b))
	}
	p.Data = b[head:][:n]
	p.Length = max(int(n), int(length))
	return p, nil
}

// time turns a timestamp into a time.
func (i *iface) time(ts uint64) time.Time {
	var sec, nsec uint64
	n := uint(i.units & 0x7f)
	if i.units&0x80 != 0 {
		if n < 64 {
			sec = ts >> n
			high, low := bits.Mul64(ts&(1<<n-1), 1e9)
			if n > 0 {
				nsec = high<<(64-n) | low>>n
			}
		}
	} else if n <= 19 {
		unit := uint64(1)
		for range n {
			unit *= 10
		}
		sec = ts / unit
		high, low := bits.Mul64(ts%unit, 1e9)
		nsec, _ = bits.Div64(high, low, unit)
	}
	const most = 1 << 40 // some 35,000 years; what is beyond has no date
	return time.Unix(int64(sec%most)+i.seconds%most, int64(nsec)).UTC()
}
