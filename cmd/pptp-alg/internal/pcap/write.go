package pcap

import (
	"encoding/binary"
	"io"
	"time"
)

// Snap is the snapshot length in the files that are written, tcpdump's own.
const Snap = 262144

// Sizes of what a pcap has beside its packets, in bytes.
const (
	HeaderSize = fileHeader // of a file
	RecordSize = packHeader // of a packet
)

// Writer writes a pcap: little-endian, with nanoseconds, of raw IP packets.
type Writer struct{ w io.Writer }

// NewWriter writes the header of a file.
func NewWriter(w io.Writer) (*Writer, error) {
	h := make([]byte, 0, fileHeader)
	h = binary.LittleEndian.AppendUint32(h, magicNano)
	h = binary.LittleEndian.AppendUint16(h, 2)
	h = binary.LittleEndian.AppendUint16(h, 4)
	h = append(h, make([]byte, 8)...) // time zone and accuracy: always zero
	h = binary.LittleEndian.AppendUint32(h, Snap)
	h = binary.LittleEndian.AppendUint32(h, uint32(Raw))
	_, err := w.Write(h)
	return &Writer{w}, err
}

// Write writes a packet, of which ip are the bytes that are there and length
// is how long it was.
func (w *Writer) Write(t time.Time, ip []byte, length int) error {
	ip = ip[:min(len(ip), Snap)]
	b := make([]byte, 0, packHeader+len(ip))
	b = binary.LittleEndian.AppendUint32(b, uint32(t.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(t.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ip)))
	b = binary.LittleEndian.AppendUint32(b, uint32(max(length, len(ip))))
	_, err := w.w.Write(append(b, ip...))
	return err
}
