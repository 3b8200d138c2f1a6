package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"pptp-alg/e2e/wire"
)

// Packet is an IPv4 packet seen at a device of a host.
type Packet struct {
	Time     time.Time
	Device   string
	Out      bool // it left through the device; otherwise it arrived
	Src, Dst netip.Addr
	Protocol uint8
	Length   int  // of the IP packet
	Fragment bool // any but a whole packet; the fields below are then empty
	TCP      *layers.TCP
	ICMP     *layers.ICMPv4
	GRE      *wire.GRE      // enhanced GRE
	GREError error          // why protocol 47 is not in GRE
	Control  []wire.Message // whole control messages at the start of a TCP payload
	Payload  []byte         // what follows the IP header, or the TCP header if TCP is set
}

func (p *Packet) String() string {
	way := "in "
	if p.Out {
		way = "out"
	}
	s := fmt.Sprintf("%-4s %s  %-15v > %-15v ", p.Device, way, p.Src, p.Dst)
	switch {
	case p.GRE != nil:
		return s + p.GRE.String()
	case p.TCP != nil:
		var parts []string
		for _, m := range p.Control {
			parts = append(parts, wire.Describe(m))
		}
		if len(parts) == 0 {
			parts = append(parts, fmt.Sprintf("%s %d bytes", flags(p.TCP), len(p.Payload)))
		}
		return s + fmt.Sprintf("TCP %d > %d  %s", p.TCP.SrcPort, p.TCP.DstPort, strings.Join(parts, ", "))
	case p.ICMP != nil:
		return s + "ICMP " + p.ICMP.TypeCode.String()
	case p.GREError != nil:
		return s + fmt.Sprintf("GRE, %v", p.GREError)
	}
	return s + fmt.Sprintf("protocol %d, %d bytes", p.Protocol, p.Length)
}

func flags(t *layers.TCP) string {
	s := ""
	for _, f := range []struct {
		set  bool
		name string
	}{{t.SYN, "S"}, {t.FIN, "F"}, {t.RST, "R"}, {t.PSH, "P"}, {t.ACK, "."}} {
		if f.set {
			s += f.name
		}
	}
	return s
}

// captureLimit bounds a capture's memory; a scenario that sends more filters.
const captureLimit = 200_000

// Capture collects packets at a host's devices.
type Capture struct {
	file    *os.File
	raw     rawConn
	devices map[int]string
	keep    func(*Packet) bool
	done    chan struct{}

	mu      sync.Mutex
	packets []*Packet
	changed chan struct{} // closed and replaced whenever packets grows
	lost    int           // beyond captureLimit
}

type rawConn interface {
	Read(func(fd uintptr) bool) error
}

// Capture starts collecting the IPv4 packets on the named devices (all devices
// when none is named). It ends with the lab.
func (h *Host) Capture(devices ...string) (*Capture, error) {
	return h.CaptureIf(nil, devices...)
}

// CaptureIf is Capture for those packets only that keep wants.
func (h *Host) CaptureIf(keep func(*Packet) bool, devices ...string) (*Capture, error) {
	c := &Capture{devices: map[int]string{}, keep: keep, done: make(chan struct{}), changed: make(chan struct{})}
	links, err := h.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices of %s: %w", h.name, err)
	}
	for _, l := range links {
		for _, want := range devices {
			if l.Attrs().Name == want {
				c.devices[l.Attrs().Index] = want
			}
		}
		if len(devices) == 0 {
			c.devices[l.Attrs().Index] = l.Attrs().Name
		}
	}
	if len(c.devices) < len(devices) {
		return nil, fmt.Errorf("capture on %s: no such device among %v", h.name, devices)
	}
	fd := -1
	err = h.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket on %s: %w", h.name, err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	c.file = os.NewFile(uintptr(fd), "packet socket")
	if c.raw, err = c.file.SyscallConn(); err != nil {
		_ = c.file.Close()
		return nil, fmt.Errorf("open packet socket on %s: %w", h.name, err)
	}
	go c.run()
	h.lab.OnClose(c.Close)
	return c, nil
}

// Close ends the capture; what was captured stays readable.
func (c *Capture) Close() error {
	err := c.file.Close()
	<-c.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (c *Capture) run() {
	defer close(c.done)
	buffer := make([]byte, 65536)
	for {
		var n int
		var from unix.Sockaddr
		var err error
		waitErr := c.raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), buffer, 0)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		if waitErr != nil {
			return // closed
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || !ok || ll.Protocol != htons(unix.ETH_P_IP) || c.devices[ll.Ifindex] == "" {
			continue // ENETDOWN comes once when a device goes away
		}
		p := decode(append([]byte(nil), buffer[:n]...))
		if p == nil {
			continue
		}
		p.Time, p.Device, p.Out = time.Now(), c.devices[ll.Ifindex], ll.Pkttype == unix.PACKET_OUTGOING
		if c.keep != nil && !c.keep(p) {
			continue
		}
		c.mu.Lock()
		if len(c.packets) < captureLimit {
			c.packets = append(c.packets, p)
		} else {
			c.lost++
		}
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
}

func decode(b []byte) *Packet {
	packet := gopacket.NewPacket(b, layers.LayerTypeIPv4, gopacket.DecodeOptions{NoCopy: true, Lazy: true})
	ip, ok := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if !ok {
		return nil
	}
	p := &Packet{Protocol: uint8(ip.Protocol), Length: int(ip.Length), Payload: ip.Payload}
	p.Src, _ = netip.AddrFromSlice(ip.SrcIP.To4())
	p.Dst, _ = netip.AddrFromSlice(ip.DstIP.To4())
	if ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0 {
		p.Fragment = true
		return p
	}
	switch ip.Protocol {
	case layers.IPProtocolTCP:
		if p.TCP, ok = packet.Layer(layers.LayerTypeTCP).(*layers.TCP); !ok {
			p.TCP = nil
			return p
		}
		p.Payload = p.TCP.Payload
		for rest := p.Payload; len(rest) > 0; {
			m, n, err := wire.Decode(rest)
			if err != nil {
				break
			}
			p.Control, rest = append(p.Control, m), rest[n:]
		}
	case layers.IPProtocolICMPv4:
		if p.ICMP, ok = packet.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); !ok {
			p.ICMP = nil
		}
	case wire.ProtocolGRE:
		if g, err := wire.DecodeGRE(ip.Payload); err != nil {
			p.GREError = err
		} else {
			p.GRE = &g
		}
	}
	return p
}

// Packets gives what was captured so far.
func (c *Capture) Packets() []*Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Packet(nil), c.packets...)
}

// Find gives the captured packets that match.
func (c *Capture) Find(match func(*Packet) bool) []*Packet {
	var found []*Packet
	for _, p := range c.Packets() {
		if match(p) {
			found = append(found, p)
		}
	}
	return found
}

// Wait blocks until a packet matches, one from before the call included.
func (c *Capture) Wait(ctx context.Context, match func(*Packet) bool) (*Packet, error) {
	for seen := 0; ; {
		c.mu.Lock()
		fresh, changed := c.packets[seen:], c.changed
		c.mu.Unlock()
		for _, p := range fresh {
			if match(p) {
				return p, nil
			}
		}
		seen += len(fresh)
		select {
		case <-changed:
		case <-c.done:
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a packet: none of %d matched: %w", seen, ctx.Err())
		}
	}
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
