package mschap

import (
	"encoding/binary"
	"math/bits"
)

// md4 is the digest of RFC 1320. The standard library has none, for good
// reasons, and MS-CHAP needs it of one short block only: no streaming here.
func md4(message []byte) [16]byte {
	// Padding: a one bit, zeros, the length in bits (sections 3.1 and 3.2).
	padded := append([]byte(nil), message...)
	padded = append(padded, 0x80)
	for len(padded)%64 != 56 {
		padded = append(padded, 0)
	}
	padded = binary.LittleEndian.AppendUint64(padded, uint64(len(message))*8)

	state := [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476} // section 3.3
	for ; len(padded) > 0; padded = padded[64:] {
		var x [16]uint32
		for i := range x {
			x[i] = binary.LittleEndian.Uint32(padded[4*i:])
		}
		md4Block(&state, &x)
	}
	var digest [16]byte
	for i, word := range state {
		binary.LittleEndian.PutUint32(digest[4*i:], word)
	}
	return digest
}

// md4Rounds are the three rounds of section 3.4: the mixing function, what is
// added, in which order the words of the block come, and the four rotations.
var md4Rounds = [3]struct {
	mix    func(x, y, z uint32) uint32
	add    uint32
	order  [16]int
	rotate [4]int
}{
	{func(x, y, z uint32) uint32 { return x&y | ^x&z }, 0,
		[16]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, [4]int{3, 7, 11, 19}},
	{func(x, y, z uint32) uint32 { return x&y | x&z | y&z }, 0x5a827999,
		[16]int{0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15}, [4]int{3, 5, 9, 13}},
	{func(x, y, z uint32) uint32 { return x ^ y ^ z }, 0x6ed9eba1,
		[16]int{0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15}, [4]int{3, 9, 11, 15}},
}

func md4Block(state *[4]uint32, x *[16]uint32) {
	a, b, c, d := state[0], state[1], state[2], state[3]
	for _, r := range md4Rounds {
		for i, k := range r.order {
			a, b, c, d = d, bits.RotateLeft32(a+r.mix(b, c, d)+x[k]+r.add, r.rotate[i%4]), b, c
		}
	}
	state[0] += a
	state[1] += b
	state[2] += c
	state[3] += d
}
