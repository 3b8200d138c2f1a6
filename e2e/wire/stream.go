package wire

import (
	"errors"
	"io"
)

// Reader takes control messages off a byte stream. It also keeps the raw bytes
// of the last one, for comparing byte by byte.
type Reader struct {
	r   io.Reader
	buf []byte
	raw []byte
}

// NewReader reads messages from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next blocks until a whole message is there. io.EOF comes only between
// messages; inside one it is io.ErrUnexpectedEOF.
func (r *Reader) Next() (Message, error) {
	var chunk [4096]byte
	for {
		m, n, err := Decode(r.buf)
		switch {
		case err == nil:
			r.raw = append(r.raw[:0], r.buf[:n]...)
			r.buf = r.buf[n:]
			return m, nil
		case !errors.Is(err, ErrShort):
			return nil, err
		}
		n, err = r.r.Read(chunk[:])
		r.buf = append(r.buf, chunk[:n]...)
		if n > 0 {
			continue
		}
		if err == io.EOF && len(r.buf) > 0 {
			return nil, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
}

// Raw gives the bytes of the message that Next returned last.
func (r *Reader) Raw() []byte { return r.raw }
