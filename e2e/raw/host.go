package raw

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"pptp-alg/e2e/wire"
)

// Network is the place whose device the host takes; a lab's host is one.
type Network interface {
	Do(fn func() error) error
}

// GRE is an enhanced GRE packet that arrived.
type GRE struct {
	From netip.Addr
	wire.GRE
}

// Host is one address on one device.
type Host struct {
	address netip.Addr
	gateway netip.Addr // next hop of everything; may be on the same segment
	mac     net.HardwareAddr
	index   int
	file    *os.File
	rawConn syscall.RawConn
	done    chan struct{}
	packets uint16 // IP identification of the next packet

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced whenever something arrives
	neighbour net.HardwareAddr
	conns     map[connKey]*Conn
	listening map[uint16]*Listener
	gre       []GRE
	icmp      []*layers.ICMPv4
	faults    []string
}

type connKey struct {
	local  uint16
	remote netip.AddrPort
}

// Open takes over a device that has no address, and resolves the gateway.
func Open(ctx context.Context, n Network, device string, address, gateway netip.Addr) (*Host, error) {
	h := &Host{address: address, gateway: gateway, done: make(chan struct{}), changed: make(chan struct{}),
		conns: map[connKey]*Conn{}, listening: map[uint16]*Listener{}}
	err := n.Do(func() error {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		h.mac, h.index = dev.HardwareAddr, dev.Index
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		// Protocol 0 above and bind after: nothing of other devices gets in.
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: dev.Index}); err != nil {
			_ = unix.Close(fd)
			return err
		}
		h.file = os.NewFile(uintptr(fd), "packet socket")
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open raw host %v: %w", address, err)
	}
	if h.rawConn, err = h.file.SyscallConn(); err != nil {
		_ = h.file.Close()
		return nil, fmt.Errorf("open raw host %v: %w", address, err)
	}
	go h.run()
	if err := h.resolve(ctx); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Close lets go of the device.
func (h *Host) Close() error {
	err := h.file.Close()
	<-h.done
	return err
}

// Address is the host's address.
func (h *Host) Address() netip.Addr { return h.address }

// Faults gives what was wrong with packets that arrived: checksums.
func (h *Host) Faults() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.faults...)
}

// ICMP gives the ICMP messages that arrived.
func (h *Host) ICMP() []*layers.ICMPv4 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*layers.ICMPv4(nil), h.icmp...)
}

// await waits until right, called with h.mu held, says so.
func (h *Host) await(ctx context.Context, what string, right func() bool) error {
	for {
		h.mu.Lock()
		ok, changed := right(), h.changed
		h.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-h.done:
			return fmt.Errorf("%v: %s: %w", h.address, what, net.ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("%v: %s: %w", h.address, what, ctx.Err())
		}
	}
}

// WaitGRE waits for a GRE packet that matches.
func (h *Host) WaitGRE(ctx context.Context, match func(GRE) bool) (found GRE, err error) {
	err = h.await(ctx, "wait for GRE", func() bool {
		for _, g := range h.gre {
			if match(g) {
				found = g
				return true
			}
		}
		return false
	})
	return found, err
}

// Frame sends a whole Ethernet frame.
func (h *Host) frame(b []byte) error {
	var err error
	if waitErr := h.rawConn.Write(func(fd uintptr) bool {
		_, err = unix.Write(int(fd), b)
		return err != unix.EAGAIN && err != unix.EINTR
	}); waitErr != nil {
		return waitErr
	}
	return err
}

// SendIP sends a packet with a payload of one's own.
func (h *Host) SendIP(to netip.Addr, protocol layers.IPProtocol, payload []byte) error {
	return h.send(to, protocol, gopacket.Payload(payload))
}

// SendGRE sends an enhanced GRE packet.
func (h *Host) SendGRE(to netip.Addr, g wire.GRE) error {
	return h.SendIP(to, layers.IPProtocolGRE, wire.EncodeGRE(g))
}

func (h *Host) send(to netip.Addr, protocol layers.IPProtocol, parts ...gopacket.SerializableLayer) error {
	b, err := h.build(to, protocol, parts...)
	if err != nil {
		return err
	}
	return h.frame(b)
}

// SendOdd sends an enhanced GRE packet of which the headers are not as usual: change may alter the IP header, whose
// lengths and checksum are made afterwards.
func (h *Host) SendOdd(to netip.Addr, gre []byte, change func(*layers.IPv4)) error {
	h.mu.Lock()
	next := h.neighbour
	h.mu.Unlock()
	ip := &layers.IPv4{Version: 4, TTL: 64, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolGRE, SrcIP: h.address.AsSlice(), DstIP: to.AsSlice()}
	change(ip)
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: h.mac, DstMAC: next, EthernetType: layers.EthernetTypeIPv4}, ip, gopacket.Payload(gre)); err != nil {
		return fmt.Errorf("build packet: %w", err)
	}
	return h.frame(buf.Bytes())
}

// build makes the frame of an IP packet.
func (h *Host) build(to netip.Addr, protocol layers.IPProtocol, parts ...gopacket.SerializableLayer) ([]byte, error) {
	h.mu.Lock()
	h.packets++
	id := h.packets
	next := h.neighbour
	h.mu.Unlock()
	ip := &layers.IPv4{Version: 4, TTL: 64, Id: id, Flags: layers.IPv4DontFragment, Protocol: protocol,
		SrcIP: h.address.AsSlice(), DstIP: to.AsSlice()}
	for _, p := range parts {
		if tcp, ok := p.(*layers.TCP); ok {
			if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
				return nil, err
			}
		}
	}
	buf := gopacket.NewSerializeBuffer()
	all := append([]gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: h.mac, DstMAC: next, EthernetType: layers.EthernetTypeIPv4}, ip}, parts...)
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...)
	if err != nil {
		return nil, fmt.Errorf("build packet: %w", err)
	}
	return buf.Bytes(), nil
}

func (h *Host) arp(operation uint16, toMAC net.HardwareAddr, toIP netip.Addr) error {
	dst := toMAC
	if dst == nil {
		dst, toMAC = layers.EthernetBroadcast, make(net.HardwareAddr, 6)
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{},
		&layers.Ethernet{SrcMAC: h.mac, DstMAC: dst, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: operation, SourceHwAddress: h.mac, SourceProtAddress: h.address.AsSlice(),
			DstHwAddress: toMAC, DstProtAddress: toIP.AsSlice()})
	if err != nil {
		return fmt.Errorf("build ARP: %w", err)
	}
	return h.frame(buf.Bytes())
}

// resolve asks for the gateway's hardware address until it answers.
func (h *Host) resolve(ctx context.Context) error {
	for {
		if err := h.arp(layers.ARPRequest, nil, h.gateway); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		err := h.await(short, fmt.Sprintf("resolve %v", h.gateway), func() bool { return h.neighbour != nil })
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

func (h *Host) run() {
	defer close(h.done)
	buffer := make([]byte, 65536)
	for {
		var n int
		var from unix.Sockaddr
		var err error
		if waitErr := h.rawConn.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), buffer, 0)
			return err != unix.EAGAIN && err != unix.EINTR
		}); waitErr != nil {
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); err != nil || !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		packet := gopacket.NewPacket(bytes.Clone(buffer[:n]), layers.LayerTypeEthernet, gopacket.NoCopy)
		if arp, ok := packet.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
			h.takeARP(arp)
		}
		if ip, ok := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
			h.takeIP(ip, packet)
		}
		h.mu.Lock()
		close(h.changed)
		h.changed = make(chan struct{})
		h.mu.Unlock()
	}
}

func (h *Host) takeARP(a *layers.ARP) {
	sender, _ := netip.AddrFromSlice(a.SourceProtAddress)
	target, _ := netip.AddrFromSlice(a.DstProtAddress)
	if sender == h.gateway {
		h.mu.Lock()
		h.neighbour = bytes.Clone(a.SourceHwAddress)
		h.mu.Unlock()
	}
	if a.Operation == layers.ARPRequest && target == h.address {
		_ = h.arp(layers.ARPReply, a.SourceHwAddress, sender)
	}
}

func (h *Host) takeIP(ip *layers.IPv4, packet gopacket.Packet) {
	src, _ := netip.AddrFromSlice(ip.SrcIP.To4())
	dst, _ := netip.AddrFromSlice(ip.DstIP.To4())
	if dst != h.address {
		return
	}
	switch ip.Protocol {
	case layers.IPProtocolTCP:
		if tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP); ok {
			if sum := tcpSum(ip); sum != 0xffff {
				h.fault("TCP segment from %v:%d, sequence number %d, with a wrong checksum", src, tcp.SrcPort, tcp.Seq)
			}
			h.takeTCP(src, tcp)
		}
	case layers.IPProtocolICMPv4:
		if icmp, ok := packet.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
			h.mu.Lock()
			h.icmp = append(h.icmp, icmp)
			h.mu.Unlock()
		}
	case layers.IPProtocolGRE:
		if g, err := wire.DecodeGRE(ip.Payload); err == nil {
			h.mu.Lock()
			h.gre = append(h.gre, GRE{src, g})
			h.mu.Unlock()
		}
	}
}

func (h *Host) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, fmt.Sprintf(format, args...))
}

// tcpSum adds up pseudo header and segment; a right checksum makes it 0xffff.
func tcpSum(ip *layers.IPv4) uint16 {
	sum := uint32(ip.Protocol) + uint32(len(ip.Payload))
	add := func(b []byte) {
		for len(b) >= 2 {
			sum += uint32(binary.BigEndian.Uint16(b))
			b = b[2:]
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	add(ip.SrcIP.To4())
	add(ip.DstIP.To4())
	add(ip.Payload)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }
