package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	le = binary.LittleEndian
	be = binary.BigEndian
	at = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	// An IPv4 packet: 10.0.0.1 > 10.0.0.2, protocol 47.
	packet = []byte{0x45, 0, 0, 28, 0, 1, 0, 0, 64, 47, 0x66, 0xa5, 10, 0, 0, 1, 10, 0, 0, 2, 0x20, 1, 0x88, 0x0b, 0, 0, 0, 5}
)

type appendOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// classic makes a pcap of packets, one second apart.
func classic(o appendOrder, magic uint32, link LinkType, packets ...[]byte) []byte {
	b := o.AppendUint32(nil, magic)
	b = o.AppendUint16(b, 2)
	b = o.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = o.AppendUint32(b, 65535)
	b = o.AppendUint32(b, uint32(link))
	for i, p := range packets {
		b = o.AppendUint32(b, uint32(at.Unix()+int64(i)))
		if magic == magicNano {
			b = o.AppendUint32(b, uint32(at.Nanosecond()))
		} else {
			b = o.AppendUint32(b, uint32(at.Nanosecond()/1000))
		}
		b = o.AppendUint32(b, uint32(len(p)))
		b = o.AppendUint32(b, uint32(len(p)+7)) // cut
		b = append(b, p...)
	}
	return b
}

// block frames a block of pcapng.
func block(o appendOrder, kind uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	n := uint32(len(body) + blockFrame)
	b := o.AppendUint32(nil, kind)
	b = o.AppendUint32(b, n)
	b = append(b, body...)
	return o.AppendUint32(b, n)
}

func section(o appendOrder) []byte {
	b := o.AppendUint32(nil, byteOrderMagic)
	b = o.AppendUint16(b, 1)
	b = o.AppendUint16(b, 0)
	return block(o, blockSection, o.AppendUint64(b, ^uint64(0)))
}

// describe makes an interface with options of code, length and value.
func describe(o appendOrder, link LinkType, options ...[]byte) []byte {
	b := o.AppendUint16(nil, uint16(link))
	b = o.AppendUint32(append(b, 0, 0), 65535)
	for _, v := range options {
		b = append(b, v...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return block(o, blockInterface, append(b, 0, 0, 0, 0))
}

func option(o appendOrder, code uint16, v ...byte) []byte {
	return append(o.AppendUint16(o.AppendUint16(nil, code), uint16(len(v))), v...)
}

func enhanced(o appendOrder, iface int, ts uint64, data []byte) []byte {
	b := o.AppendUint32(nil, uint32(iface))
	b = o.AppendUint32(b, uint32(ts>>32))
	b = o.AppendUint32(b, uint32(ts))
	b = o.AppendUint32(b, uint32(len(data)))
	b = o.AppendUint32(b, uint32(len(data)+7))
	return block(o, blockPacket, append(b, data...))
}

// all reads a capture.
func all(t testing.TB, b []byte) (packets []Packet, err error) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			if r.Offset() != int64(len(b)) {
				t.Errorf("read %d of %d bytes", r.Offset(), len(b))
			}
			return packets, nil
		}
		if err != nil {
			return packets, err
		}
		p.Data = bytes.Clone(p.Data)
		packets = append(packets, p)
	}
}

// captures are one packet and another a second later, in every form of file.
func captures() map[string][]byte {
	micro := uint64(at.UnixMicro())
	c := map[string][]byte{}
	for name, o := range map[string]appendOrder{"little": le, "big": be} {
		c[name+" µs"] = classic(o, magicMicro, Raw, packet, packet)
		c[name+" ns"] = classic(o, magicNano, Raw, packet, packet)
		head := append(section(o), block(o, 4, make([]byte, 20))...) // names: passed over
		c[name+" ng"] = slices.Concat(head, describe(o, Raw), enhanced(o, 0, micro, packet),
			block(o, 0x0bad, make([]byte, 8)), enhanced(o, 0, micro+1e6, packet))
		c[name+" ng ns"] = slices.Concat(section(o), describe(o, Ethernet), describe(o, Raw, option(o, 2, 'e', 't', 'h'), option(o, optionResolution, 9)),
			enhanced(o, 1, uint64(at.UnixNano()), packet), enhanced(o, 1, uint64(at.UnixNano())+1e9, packet))
		c[name+" ng 2^-20"] = slices.Concat(section(o), describe(o, Raw, option(o, optionResolution, 0x80|20)),
			enhanced(o, 0, uint64(at.Unix())<<20|129452, packet), enhanced(o, 0, uint64(at.Unix()+1)<<20|129452, packet))
		c[name+" ng offset"] = slices.Concat(section(o), describe(o, Raw, option(o, optionOffset, o.AppendUint64(nil, uint64(at.Unix()-5))...)),
			enhanced(o, 0, 5123456, packet), enhanced(o, 0, 6123456, packet))
		old := o.AppendUint32(nil, 0)
		old = o.AppendUint32(old, uint32(micro>>32))
		old = o.AppendUint32(old, uint32(micro))
		old = o.AppendUint32(old, uint32(len(packet)))
		old = o.AppendUint32(old, uint32(len(packet)+7))
		c[name+" ng old"] = slices.Concat(section(o), describe(o, Raw), block(o, blockOldPacket, append(old, packet...)), enhanced(o, 0, micro+1e6, packet))
	}
	c["ng sections, two"] = slices.Concat(section(le), describe(le, Raw), enhanced(le, 0, micro, packet),
		section(be), describe(be, Raw), enhanced(be, 0, micro+1e6, packet))
	return c
}

func TestFormats(t *testing.T) {
	for name, file := range captures() {
		got, err := all(t, file)
		if err != nil || len(got) != 2 {
			t.Errorf("%s: %d packets, %v", name, len(got), err)
			continue
		}
		for i, p := range got {
			want := at.Add(time.Duration(i) * time.Second)
			if !strings.HasSuffix(name, "ns") {
				want = want.Truncate(time.Microsecond)
			}
			if off := p.Time.Sub(want).Abs(); off > time.Microsecond || off != 0 && !strings.Contains(name, "2^") {
				t.Errorf("%s: packet %d at %v, want %v", name, i, p.Time, want)
			}
			if p.Link != Raw || !bytes.Equal(p.Data, packet) || p.Length != len(packet)+7 {
				t.Errorf("%s: packet %d is %+v", name, i, p)
			}
		}
	}
}

// A simple packet block has no time, and no length beside the packet's.
func TestSimplePacket(t *testing.T) {
	file := slices.Concat(section(le), describe(le, Raw), block(le, blockSimple, append(le.AppendUint32(nil, uint32(len(packet))), packet...)))
	got, err := all(t, file)
	if err != nil || len(got) != 1 || !bytes.Equal(got[0].Data, packet) {
		t.Errorf("%+v, %v", got, err)
	}
}

// tcpdump reads what these tests call captures, and what is written.
func TestTcpdumpReads(t *testing.T) {
	path, err := exec.LookPath("tcpdump")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("tcpdump is missing: apt-get install tcpdump")
		}
		t.Skip("tcpdump is missing")
	}
	files := captures()
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := w.Write(at.Add(time.Duration(i)*time.Second), packet, len(packet)+7); err != nil {
			t.Fatal(err)
		}
	}
	files["written"] = b.Bytes()
	for name, file := range files {
		// libpcap wants no section in another byte order, and no newer interface.
		if strings.Contains(name, "sections") || strings.Contains(name, "ng ns") {
			continue
		}
		f := filepath.Join(t.TempDir(), "x.pcap")
		if err := os.WriteFile(f, file, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(path, "-nn", "-tt", "-r", f).CombinedOutput()
		want := fmt.Sprintf("%d.1234", at.Unix()+1)
		if err != nil || strings.Count(string(out), "10.0.0.1 > 10.0.0.2: GREv1, call 5") != 2 || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestWriter(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err == nil {
		err = w.Write(at, packet, len(packet)+3)
	}
	if err != nil {
		t.Fatal(err)
	}
	if b.Len() != HeaderSize+RecordSize+len(packet) {
		t.Errorf("%d bytes", b.Len())
	}
	got, err := all(t, b.Bytes())
	if err != nil || len(got) != 1 || !got[0].Time.Equal(at) || !bytes.Equal(got[0].Data, packet) || got[0].Length != len(packet)+3 || got[0].Link != Raw {
		t.Errorf("%+v, %v", got, err)
	}
}

// Every link type that a router's capture can have.
func TestLinks(t *testing.T) {
	mac := make([]byte, 12)
	hex := func(b ...byte) []byte { return b }
	pppoe := hex(0x11, 0, 0, 1, 0, 30)
	for _, c := range []struct {
		name string
		link LinkType
		head []byte
	}{
		{"Ethernet", Ethernet, append(mac, 8, 0)},
		{"VLAN", Ethernet, append(mac, 0x81, 0, 0, 5, 8, 0)},
		{"two VLANs", Ethernet, append(mac, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0)},
		{"PPPoE", Ethernet, slices.Concat(mac, hex(0x88, 0x64), pppoe, hex(0, 0x21))},
		{"PPPoE in a VLAN", Ethernet, slices.Concat(mac, hex(0x81, 0, 0, 7, 0x88, 0x64), pppoe, hex(0, 0x21))},
		{"cooked 1", LinuxSLL, append(make([]byte, 14), 8, 0)},
		{"cooked 2", LinuxSLL2, append([]byte{8, 0}, make([]byte, 18)...)},
		{"raw", Raw, nil}, {"raw of BSD", RawBSD, nil}, {"IPv4", RawIPv4, nil},
		{"PPP", PPP, hex(0, 0x21)}, {"PPP with address", PPP, hex(0xff, 3, 0, 0x21)}, {"PPP compressed", PPPSerial, hex(0xff, 3, 0x21)},
		{"PPPoE session", PPPEther, append(pppoe, 0, 0x21)},
		{"loopback", Null, hex(2, 0, 0, 0)}, {"loopback, big-endian", Null, hex(0, 0, 0, 2)}, {"OpenBSD loopback", Loop, hex(0, 0, 0, 2)},
	} {
		p := Packet{Link: c.link, Data: append(slices.Clone(c.head), packet...)}
		if got, ok := p.IPv4(); !ok || !bytes.Equal(got, packet) || !c.link.Known() {
			t.Errorf("%s: %v, %x", c.name, ok, got)
		}
		six := Packet{Link: c.link, Data: append(slices.Clone(c.head), 0x60, 0, 0, 0)}
		if _, ok := six.IPv4(); ok {
			t.Errorf("%s: IPv6 is taken for IPv4", c.name)
		}
		for n := range c.head {
			if cut := (Packet{Link: c.link, Data: c.head[:n]}); func() bool { _, ok := cut.IPv4(); return ok }() {
				t.Errorf("%s: %d bytes of the header suffice", c.name, n)
			}
		}
	}
	arp := Packet{Link: Ethernet, Data: append(mac, 8, 6, 0x45)}
	if _, ok := arp.IPv4(); ok {
		t.Error("ARP is taken for IPv4")
	}
	if LinkType(105).Known() {
		t.Error("IEEE 802.11 is said to be known")
	}
}

// What is wrong with a file is said, with the place.
func TestFaults(t *testing.T) {
	micro := classic(le, magicMicro, Raw, packet)
	huge := bytes.Clone(micro)
	le.PutUint32(huge[24+8:], 1<<31)
	with := func(b []byte, at int, v uint32) []byte {
		b = bytes.Clone(b)
		le.PutUint32(b[at:], v)
		return b
	}
	ng := slices.Concat(section(le), describe(le, Raw))
	for _, c := range []struct {
		name string
		file []byte
		is   error
		want string
	}{
		{"empty", nil, ErrFormat, "0 bytes are too few"},
		{"text", []byte("hello world"), ErrFormat, "neither pcap nor pcapng"},
		{"gzip", []byte{0x1f, 0x8b, 8, 0}, ErrFormat, "gunzip"},
		{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, ErrFormat, "unzstd"},
		{"version", with(micro, 4, 9), ErrFormat, "version 9"},
		{"short header", micro[:20], ErrFormat, ""},
		{"cut record", micro[:30], ErrCut, ""},
		{"cut packet", micro[:len(micro)-1], ErrCut, ""},
		{"huge packet", huge, ErrDamaged, "at byte 24: a packet of 2147483648 bytes"},
		{"no interface", append(section(le), enhanced(le, 0, 1, packet)...), ErrDamaged, "interface 0"},
		{"tiny block", slices.Concat(ng, []byte{6, 0, 0, 0, 8, 0, 0, 0}), ErrDamaged, "a block of 8 bytes"},
		{"odd block", slices.Concat(ng, []byte{6, 0, 0, 0, 33, 0, 0, 0}), ErrDamaged, "a block of 33 bytes"},
		{"huge block", slices.Concat(ng, []byte{6, 0, 0, 0, 0, 0, 0, 16}), ErrDamaged, "a block of 268435456 bytes"},
		{"cut block", slices.Concat(ng, []byte{9, 0, 0, 0, 40, 0, 0, 0, 1}), ErrCut, ""},
		{"short packet block", slices.Concat(ng, block(le, blockPacket, make([]byte, 8))), ErrDamaged, "packet block of 8 bytes"},
		{"packet beyond its block", slices.Concat(ng, block(le, blockPacket, le.AppendUint32(make([]byte, 12), 100))), ErrDamaged, ""},
		{"no byte order", append(section(le)[:8], 1, 2, 3, 4), ErrDamaged, "byte order"},
		{"ng version", with(section(le), 12, 7), ErrFormat, "pcapng version 7"},
	} {
		_, err := all(t, c.file)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// FuzzReader: no file makes the reader panic, read for ever, or take much memory.
func FuzzReader(f *testing.F) {
	for _, c := range captures() {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		for last := int64(-1); ; {
			p, err := r.Next()
			if err != nil {
				return
			}
			if len(p.Data) > len(b) || p.Length < len(p.Data) {
				t.Fatalf("a packet of %d bytes, %d captured, in a file of %d", p.Length, len(p.Data), len(b))
			}
			if r.Offset() <= last {
				t.Fatal("a packet of nothing")
			}
			last = r.Offset()
			p.IPv4()
		}
	})
}
