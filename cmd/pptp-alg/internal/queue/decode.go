package queue

import (
	"errors"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Why a packet is not a segment for us. They are values so that no packet can
// cost an allocation or a line in the log.
var (
	errMalformed = errors.New("malformed")
	errFragment  = errors.New("fragment")
	errNotTCP    = errors.New("not IPv4 TCP")
	errTruncated = errors.New("longer than the queue copies")
)

// minTCPHeader is the length of a TCP header without options.
const minTCPHeader = 20

// A decoder decodes IPv4 and TCP headers into layers that it reuses. It
// allocates nothing for a well-formed segment, and is not for concurrent use.
type decoder struct {
	ip      layers.IPv4
	tcp     layers.TCP
	parser  *gopacket.DecodingLayerParser
	decoded []gopacket.LayerType
}

func newDecoder() *decoder {
	d := &decoder{decoded: make([]gopacket.LayerType, 0, 2)}
	d.parser = gopacket.NewDecodingLayerParser(layers.LayerTypeIPv4, &d.ip, &d.tcp)
	// What follows TCP is ours to understand, and other protocols are no error.
	d.parser.IgnoreUnsupported = true
	return d
}

// decode fills the decoded fields of p from p.Data.
func (d *decoder) decode(p *Packet) error {
	if len(p.Data) == 0 {
		return errMalformed
	}
	if p.Data[0]>>4 != 4 { // gopacket reads the version and does not judge it
		return errNotTCP
	}
	// The error of DecodeLayers is judged below, by how far it came.
	err := d.parser.DecodeLayers(p.Data, &d.decoded)
	if len(d.decoded) == 0 {
		return errMalformed
	}
	if d.ip.Flags&layers.IPv4MoreFragments != 0 || d.ip.FragOffset != 0 {
		return errFragment
	}
	if d.ip.Protocol != layers.IPProtocolTCP {
		return errNotTCP
	}
	// gopacket takes a total length of 0 for an offloaded packet. None arrives
	// here, see the package comment, and conntrack lets no such packet through.
	// A total length beyond the data is a packet that was cut.
	ip := d.ip.Payload
	if len(ip) < minTCPHeader || int(totalLength(p.Data)) != len(d.ip.Contents)+len(ip) {
		return errMalformed
	}
	header := int(d.tcp.DataOffset) * 4
	if header < minTCPHeader || header > len(ip) {
		return errMalformed
	}
	// With the offset right, an error can only be about the options. Receivers
	// such as Linux ignore options they cannot read and take the payload, so it
	// belongs to the stream. gopacket has set the fixed fields by then.
	_ = err

	src, _ := netip.AddrFromSlice(d.ip.SrcIP)
	dst, _ := netip.AddrFromSlice(d.ip.DstIP)
	p.Src = netip.AddrPortFrom(src, uint16(d.tcp.SrcPort))
	p.Dst = netip.AddrPortFrom(dst, uint16(d.tcp.DstPort))
	p.Seq, p.Ack = d.tcp.Seq, d.tcp.Ack
	p.Flags = flags(&d.tcp)
	p.Payload = ip[header:]
	p.tcp = len(d.ip.Contents)
	return nil
}

// totalLength reads the total length of an IPv4 packet (RFC 791, section 3.1).
func totalLength(ip []byte) uint16 { return uint16(ip[2])<<8 | uint16(ip[3]) }

func flags(t *layers.TCP) Flags {
	var f Flags
	for _, b := range [...]struct {
		set bool
		bit Flags
	}{{t.FIN, FIN}, {t.SYN, SYN}, {t.RST, RST}, {t.PSH, PSH}, {t.ACK, ACK}, {t.URG, URG}} {
		if b.set {
			f |= b.bit
		}
	}
	return f
}
