package addresses

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNewNamespace moves the test into a network namespace of its own, which ends with it.
func inNewNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("cannot make a network namespace: %v", err)
		}
		t.Skipf("cannot make a network namespace: %v", err)
	}
}

func listen(t *testing.T) *Watch {
	t.Helper()
	w, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func add(t *testing.T, link netlink.Link, address string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(address)
	if err == nil {
		err = netlink.AddrAdd(link, a)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func device(t *testing.T, name string) netlink.Link {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	return link
}

func (w *Watch) expect(t *testing.T, want ...string) {
	t.Helper()
	got, err := w.Local()
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for a := range maps.Keys(got) {
		texts = append(texts, a.String())
	}
	slices.Sort(texts)
	if !slices.Equal(texts, want) {
		t.Errorf("the addresses are %v instead of %v", texts, want)
	}
}

func TestLocal(t *testing.T) {
	inNewNamespace(t)
	w := listen(t)
	w.expect(t)
	one, two := device(t, "one"), device(t, "two")
	a := add(t, one, "203.0.113.1/24")
	w.expect(t, "203.0.113.1")
	add(t, two, "203.0.113.1/32") // on another one as well
	add(t, two, "203.0.113.9/32")
	p := &netlink.Addr{IPNet: mustNet("198.18.0.1/32"), Peer: mustNet("198.18.0.2/32")} // point to point: the peer is not ours
	if err := netlink.AddrAdd(two, p); err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(two, &netlink.Addr{IPNet: mustNet("2001:db8::1/64")}); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EACCES) {
		t.Fatal(err)
	}
	w.expect(t, "198.18.0.1", "203.0.113.1", "203.0.113.9")
	if err := netlink.AddrDel(one, a); err != nil {
		t.Fatal(err)
	}
	w.expect(t, "198.18.0.1", "203.0.113.1", "203.0.113.9")
	if err := netlink.LinkDel(two); err != nil {
		t.Fatal(err)
	}
	w.expect(t)
}

// Every way in which an address comes or goes wakes the watch, and nothing else does.
func TestReceive(t *testing.T) {
	inNewNamespace(t)
	w := listen(t)
	link := device(t, "one")
	// Whoever waits does so on a thread of its own.
	news := make(chan error)
	go func() {
		for {
			err := w.Receive()
			news <- err
			if err != nil {
				return
			}
		}
	}()
	silent := func(what string) {
		t.Helper()
		select {
		case <-news:
			t.Errorf("woken by %s", what)
		case <-time.After(200 * time.Millisecond):
		}
	}
	woken := func(what string) {
		t.Helper()
		select {
		case err := <-news:
			if err != nil {
				t.Fatal(what, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("not woken by %s", what)
		}
	}
	silent("nothing")
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: mustNet("2001:db8::1/64")}); err == nil {
		silent("IPv6")
	}
	a := add(t, link, "203.0.113.1/24")
	woken("an address that came")
	if err := netlink.AddrDel(link, a); err != nil {
		t.Fatal(err)
	}
	woken("an address that went")
	add(t, link, "203.0.113.1/24")
	woken("an address that came again")
	if err := netlink.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	silent("an interface that went down")
	w.expect(t, "203.0.113.1")
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	woken("an interface that went with its address")
	w.expect(t)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := <-news; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// More news than the socket holds are one piece of news.
func TestReceiveOverflow(t *testing.T) {
	inNewNamespace(t)
	w := listen(t)
	if err := w.events.SetReadBuffer(1); err != nil { // the kernel's minimum
		t.Fatal(err)
	}
	link := device(t, "one")
	for range 100 {
		if err := netlink.AddrDel(link, add(t, link, "203.0.113.1/24")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Receive(); err != nil {
		t.Error(err)
	}
	w.expect(t)
}

func mustNet(s string) *net.IPNet {
	p := netip.MustParsePrefix(s)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
