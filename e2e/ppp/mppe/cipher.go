package mppe

import (
	"encoding/binary"
	"errors"
)

// The header before every encrypted packet (RFC 3078 section 3).
const (
	flushed   = 0x8000 // A: the tables were set up for this packet
	encrypted = 0x1000 // D
	countMask = 0x0fff // coherency count
	countSize = countMask + 1

	headerSize = 2
	// flag is what the low octet of the count is in packets before which a
	// stateful sender changes its key (section 7.3).
	flag = 0xff
)

// Sender encrypts one direction.
type Sender struct {
	*session
	stateless bool
	count     uint16
	restarted bool // say so in the next packet
}

// NewSender starts from the direction's start key.
func NewSender(start []byte, s Strength, stateless bool) *Sender {
	return &Sender{session: newSession(start, s), stateless: stateless}
}

// Seal encrypts a PPP packet, protocol field included.
func (s *Sender) Seal(packet []byte) []byte {
	header := s.count | encrypted
	switch {
	case s.stateless, s.count&flag == flag:
		s.change()
		header |= flushed
	case s.restarted:
		s.restart()
		header |= flushed
	}
	s.restarted = false
	s.count = (s.count + 1) % countSize
	b := make([]byte, headerSize+len(packet))
	binary.BigEndian.PutUint16(b, header)
	s.cipher.XORKeyStream(b[headerSize:], packet)
	return b
}

// Flush makes the next packet one that a receiver can start with: the other
// side has asked for it.
func (s *Sender) Flush() { s.restarted = true }

// Errors of Receiver.Open.
var (
	ErrPacket = errors.New("not an encrypted packet")
	ErrLate   = errors.New("encrypted packet came late, or twice")
	// ErrReset says that the other side has to be asked to start anew.
	ErrReset = errors.New("packets were lost, the cipher has to start anew")
)

// Receiver decrypts one direction.
type Receiver struct {
	*session
	stateless bool
	expected  uint16
	lost      bool
}

// NewReceiver starts from the direction's start key.
func NewReceiver(start []byte, s Strength, stateless bool) *Receiver {
	return &Receiver{session: newSession(start, s), stateless: stateless}
}

// Open decrypts what Seal made. Nothing proves that the contents are right: the
// cipher has no checksum.
func (r *Receiver) Open(b []byte) ([]byte, error) {
	if len(b) < headerSize {
		return nil, ErrPacket
	}
	header := binary.BigEndian.Uint16(b)
	if header&encrypted == 0 {
		return nil, ErrPacket
	}
	count := header & countMask
	ahead := (count - r.expected) & countMask
	// One half of the numbers is ahead, the other behind: else a packet that
	// comes twice looks like 4095 lost ones.
	if ahead >= countSize/2 {
		return nil, ErrLate
	}
	changes := int(ahead) + 1 // section 8.1: a key for each packet, lost ones too
	if !r.stateless {
		changes = 0 // section 8.2: one for each flag packet
		for i := range ahead + 1 {
			if (r.expected+i)&flag == flag {
				changes++
			}
		}
	}
	for range changes {
		r.change()
	}
	r.expected = (count + 1) % countSize
	if !r.stateless {
		r.lost = r.lost || ahead > 0
		if restarted := header&flushed != 0; restarted {
			r.lost = false
			r.restart()
		} else if r.lost {
			return nil, ErrReset
		}
	}
	packet := make([]byte, len(b)-headerSize)
	r.cipher.XORKeyStream(packet, b[headerSize:])
	return packet, nil
}
