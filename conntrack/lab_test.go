package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The lab: network namespaces, each with a thread of its own that ends with it.

// missing says that the machine cannot run a test. Where CI is set that is a failure, so that
// nothing goes untested unnoticed.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("cannot run here: "+format, args...)
	}
	t.Skipf("cannot run here: "+format, args...)
}

// A namespace is a network namespace that lasts as long as its test.
type namespace struct {
	t    testing.TB
	jobs chan func()
	fd   int // of the namespace, for moving devices into it
}

// newNamespace makes a namespace with its loopback up and forwarding on.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "not root")
	}
	n := &namespace{t: t, jobs: make(chan func()), fd: -1}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread dies with the goroutine, instead of returning to
		// the others while it is in another namespace.
		runtime.LockOSThread()
		ready <- n.enter()
		for job := range n.jobs {
			job()
		}
	}()
	t.Cleanup(func() {
		close(n.jobs)
		if n.fd >= 0 {
			unix.Close(n.fd)
		}
	})
	if err := <-ready; err != nil {
		missing(t, "%v", err)
	}
	return n
}

func (n *namespace) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	n.fd = fd
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// do runs f in the namespace. f must not call t.Fatal.
func (n *namespace) do(f func() error) error {
	done := make(chan error, 1)
	n.jobs <- func() {
		err := errors.New("panicked or ended its goroutine")
		defer func() { done <- err }()
		err = f()
	}
	return <-done
}

// must runs f in the namespace, and ends the test if it fails.
func (n *namespace) must(f func() error) {
	n.t.Helper()
	if err := n.do(f); err != nil {
		n.t.Fatal(err)
	}
}

// client opens a Client in the namespace.
func (n *namespace) client() *Client {
	n.t.Helper()
	var c *Client
	n.must(func() (err error) {
		c, err = Dial()
		return err
	})
	n.t.Cleanup(func() { c.Close() })
	return c
}

// listen opens Events in the namespace.
func (n *namespace) listen(ports ...uint16) *Events {
	n.t.Helper()
	var e *Events
	n.must(func() (err error) {
		e, err = Listen(ports)
		return err
	})
	n.t.Cleanup(func() { e.Close() })
	return e
}

var pairs int

// connect makes a host: a namespace on a cable to n, with the addresses (such as
// "192.168.77.11/24") of both ends, and n as its router.
func (n *namespace) connect(address, router string) *namespace {
	n.t.Helper()
	h := newNamespace(n.t)
	pairs++
	name := fmt.Sprintf("v%d", pairs)
	n.must(func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0"}
		if err := netlink.LinkAdd(v); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		peer, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetNsFd(peer, h.fd); err != nil {
			return err
		}
		return addAddress(name, router)
	})
	h.must(func() error {
		if err := addAddress("eth0", address); err != nil {
			return err
		}
		gw := netip.MustParsePrefix(router).Addr()
		return netlink.RouteAdd(&netlink.Route{Gw: gw.AsSlice()})
	})
	return h
}

func addAddress(link, address string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return fmt.Errorf("add address %s to %s: %w", address, link, err)
	}
	return netlink.LinkSetUp(l)
}

// rules adds a table to the namespace.
func (n *namespace) rules(build func(c *nftables.Conn, t *nftables.Table)) {
	n.t.Helper()
	n.must(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		build(c, c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "test"}))
		if err := c.Flush(); err != nil {
			return fmt.Errorf("add rules: %w", err)
		}
		return nil
	})
}

// natChain adds an empty NAT chain, and a rule that mentions conntrack: the least that entries of
// ours need to be translated. (A chain of type nat alone does not switch connection tracking on.)
func natChain(c *nftables.Conn, t *nftables.Table) {
	c.AddChain(&nftables.Chain{Name: "nat", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	chain := c.AddChain(&nftables.Chain{Name: "track", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1}}})
}

// sourceNAT translates the source of TCP packets from one address to another.
func sourceNAT(from, to string) func(*nftables.Conn, *nftables.Table) {
	return func(c *nftables.Conn, t *nftables.Table) {
		chain := c.AddChain(&nftables.Chain{Name: "snat", Table: t, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		exprs := append(matchAddress(12, from), matchTCP()...)
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(exprs,
			&expr.Immediate{Register: 1, Data: addr(to).AsSlice()},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1})})
	}
}

// destinationNAT translates the destination.
func destinationNAT(from, to string) func(*nftables.Conn, *nftables.Table) {
	return func(c *nftables.Conn, t *nftables.Table) {
		chain := c.AddChain(&nftables.Chain{Name: "dnat", Table: t, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
		exprs := append(matchAddress(16, from), matchTCP()...)
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(exprs,
			&expr.Immediate{Register: 1, Data: addr(to).AsSlice()},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1})})
	}
}

// zoneAll puts every packet into a zone.
func zoneAll(id uint16) func(*nftables.Conn, *nftables.Table) {
	return func(c *nftables.Conn, t *nftables.Table) {
		chain := c.AddChain(&nftables.Chain{Name: "zone", Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint16(nil, id)},
			&expr.Ct{Key: expr.CtKeyZONE, Register: 1, SourceRegister: true}}})
	}
}

func matchAddress(offset uint32, a string) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr(a).AsSlice()},
	}
}

func matchTCP() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocolTCP}},
	}
}

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// grePacket is what a host saw of a GRE packet.
type grePacket struct {
	GRE
	payload string
}

// enhancedGRE builds a packet by RFC 2637 section 4.1, with sequence number.
func enhancedGRE(callID uint16, payload string) []byte {
	b := []byte{0x30, 0x01, 0x88, 0x0b} // key and sequence present, version 1; protocol PPP
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = binary.BigEndian.AppendUint16(b, callID)
	b = binary.BigEndian.AppendUint32(b, 1)
	return append(b, payload...)
}

// greSocket is a raw socket for GRE in a host.
type greSocket struct {
	t  testing.TB
	fd int
}

func (n *namespace) gre() *greSocket {
	n.t.Helper()
	s := &greSocket{t: n.t, fd: -1}
	n.must(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocolGRE)
		return err
	})
	n.t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

func (s *greSocket) send(to string, callID uint16, payload string) {
	s.t.Helper()
	sa := &unix.SockaddrInet4{Addr: addr(to).As4()}
	if err := unix.Sendto(s.fd, enhancedGRE(callID, payload), 0, sa); err != nil {
		s.t.Fatalf("send GRE: %v", err)
	}
}

// receive returns the next packet, or false after the wait.
func (s *greSocket) receive(wait time.Duration) (grePacket, bool) {
	s.t.Helper()
	tv := unix.NsecToTimeval(wait.Nanoseconds())
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, 2000)
	n, _, err := unix.Recvfrom(s.fd, b, 0)
	for err == unix.EINTR { // the runtime's signals end a call that has a timeout
		n, _, err = unix.Recvfrom(s.fd, b, 0)
	}
	if errors.Is(err, unix.EAGAIN) {
		return grePacket{}, false
	}
	if err != nil || n < 32 {
		s.t.Fatalf("receive GRE: %d bytes, %v", n, err)
	}
	ip, gre := b[:20], b[20:n]
	return grePacket{GRE: GRE{
		Src: netip.AddrFrom4([4]byte(ip[12:])), Dst: netip.AddrFrom4([4]byte(ip[16:])),
		CallID: binary.BigEndian.Uint16(gre[6:])}, payload: string(gre[12:])}, true
}

// expect fails the test unless the next packet is as said.
func (s *greSocket) expect(want GRE, payload string) {
	s.t.Helper()
	got, ok := s.receive(30 * time.Second)
	if !ok {
		s.t.Fatalf("nothing arrived, want %v", want)
	}
	if got.GRE != want || got.payload != payload {
		s.t.Fatalf("arrived %v %q, want %v %q", got.GRE, got.payload, want, payload)
	}
}

// nothing fails the test if a packet arrives.
func (s *greSocket) nothing() {
	s.t.Helper()
	if got, ok := s.receive(200 * time.Millisecond); ok {
		s.t.Fatalf("arrived %v %q, want nothing", got.GRE, got.payload)
	}
}
