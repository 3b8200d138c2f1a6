package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Enhanced GRE (RFC 2637 section 4.1).
const (
	ProtocolGRE = 47     // IP protocol number
	EtherPPP    = 0x880b // GRE protocol type for PPP

	greKey      = 0x2000 // K, must be set
	greSequence = 0x1000 // S
	greAck      = 0x0080 // A
	greVersion  = 0x0007 // Ver, 1 for enhanced GRE
	greZero     = 0xcf78 // must be zero: C, R, s, Recur, Flags
)

// GRE is one enhanced GRE packet. CallID is the receiver's.
type GRE struct {
	CallID   uint16
	Sequence uint32
	Ack      uint32
	HasSeq   bool // S: a payload follows
	HasAck   bool // A
	Payload  []byte
}

// Errors of DecodeGRE.
var (
	ErrNotEnhanced = errors.New("not enhanced GRE")
	ErrGRE         = errors.New("malformed enhanced GRE")
)

// EncodeGRE gives the packet's bytes after the IP header.
func EncodeGRE(g GRE) []byte {
	flags := uint16(greKey | 1)
	b := make([]byte, 8, 16+len(g.Payload))
	if g.HasSeq {
		flags |= greSequence
		b = binary.BigEndian.AppendUint32(b, g.Sequence)
	}
	if g.HasAck {
		flags |= greAck
		b = binary.BigEndian.AppendUint32(b, g.Ack)
	}
	binary.BigEndian.PutUint16(b[0:], flags)
	binary.BigEndian.PutUint16(b[2:], EtherPPP)
	binary.BigEndian.PutUint16(b[4:], uint16(len(g.Payload)))
	binary.BigEndian.PutUint16(b[6:], g.CallID)
	return append(b, g.Payload...)
}

// DecodeGRE reads what follows the IP header. GRE of another version or
// protocol gives ErrNotEnhanced.
func DecodeGRE(b []byte) (GRE, error) {
	if len(b) < 4 {
		return GRE{}, fmt.Errorf("%w: %d bytes", ErrGRE, len(b))
	}
	flags := binary.BigEndian.Uint16(b[0:])
	if flags&greVersion != 1 || binary.BigEndian.Uint16(b[2:]) != EtherPPP {
		return GRE{}, ErrNotEnhanced
	}
	if flags&greZero != 0 || flags&greKey == 0 {
		return GRE{}, fmt.Errorf("%w: flags %#04x", ErrGRE, flags)
	}
	if len(b) < 8 {
		return GRE{}, fmt.Errorf("%w: %d bytes", ErrGRE, len(b))
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	g := GRE{CallID: binary.BigEndian.Uint16(b[6:]), HasSeq: flags&greSequence != 0, HasAck: flags&greAck != 0}
	rest := b[8:]
	for _, field := range []struct {
		there bool
		to    *uint32
	}{{g.HasSeq, &g.Sequence}, {g.HasAck, &g.Ack}} {
		if !field.there {
			continue
		}
		if len(rest) < 4 {
			return GRE{}, fmt.Errorf("%w: cut in the header", ErrGRE)
		}
		*field.to, rest = binary.BigEndian.Uint32(rest), rest[4:]
	}
	if len(rest) != size || size > 0 && !g.HasSeq {
		return GRE{}, fmt.Errorf("%w: payload length %d, %d bytes follow", ErrGRE, size, len(rest))
	}
	g.Payload = rest
	return g, nil
}

func (g GRE) String() string {
	s := fmt.Sprintf("GRE call %d", g.CallID)
	if g.HasSeq {
		s += fmt.Sprintf(" seq %d", g.Sequence)
	}
	if g.HasAck {
		s += fmt.Sprintf(" ack %d", g.Ack)
	}
	return s + fmt.Sprintf(" length %d", len(g.Payload))
}
