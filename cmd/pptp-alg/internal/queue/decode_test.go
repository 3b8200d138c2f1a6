package queue

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// segment builds an IPv4 TCP packet by hand; the test shares no code with the
// decoder. Option lengths must be multiples of four.
func segment(ipOptions, tcpOptions []byte, payload string) []byte {
	ip := make([]byte, 20, 20+len(ipOptions))
	ip[0] = 0x40 | byte(5+len(ipOptions)/4)
	binary.BigEndian.PutUint16(ip[2:], uint16(40+len(ipOptions)+len(tcpOptions)+len(payload)))
	ip[8], ip[9] = 64, 6
	copy(ip[12:], []byte{192, 0, 2, 1})
	copy(ip[16:], []byte{198, 51, 100, 2})
	ip = append(ip, ipOptions...)

	tcp := make([]byte, 20, 20+len(tcpOptions))
	binary.BigEndian.PutUint16(tcp[0:], 40000)
	binary.BigEndian.PutUint16(tcp[2:], 1723)
	binary.BigEndian.PutUint32(tcp[4:], 0xfffffff0)
	binary.BigEndian.PutUint32(tcp[8:], 77)
	tcp[12] = byte(5+len(tcpOptions)/4) << 4
	tcp[13] = byte(PSH | ACK)
	binary.BigEndian.PutUint16(tcp[16:], 0xbeef)
	tcp = append(tcp, tcpOptions...)
	return append(append(ip, tcp...), payload...)
}

func TestDecode(t *testing.T) {
	routerAlert := []byte{148, 4, 0, 0}
	timestamps := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	for name, data := range map[string][]byte{
		"plain":                segment(nil, nil, "payload"),
		"TCP options":          segment(nil, timestamps, "payload"),
		"IP options":           segment(routerAlert, nil, "payload"),
		"both":                 segment(routerAlert, timestamps, "payload"),
		"after link padding":   append(segment(nil, nil, "payload"), 0, 0, 0),
		"broken TCP options":   segment(nil, []byte{8, 0, 0, 0}, "payload"),
		"overlong TCP options": segment(nil, []byte{8, 40, 0, 0}, "payload"),
	} {
		t.Run(name, func(t *testing.T) {
			p := &Packet{Data: data}
			if err := decode(p); err != nil {
				t.Fatal(err)
			}
			if want := netip.MustParseAddrPort("192.0.2.1:40000"); p.Src != want {
				t.Errorf("source %v, want %v", p.Src, want)
			}
			if want := netip.MustParseAddrPort("198.51.100.2:1723"); p.Dst != want {
				t.Errorf("destination %v, want %v", p.Dst, want)
			}
			if p.Seq != 0xfffffff0 || p.Ack != 77 {
				t.Errorf("seq %#x, ack %d", p.Seq, p.Ack)
			}
			if p.Flags != PSH|ACK || p.Flags.String() != "PSH,ACK" {
				t.Errorf("flags %v", p.Flags)
			}
			if string(p.Payload) != "payload" {
				t.Errorf("payload %q", p.Payload)
			}
			if p.Checksum() != 0xbeef {
				t.Errorf("checksum %#x", p.Checksum())
			}
			// Writes go to the packet that the verdict sends.
			p.SetChecksum(0x1234)
			p.Payload[0] = 'P'
			if !bytes.Contains(data, []byte("Payload")) || !bytes.Contains(data, []byte{0x12, 0x34}) {
				t.Error("Payload or checksum is not a part of Data")
			}
		})
	}
}

func TestDecodeFlags(t *testing.T) {
	for f := range Flags(64) {
		p := &Packet{Data: segment(nil, nil, "")}
		p.Data[33] = byte(f)
		if err := decode(p); err != nil || p.Flags != f {
			t.Errorf("flags %#x decode as %#x, %v", byte(f), byte(p.Flags), err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	edit := func(at int, b ...byte) []byte {
		data := segment(nil, nil, "payload")
		copy(data[at:], b)
		return data
	}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":               {nil, errMalformed},
		"half an IP header":     {segment(nil, nil, "")[:12], errMalformed},
		"half a TCP header":     {edit(2, 0, 30)[:30], errMalformed},
		"IPv6":                  {edit(0, 0x60), errNotTCP},
		"UDP":                   {edit(9, 17), errNotTCP},
		"GRE":                   {edit(9, 47), errNotTCP},
		"first fragment":        {edit(6, 0x20, 0), errFragment},
		"later fragment":        {edit(6, 0, 10), errFragment},
		"later fragment of UDP": {append(edit(6, 0, 10)[:9], append([]byte{17}, edit(0, 0)[10:]...)...), errFragment},
		"IP header too short":   {edit(0, 0x44), errMalformed},
		"IP header too long":    {edit(0, 0x4f)[:30], errMalformed},
		"total length 0":        {edit(2, 0, 0), errMalformed},
		"total length too long": {edit(2, 1, 0), errMalformed},
		"data offset too small": {edit(32, 0x40), errMalformed},
		"data offset too large": {edit(32, 0xf0), errMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			before := bytes.Clone(c.data)
			if err := decode(&Packet{Data: c.data}); err != c.want {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if !bytes.Equal(before, c.data) {
				t.Error("the packet was changed")
			}
		})
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	p := &Packet{Data: segment(nil, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, "payload")}
	if n := testing.AllocsPerRun(100, func() { decode(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Any bytes: no panic, no change, what is decoded lies within the data, and gopacket
// reads the same.
func FuzzDecode(f *testing.F) {
	f.Add(segment(nil, nil, "payload"))
	f.Add(segment([]byte{148, 4, 0, 0}, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, "payload"))
	f.Add(segment(nil, []byte{8, 0, 0, 0}, ""))
	f.Add(segment(nil, nil, "")[:30])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		p := &Packet{Data: data}
		err := decode(p)
		if !bytes.Equal(before, data) {
			t.Fatal("the packet was changed")
		}
		if err != nil {
			return
		}
		ihl := int(data[0]&15) * 4
		total := int(binary.BigEndian.Uint16(data[2:]))
		packet := gopacket.NewPacket(data, layers.LayerTypeIPv4, gopacket.NoCopy)
		ip, _ := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		if ip == nil || ip.Protocol != layers.IPProtocolTCP || ip.Flags&layers.IPv4MoreFragments != 0 || ip.FragOffset != 0 ||
			!ip.SrcIP.Equal(p.Src.Addr().AsSlice()) || !ip.DstIP.Equal(p.Dst.Addr().AsSlice()) {
			t.Fatalf("gopacket reads %v of % x", packet, data)
		}
		// It gives up at options that it cannot read.
		if tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP); ok && (uint16(tcp.SrcPort) != p.Src.Port() ||
			uint16(tcp.DstPort) != p.Dst.Port() || tcp.Seq != p.Seq || tcp.Ack != p.Ack || !bytes.Equal(tcp.Payload, p.Payload)) {
			t.Fatalf("gopacket reads %v of % x", packet, data)
		}
		offset := int(data[ihl+12]>>4) * 4
		if data[0]>>4 != 4 || data[9] != 6 || data[6]&0x3f != 0 || data[7] != 0 {
			t.Fatalf("decoded % x", data)
		}
		if !bytes.Equal(p.Payload, data[ihl+offset:total]) {
			t.Fatalf("payload % x of % x", p.Payload, data)
		}
		if p.Src.Port() != binary.BigEndian.Uint16(data[ihl:]) || p.Checksum() != binary.BigEndian.Uint16(data[ihl+16:]) {
			t.Fatalf("wrong place of the TCP header in % x", data)
		}
		if p.Seq != binary.BigEndian.Uint32(data[ihl+4:]) || byte(p.Flags) != data[ihl+13]&0x3f {
			t.Fatalf("seq %d, flags %v of % x", p.Seq, p.Flags, data)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	p := &Packet{Data: segment(nil, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, strings.Repeat("x", 168))}
	b.ReportAllocs()
	for b.Loop() {
		decode(p)
	}
}

func TestParseKernels(t *testing.T) {
	list, err := parseKernels(strings.NewReader(
		" 1723   1234     5 2 65531     6     7       89  1\n" +
			"    2 4294967295     0 2 65531     0     0        0  1\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Kernel{
		{Queue: 1723, PortID: 1234, Waiting: 5, QueueDropped: 6, SocketDropped: 7, Sequence: 89},
		{Queue: 2, PortID: 4294967295},
	}
	if len(list) != 2 || list[0] != want[0] || list[1] != want[1] {
		t.Errorf("got %+v", list)
	}
	for _, s := range []string{"1 2 3\n", "1 2 3 4 5 6 seven 8 1\n"} {
		if _, err := parseKernels(strings.NewReader(s)); err == nil {
			t.Errorf("no error for %q", s)
		}
	}
}
