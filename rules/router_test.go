package rules

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/mdlayher/netlink"
	links "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// How long to wait for what should come, and for what should not. The kernel forwards within the system call that writes
// to the device, so mostly the answer is there at once.
const (
	patience = 10 * time.Second
	glance   = 10 * time.Millisecond
)

// A router is the test's namespace with one interface inside and one outside. Both are TUN devices: what the test writes
// arrives as if from a wire, and what the router sends can be read.
type router struct {
	testing.TB
	kernel        *Kernel
	inside, outer *os.File
}

var (
	client = netip.MustParseAddr("192.168.77.11")
	server = netip.MustParseAddr("203.0.113.2")
	public = netip.MustParseAddr("203.0.113.1") // the router's own, outside
)

func newRouter(t testing.TB, c Config) *router {
	inNewNamespace(t)
	r := &router{TB: t, kernel: dial(t)}
	r.inside = tun(t, "inside", "192.168.77.1/24")
	r.outer = tun(t, "outside", public.String()+"/24")
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	must(t, r.kernel.Apply(installable(t, r.kernel, c)))
	return r
}

func tun(t testing.TB, name, address string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		missing(t, "no TUN devices: "+err.Error())
	}
	request, err := unix.NewIfreq(name)
	must(t, err)
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	file := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { file.Close() })
	link, err := links.LinkByName(name)
	must(t, err)
	parsed, err := links.ParseAddr(address)
	must(t, err)
	must(t, links.AddrAdd(link, parsed))
	must(t, links.LinkSetUp(link))
	return file
}

// receive returns the next IPv4 packet of a protocol that the router sends, or nil.
func (r *router) receive(from *os.File, protocol byte, wait time.Duration) []byte {
	r.Helper()
	buffer := make([]byte, 65536)
	must(r, from.SetReadDeadline(time.Now().Add(wait)))
	for {
		n, err := from.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		must(r, err)
		if p := buffer[:n]; n > 20 && p[0]>>4 == 4 && p[ipProtocol] == protocol {
			return p
		}
	}
}

// put puts a packet on the wire on one side.
func (r *router) put(packet []byte, from *os.File) {
	r.Helper()
	_, err := from.Write(packet)
	must(r, err)
}

// send puts a packet on the wire on one side and returns what comes out on the other.
func (r *router) send(packet []byte, from *os.File) []byte {
	r.Helper()
	r.put(packet, from)
	return r.receive(r.opposite(from), packet[ipProtocol], patience)
}

func (r *router) opposite(side *os.File) *os.File {
	if side == r.inside {
		return r.outer
	}
	return r.inside
}

// passes sends a packet and checks that it comes out with the same payload behind the IP header, the addresses aside; or
// that it does not come out.
func (r *router) passes(want bool, what string, packet []byte, from *os.File) {
	r.Helper()
	wait := patience
	if !want {
		wait = glance
	}
	r.put(packet, from)
	switch out := r.receive(r.opposite(from), packet[ipProtocol], wait); {
	case out == nil && want:
		r.Errorf("%s: did not pass", what)
	case out != nil && !want:
		r.Errorf("%s: passed", what)
	case out != nil && !bytes.Equal(afterIP(out), afterIP(packet)):
		r.Errorf("%s: came out as %x, went in as %x", what, out, packet)
	}
}

func afterIP(p []byte) []byte { return p[int(p[0]&15)*4:] }

// counts checks what the packets since the last call have added to the counters: none of those that are not named.
func (r *router) counts(what string, before map[string]Counter, want map[string]uint64) map[string]Counter {
	r.Helper()
	now, err := r.kernel.Counters()
	must(r, err)
	for name, c := range now {
		if got := c.Packets - before[name].Packets; got != want[name] {
			r.Errorf("%s: counter %s rose by %d, want %d", what, name, got, want[name])
		}
	}
	return now
}

// segment builds an IPv4 packet with a TCP segment. words is the data offset, ipOptions adds four bytes to the IP header.
type segment struct {
	src, dst  netip.AddrPort
	flags     string
	seq, ack  uint32
	payload   string
	words     int
	ipOptions bool
}

func (s segment) packet() []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: s.src.Addr().AsSlice(), DstIP: s.dst.Addr().AsSlice()}
	if s.ipOptions {
		ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	}
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(s.src.Port()), DstPort: layers.TCPPort(s.dst.Port()), Seq: s.seq, Ack: s.ack, Window: 8192,
	}
	for _, f := range s.flags {
		switch f {
		case 'S':
			tcp.SYN = true
		case 'A':
			tcp.ACK = true
		case 'F':
			tcp.FIN = true
		case 'R':
			tcp.RST = true
		case 'P':
			tcp.PSH = true
		}
	}
	for range (max(s.words, 5) - 5) * 4 {
		tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: layers.TCPOptionKindNop})
	}
	tcp.SetNetworkLayerForChecksum(ip)
	buffer := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp, gopacket.Payload(s.payload))
	if err != nil {
		panic(err)
	}
	return buffer.Bytes()
}

// grePacket builds an IPv4 packet around a GRE header and payload.
func grePacket(src, dst netip.Addr, gre []byte) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: layers.IPProtocolGRE, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	buffer := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, gopacket.Payload(gre))
	if err != nil {
		panic(err)
	}
	return buffer.Bytes()
}

// enhanced is an enhanced GRE packet (RFC 2637, section 4.1) with a sequence number.
func enhanced(src, dst netip.Addr, callID uint16, payload string) []byte {
	gre := []byte{0x30, 0x01, 0x88, 0x0b}
	gre = binary.BigEndian.AppendUint16(gre, uint16(len(payload)))
	gre = binary.BigEndian.AppendUint16(gre, callID)
	gre = binary.BigEndian.AppendUint32(gre, 1)
	return grePacket(src, dst, append(gre, payload...))
}

// fragments cuts an IPv4 packet in two after n bytes of payload.
func fragments(packet []byte, n int) [][]byte {
	cut := func(payload []byte, offset int, more bool) []byte {
		ip := &layers.IPv4{
			Version: 4, TTL: 64, Id: 99, Protocol: layers.IPProtocol(packet[ipProtocol]), FragOffset: uint16(offset / 8),
			SrcIP: net.IP(packet[ipSource : ipSource+4]), DstIP: net.IP(packet[ipDestination : ipDestination+4]),
		}
		if more {
			ip.Flags = layers.IPv4MoreFragments
		}
		buffer := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, gopacket.Payload(payload)); err != nil {
			panic(err)
		}
		return bytes.Clone(buffer.Bytes())
	}
	return [][]byte{cut(packet[20:20+n], 0, true), cut(packet[20+n:], n, false)}
}

// IPS_* of an entry that is established, which the daemon adds IPS_FIXED_TIMEOUT to: seen reply, assured, confirmed.
const established = 1<<1 | 1<<2 | 1<<3

// track makes a conntrack entry as the daemon makes them for calls: GRE from src to dst with this Call ID. With a valid
// source the packets leave with that as their source address.
func (r *router) track(src, dst netip.Addr, callID uint16, source netip.Addr, state uint32) {
	r.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	must(r, err)
	defer conn.Close()
	const (
		create                                      = 1 << 8 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW
		tupleOrig, tupleReply, status, timeout, nat = 1, 2, 3, 7, 6
		tupleIP, tupleProto, ipSrc, ipDst           = 1, 2, 1, 2
		protoNum, protoSrc, protoDst                = 1, 2, 3
	)
	tuple := func(src, dst netip.Addr, from, to uint16) func(*netlink.AttributeEncoder) {
		return func(e *netlink.AttributeEncoder) {
			nest(e, tupleIP, func(e *netlink.AttributeEncoder) {
				e.Bytes(ipSrc, src.AsSlice())
				e.Bytes(ipDst, dst.AsSlice())
			})
			nest(e, tupleProto, func(e *netlink.AttributeEncoder) {
				e.Uint8(protoNum, unix.IPPROTO_GRE)
				e.Uint16(protoSrc, from)
				e.Uint16(protoDst, to)
			})
		}
	}
	attributes := encode(func(e *netlink.AttributeEncoder) {
		nest(e, tupleOrig, tuple(src, dst, 0, callID))
		nest(e, tupleReply, tuple(dst, src, callID, 0))
		e.Uint32(status, state)
		e.Uint32(timeout, 3600)
		if source.IsValid() {
			nest(e, nat, func(e *netlink.AttributeEncoder) { e.Bytes(1, source.AsSlice()); e.Bytes(2, source.AsSlice()) })
		}
	})
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: create, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl},
		Data:   append([]byte{unix.AF_INET, 0, 0, 0}, attributes...),
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		missing(r, "no ctnetlink for GRE in this kernel")
	}
	must(r, err)
}
