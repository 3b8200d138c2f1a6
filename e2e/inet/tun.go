package inet

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TUN is a network device whose datagrams are read and written here.
type TUN struct {
	file *os.File
	name string
}

// OpenTUN makes a device with an address, and a route to the others. It is made
// in the network namespace of the calling thread, and goes with Close. name may
// hold "%d", or be empty.
func OpenTUN(name string, local netip.Addr, others netip.Prefix, mtu int) (*TUN, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	if name == "" {
		name = "pptp%d"
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make TUN device %s: %w", name, err)
	}
	t := &TUN{file: os.NewFile(uintptr(fd), "/dev/net/tun"), name: request.Name()}
	if err := t.configure(local, others, mtu); err != nil {
		_ = t.Close()
		return nil, fmt.Errorf("set up TUN device %s: %w", t.name, err)
	}
	return t, nil
}

func (t *TUN) configure(local netip.Addr, others netip.Prefix, mtu int) error {
	link, err := netlink.LinkByName(t.name)
	if err != nil {
		return err
	}
	// The kernel makes the route out of the "peer" address.
	address := &netlink.Addr{IPNet: &net.IPNet{IP: local.AsSlice(), Mask: net.CIDRMask(32, 32)},
		Peer: &net.IPNet{IP: others.Addr().AsSlice(), Mask: net.CIDRMask(others.Bits(), 32)}}
	if err := netlink.AddrAdd(link, address); err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// Name is the device's.
func (t *TUN) Name() string { return t.name }

// Read waits for the next datagram that the kernel sends into the device. It
// gives up when the device is closed.
func (t *TUN) Read(b []byte) (int, error) { return t.file.Read(b) }

// Write hands a datagram to the kernel.
func (t *TUN) Write(b []byte) (int, error) { return t.file.Write(b) }

// Close removes the device.
func (t *TUN) Close() error { return t.file.Close() }
