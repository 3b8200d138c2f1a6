package pcap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Reader reads a capture from its beginning to its end.
type Reader struct {
	r    *bufio.Reader
	at   int64 // bytes read
	buf  []byte
	next func() (Packet, error)

	order binary.ByteOrder
	tick  time.Duration // of a pcap's timestamps
	link  LinkType

	// pcapng: see ng.go.
	interfaces []iface
}

// Magic numbers of pcap (draft-ietf-opsawg-pcap, section 4).
const (
	magicMicro = 0xa1b2c3d4
	magicNano  = 0xa1b23c4d
	fileHeader = 24 // bytes
	packHeader = 16
)

// NewReader begins to read. It fails with ErrFormat, wrapped, if this is no
// capture.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{r: bufio.NewReaderSize(from, 64<<10)}
	start, err := r.r.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("%w: %d bytes are too few for one", ErrFormat, len(start))
	}
	switch {
	case binary.BigEndian.Uint32(start) == blockSection:
		r.next = r.nextBlock
		return r, nil
	case start[0] == 0x1f && start[1] == 0x8b:
		return nil, fmt.Errorf("%w: it is compressed with gzip; unpack it first: gunzip", ErrFormat)
	case start[0] == 0x28 && start[1] == 0xb5:
		return nil, fmt.Errorf("%w: it is compressed with zstd; unpack it first: unzstd", ErrFormat)
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(start) {
		case magicMicro:
			r.order, r.tick = order, time.Microsecond
		case magicNano:
			r.order, r.tick = order, time.Nanosecond
		}
	}
	if r.order == nil {
		return nil, fmt.Errorf("%w: neither pcap nor pcapng", ErrFormat)
	}
	h, err := r.take(fileHeader)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if major := r.order.Uint16(h[4:]); major != 2 {
		return nil, fmt.Errorf("%w that is understood: pcap version %d", ErrFormat, major)
	}
	r.link = LinkType(r.order.Uint32(h[20:])) // above it is the length of frame check sequences
	r.next = r.nextPacket
	return r, nil
}

// Next returns the next packet. It returns io.EOF at the end, or ErrCut or
// ErrDamaged, wrapped, if that comes sooner.
func (r *Reader) Next() (Packet, error) { return r.next() }

// Offset returns how many bytes of the file were read.
func (r *Reader) Offset() int64 { return r.at }

// nextPacket reads a packet of a pcap.
func (r *Reader) nextPacket() (Packet, error) {
	at := r.at
	h, err := r.take(packHeader)
	if err != nil {
		return Packet{}, err
	}
	p := Packet{
		Time: time.Unix(int64(r.order.Uint32(h)), int64(r.order.Uint32(h[4:]))*int64(r.tick)).UTC(),
		Link: r.link,
	}
	n, length := r.order.Uint32(h[8:]), r.order.Uint32(h[12:])
	if n > maxPacket || length > 1<<30 {
		return Packet{}, damaged(at, "a packet of %d bytes", max(n, length))
	}
	p.Length = max(int(n), int(length))
	if p.Data, err = r.take(int(n)); err != nil {
		return Packet{}, inside(err)
	}
	return p, nil
}

// take reads n bytes. They stay valid until the next take.
func (r *Reader) take(n int) ([]byte, error) {
	if cap(r.buf) < n {
		r.buf = make([]byte, max(n, 4<<10))
	}
	b := r.buf[:n]
	k, err := io.ReadFull(r.r, b)
	r.at += int64(k)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, ErrCut
	}
	return b, err
}

// skip passes over n bytes.
func (r *Reader) skip(n int) error {
	k, err := r.r.Discard(n)
	r.at += int64(k)
	return inside(err)
}

// inside turns the end of the file into ErrCut: something has begun.
func inside(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrCut
	}
	return err
}
