package alg

// ReplaceByte updates an Internet checksum for one byte of the data it covers
// (RFC 1624, equation 3). at is the byte's offset from the start of the
// covered data, of which only the parity matters.
//
// The result is right for any stored checksum, whether odd, 0x0000 or 0xffff;
// TCP, unlike UDP, gives zero no special meaning.
func ReplaceByte(sum uint16, at int, old, new byte) uint16 {
	shift := 8
	if at&1 == 1 {
		shift = 0
	}
	s := uint32(^sum) + uint32(^(uint16(old) << shift)) + uint32(new)<<shift
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	return ^uint16(s)
}
