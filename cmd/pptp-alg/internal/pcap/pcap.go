package pcap

import (
	"errors"
	"fmt"
	"time"
)

// Packet is one packet of a capture.
type Packet struct {
	Time time.Time
	Link LinkType
	// Data are the bytes that were captured. They are the reader's, until its
	// next packet.
	Data []byte
	// Length is how long the packet was, in bytes. Where the capture was made
	// with a snapshot length it can be more than len(Data).
	Length int
}

// LinkType says what a packet begins with (the registry is
// https://www.tcpdump.org/linktypes.html).
type LinkType uint16

// The link types that are understood.
const (
	Null      LinkType = 0 // BSD loopback: the address family in the byte order of who captured
	Ethernet  LinkType = 1
	PPP       LinkType = 9
	RawBSD    LinkType = 12 // raw IP, as some systems number it
	RawBSD2   LinkType = 14
	PPPSerial LinkType = 50
	PPPEther  LinkType = 51 // a PPPoE session
	Raw       LinkType = 101
	Loop      LinkType = 108 // OpenBSD loopback: the address family, big-endian
	LinuxSLL  LinkType = 113 // "any", version 1
	RawIPv4   LinkType = 228
	LinuxSLL2 LinkType = 276 // "any", version 2
)

// Errors of a file. They come wrapped, with the place.
var (
	// ErrFormat says that it is no capture.
	ErrFormat = errors.New("not a capture")
	// ErrDamaged says that it cannot be read from here on.
	ErrDamaged = errors.New("the file is damaged")
	// ErrCut says that the file ends in the middle of a packet: whoever wrote
	// it was stopped, or the copy is not complete.
	ErrCut = errors.New("the file ends in the middle of a packet")
)

// maxPacket bounds one packet, in bytes. libpcap's own bound is 256 KB.
const maxPacket = 1 << 20

func damaged(at int64, format string, args ...any) error {
	return fmt.Errorf("%w at byte %d: %s", ErrDamaged, at, fmt.Sprintf(format, args...))
}
