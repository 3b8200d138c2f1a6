//go:build !nofastpath

package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The lab: a router between two hosts, in network namespaces that end with the test.

// missing says that the machine cannot run a test. Where CI is set that is a failure.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("cannot run here: "+format, args...)
	}
	t.Skipf("cannot run here: "+format, args...)
}

// A host is a network namespace with a thread of its own.
type host struct {
	t    testing.TB
	jobs chan func()
	fd   int
	raw  int // a socket for IP packets of protocol 47
}

func newHost(t testing.TB) *host {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "not root")
	}
	h := &host{t: t, jobs: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ready <- h.enter()
		for job := range h.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		missing(t, "%v", err)
	}
	t.Cleanup(func() {
		close(h.jobs)
		unix.Close(h.fd)
		unix.Close(h.raw)
	})
	return h
}

func (h *host) enter() (err error) {
	if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if h.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	if h.raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_GRE); err != nil {
		return err
	}
	return unix.SetsockoptInt(h.raw, unix.IPPROTO_IP, unix.IP_HDRINCL, 1)
}

// do runs f in the host.
func (h *host) do(f func() error) {
	h.t.Helper()
	done := make(chan error)
	h.jobs <- func() { done <- f() }
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
}

// set writes a setting below /proc/sys/net/ipv4.
func (h *host) set(name, value string) {
	h.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0) })
}

// lab is 192.168.1.2 - router - 10.0.0.2, where the router has .1.
type lab struct {
	inner, router, outer *host
	in, out              int // the router's links
}

var (
	innerAddr  = netip.MustParseAddr("192.168.1.2")
	routerAddr = netip.MustParseAddr("10.0.0.1")
	outerAddr  = netip.MustParseAddr("10.0.0.2")
)

// newLab makes a router that forwards nothing by itself.
func newLab(t testing.TB) *lab {
	l := &lab{inner: newHost(t), router: newHost(t), outer: newHost(t)}
	l.in = l.wire(l.inner, "192.168.1.1/24", "192.168.1.2/24")
	l.out = l.wire(l.outer, "10.0.0.1/24", "10.0.0.2/24")
	l.router.set("ip_forward", "0")
	return l
}

// wire connects a host with the router and returns the router's link.
func (l *lab) wire(h *host, router, addr string) (link int) {
	l.router.do(func() error {
		name := "lan"
		if h == l.outer {
			name = "wan"
		}
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.fd)})
		if err != nil {
			return err
		}
		link, err = up(name, router)
		return err
	})
	h.do(func() error {
		if _, err := up("eth0", addr); err != nil {
			return err
		}
		gateway, _ := netlink.ParseAddr(router)
		return netlink.RouteAdd(&netlink.Route{Gw: gateway.IP})
	})
	return link
}

func up(name, addr string) (int, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
}

// open opens a path in the router.
func (l *lab) open(o Options) *Path {
	l.router.t.Helper()
	if o.Entries == 0 {
		o.Entries = 64
	}
	var p *Path
	l.router.do(func() (err error) {
		p, err = Open(o)
		return err
	})
	l.router.t.Cleanup(func() {
		if p.closed {
			return
		}
		l.router.do(p.Close)
	})
	return p
}

// packet is an enhanced GRE packet with some payload; change makes it another one before its checksum is made.
func packet(from Tuple, ttl byte, payload int, change func(ip []byte) []byte) []byte {
	b := make([]byte, 36+payload)
	b[0], b[8], b[9] = 0x45, ttl, unix.IPPROTO_GRE
	binary.BigEndian.PutUint16(b[4:], 4711)
	src, dst := from.Src.As4(), from.Dst.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	copy(b[20:], []byte{0x30, 0x81, 0x88, 0x0b})
	binary.BigEndian.PutUint16(b[24:], uint16(payload))
	binary.BigEndian.PutUint16(b[26:], from.CallID)
	binary.BigEndian.PutUint32(b[28:], 77)
	for i := range payload {
		b[36+i] = byte(i)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if change != nil {
		b = change(b)
	}
	header := b[:4*(b[0]&15)]
	header[10], header[11] = 0, 0
	binary.BigEndian.PutUint16(header[10:], ^checksum(header))
	return b
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// send sends an IP packet as it is; but the kernel fills in its checksum.
func (h *host) send(p []byte) {
	h.t.Helper()
	to := unix.SockaddrInet4{Addr: [4]byte(p[16:20])}
	if err := unix.Sendto(h.raw, p, 0, &to); err != nil {
		h.t.Fatal(err)
	}
}

// receive returns the next GRE packet that comes to the host; nil if none comes for that long.
func (h *host) receive(patience time.Duration) []byte {
	h.t.Helper()
	wait := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(h.raw, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		h.t.Fatal(err)
	}
	b := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(h.raw, b, 0)
		switch err {
		case nil:
			return b[:n]
		case unix.EINTR:
		case unix.EAGAIN:
			return nil
		default:
			h.t.Fatal(err)
		}
	}
}

// long is how long a packet may take that has to come.
const long = 10 * time.Second

// fix makes a header's checksum right again.
func fix(b []byte) {
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^checksum(b[:20]))
}

// sendFrame sends an IP packet by way of the router as it is, checksum and length included.
func (h *host) sendFrame(p []byte) {
	h.t.Helper()
	h.do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		neighbours, err := netlink.NeighList(link.Attrs().Index, unix.AF_INET)
		if err != nil {
			return err
		}
		for _, n := range neighbours {
			if len(n.HardwareAddr) != 6 {
				continue
			}
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			to := unix.SockaddrLinklayer{Protocol: bits.ReverseBytes16(unix.ETH_P_IP), Ifindex: link.Attrs().Index, Halen: 6}
			if bigEndian {
				to.Protocol = unix.ETH_P_IP
			}
			copy(to.Addr[:], n.HardwareAddr)
			return unix.Sendto(fd, p, 0, &to)
		}
		return errors.New("the router's Ethernet address is not known")
	})
}

// A tun is a device of the router; what the test writes arrives at the router, and what leaves the test reads.
type tun struct {
	t    testing.TB
	file *os.File
	link int
}

func (l *lab) tun(name string) *tun {
	u := &tun{t: l.router.t}
	l.router.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return err
		}
		u.file = os.NewFile(uintptr(fd), name)
		device, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		u.link = device.Attrs().Index
		return netlink.LinkSetUp(device)
	})
	u.t.Cleanup(func() { u.file.Close() })
	return u
}

func (u *tun) send(p []byte) {
	u.t.Helper()
	if _, err := u.file.Write(p); err != nil {
		u.t.Fatal(err)
	}
}

// receive returns the next GRE packet.
func (u *tun) receive() []byte {
	u.t.Helper()
	u.file.SetReadDeadline(time.Now().Add(long))
	b := make([]byte, 4096)
	for {
		n, err := u.file.Read(b)
		if err != nil {
			u.t.Fatal(err)
		}
		if n >= 20 && b[0]>>4 == 4 && b[9] == unix.IPPROTO_GRE {
			return b[:n]
		}
	}
}
