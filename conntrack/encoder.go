package conntrack

import "encoding/binary"

// An encoder appends netlink attributes (struct nlattr: length and type in host byte order, padded to four bytes) to b.
// Numbers are big-endian. netlink's AttributeEncoder copies every nested attribute at every level, and what a request
// for one entry cost there, fifty allocations, was a part of the time of every call.
type encoder struct{ b []byte }

const (
	attrHeader = 4       // struct nlattr
	attrNested = 1 << 15 // NLA_F_NESTED
)

// begin begins an attribute, end ends it.
func (e *encoder) begin(attr uint16) (start int) {
	start = len(e.b)
	e.b = binary.NativeEndian.AppendUint16(e.b, 0)
	e.b = binary.NativeEndian.AppendUint16(e.b, attr)
	return start
}

func (e *encoder) end(start int) {
	binary.NativeEndian.PutUint16(e.b[start:], uint16(len(e.b)-start))
	for len(e.b)%4 != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) uint8(attr uint16, v uint8) {
	start := e.begin(attr)
	e.b = append(e.b, v)
	e.end(start)
}

func (e *encoder) uint16(attr, v uint16) {
	start := e.begin(attr)
	e.b = binary.BigEndian.AppendUint16(e.b, v)
	e.end(start)
}

func (e *encoder) uint32(attr uint16, v uint32) {
	start := e.begin(attr)
	e.b = binary.BigEndian.AppendUint32(e.b, v)
	e.end(start)
}

func (e *encoder) bytes(attr uint16, v []byte) {
	start := e.begin(attr)
	e.b = append(e.b, v...)
	e.end(start)
}

// text appends a string with a NUL behind it, as the kernel has them.
func (e *encoder) text(attr uint16, v string) {
	start := e.begin(attr)
	e.b = append(append(e.b, v...), 0)
	e.end(start)
}

// nested appends an attribute that holds those that put appends.
func (e *encoder) nested(attr uint16, put func()) {
	start := e.begin(attr | attrNested)
	put()
	e.end(start)
}
