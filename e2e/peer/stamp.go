package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A stamp is a payload that says which call it belongs to. Layout, big-endian:
//
//	0  4  magic
//	4  1  kind
//	5  3  zero
//	8  8  token of the call
//	16 4  counter
//	20 4  length of the whole payload
//	24    bytes that follow from all of the above
const (
	stampSize  = 24
	stampMagic = 0x9b1d57a3
)

// kind says who says what. The two directions differ, so that a packet that
// comes back to its sender is noticed.
type kind uint8

const (
	askCaller  kind = 1 + iota // asked by the side that placed the call
	toldCaller                 // its answer
	askCalled                  // asked by the other side
	toldCalled                 // its answer
)

func (k kind) String() string {
	return [...]string{"?", "caller's question", "answer to the caller", "called side's question", "answer to the called side"}[min(k, 5)%5]
}

var errStamp = errors.New("payload is not what any peer sent")

func makeStamp(k kind, token uint64, counter uint32, size int) []byte {
	size = max(size, stampSize)
	b := make([]byte, size)
	binary.BigEndian.PutUint32(b[0:], stampMagic)
	b[4] = byte(k)
	binary.BigEndian.PutUint64(b[8:], token)
	binary.BigEndian.PutUint32(b[16:], counter)
	binary.BigEndian.PutUint32(b[20:], uint32(size))
	fillStamp(b)
	return b
}

// fillStamp writes the bytes after the header: a generator started with it.
func fillStamp(b []byte) {
	x := binary.BigEndian.Uint64(b[8:]) ^ uint64(binary.BigEndian.Uint32(b[16:]))<<8 ^ uint64(b[4]) | 1
	for i := stampSize; i < len(b); i++ {
		x ^= x << 13 // xorshift64
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
}

// readStamp checks every byte.
func readStamp(b []byte) (k kind, token uint64, counter uint32, err error) {
	if len(b) < stampSize || binary.BigEndian.Uint32(b) != stampMagic || int(binary.BigEndian.Uint32(b[20:])) != len(b) {
		return 0, 0, 0, fmt.Errorf("%w: %d bytes, starting %x", errStamp, len(b), b[:min(len(b), 8)])
	}
	k, token, counter = kind(b[4]), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])
	want := makeStamp(k, token, counter, len(b))
	for i := range b {
		if b[i] != want[i] {
			return 0, 0, 0, fmt.Errorf("%w: byte %d of %d is %#x instead of %#x", errStamp, i, len(b), b[i], want[i])
		}
	}
	return k, token, counter, nil
}
