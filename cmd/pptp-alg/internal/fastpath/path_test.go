//go:build !nofastpath

package fastpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// call is the one of these tests: told 7, in truth 4660.
var (
	arrives = Tuple{innerAddr, outerAddr, 7}
	leaves  = Tuple{routerAddr, outerAddr, 0x1234}
)

func (l *lab) call() Call {
	return Call{Generation: 1, Arrives: l.in, Leaves: leaves, Link: l.out, Gateway: outerAddr, MTU: 1500}
}

// carry opens a path that carries the call.
func (l *lab) carry(o Options) *Path {
	l.router.t.Helper()
	p := l.open(o)
	l.router.do(func() error {
		for _, err := range []error{p.Carry(l.in, false), p.Put(arrives, l.call()), p.Begin(1)} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	return p
}

// both runs a test with each way of attaching programs.
func both(t *testing.T, f func(*testing.T, Options)) {
	t.Run("tcx", func(t *testing.T) { f(t, Options{}) })
	t.Run("clsact", func(t *testing.T) { f(t, Options{Clsact: true}) })
}

// same complains unless a packet is what another one is to become.
func same(t *testing.T, got, sent []byte, to Tuple) {
	t.Helper()
	if got == nil {
		t.Fatal("the packet did not arrive")
	}
	want := bytes.Clone(sent)
	src, dst := to.Src.As4(), to.Dst.As4()
	copy(want[12:], src[:])
	copy(want[16:], dst[:])
	binary.BigEndian.PutUint16(want[26:], to.CallID)
	want[8]--
	want[10], want[11] = 0, 0
	binary.BigEndian.PutUint16(want[10:], ^checksum(want[:20]))
	if !bytes.Equal(got, want) {
		t.Errorf("arrived\n%x, not\n%x", got, want)
	}
}

// A packet is translated as conntrack would.
func TestCarries(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := newLab(t)
		p := l.carry(o)
		var want Traffic
		for i, n := range []int{100, 0, 1, 1464, 3} {
			sent := packet(arrives, byte(64-i), n, nil)
			l.inner.send(sent)
			same(t, l.outer.receive(long), sent, leaves)
			want.Packets++
			want.Bytes += uint64(len(sent))
		}
		if got := p.Traffic(arrives); got != want {
			t.Errorf("counted %+v, not %+v", got, want)
		}
		if all, err := p.All(); err != nil || len(all) != 1 || all[arrives] != want {
			t.Errorf("all counters: %+v, %v", all, err)
		}
		if got, err := p.Take(arrives); err != nil || got != want {
			t.Errorf("taken with %+v, %v", got, err)
		}
		if got, err := p.Take(arrives); err != nil || got != (Traffic{}) {
			t.Errorf("taken again with %+v, %v", got, err)
		}
	})
}

// What is not exactly a packet of the call is not taken. The router forwards nothing by itself here, so that what arrives
// was carried.
func TestPassesOn(t *testing.T) {
	l := newLab(t)
	p := l.carry(Options{})
	// They look like the GRE header that would be there without them, and add nothing to the checksum.
	options := func(b []byte) []byte {
		b = append(b[:20:20], append([]byte{0x30, 0x81, 0x88, 0x0b, 0x47, 0x6c, 0, 7}, b[20:]...)...)
		b[0] = 0x47
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		return b
	}
	set := func(at int, value byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = value; return b }
	}
	for _, c := range []struct {
		name    string
		tuple   Tuple
		ttl     byte
		payload int
		change  func([]byte) []byte
	}{
		{"another Call ID", Tuple{innerAddr, outerAddr, 8}, 64, 10, nil},
		{"the last hop", arrives, 1, 10, nil},
		{"options", arrives, 64, 10, options},
		{"first fragment", arrives, 64, 12, set(6, 0x20)},
		{"last fragment", arrives, 64, 12, set(7, 0x01)},
		{"a GRE checksum", arrives, 64, 10, set(20, 0xb0)},
		{"GRE routing", arrives, 64, 10, set(20, 0x70)},
		{"no GRE key", arrives, 64, 10, set(20, 0x10)},
		{"GRE version 0", arrives, 64, 10, set(21, 0x80)},
		{"another protocol in GRE", arrives, 64, 10, set(23, 0x0c)},
		{"strict source route in GRE", arrives, 64, 10, set(20, 0x38)},
		{"another protocol", arrives, 64, 10, set(9, unix.IPPROTO_UDP)},
	} {
		before := p.Traffic(arrives)
		l.inner.send(packet(c.tuple, c.ttl, c.payload, c.change))
		last := packet(arrives, 64, 5, nil)
		l.inner.send(last)
		same(t, l.outer.receive(long), last, leaves)
		if n := p.Traffic(arrives).Packets - before.Packets; n != 1 {
			t.Errorf("%s: %d packets were carried", c.name, n-1)
		}
	}
}

// An entry works for its generation, its link and packets that fit only.
func TestEntry(t *testing.T) {
	l := newLab(t)
	p := l.carry(Options{})
	// What is not to come is not waited for as long as what is.
	carries := func(expected bool) bool {
		before := p.Traffic(arrives).Packets
		l.inner.send(packet(arrives, 64, 100, nil))
		patience := long
		if !expected {
			patience = time.Second / 5
		}
		return l.outer.receive(patience) != nil && p.Traffic(arrives).Packets == before+1
	}
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	if !carries(true) {
		t.Error("it does not work")
	}
	must(p.Halt())
	if carries(false) {
		t.Error("a packet was carried when all was closed")
	}
	must(p.Begin(2))
	if carries(false) {
		t.Error("an entry of another generation was used")
	}
	for _, c := range []struct {
		name   string
		change func(*Call)
		works  bool
	}{
		{"as it should be", func(*Call) {}, true},
		{"another link", func(c *Call) { c.Arrives = l.out }, false},
		{"an MTU that is just large enough", func(c *Call) { c.MTU = 136 }, true},
		{"too small an MTU", func(c *Call) { c.MTU = 135 }, false},
	} {
		call := l.call()
		call.Generation = 2
		c.change(&call)
		must(p.Put(arrives, call))
		if carries(c.works) != c.works {
			t.Errorf("%s: %v", c.name, !c.works)
		}
	}
	if got := p.Traffic(arrives).Packets; got != 3 {
		t.Errorf("counted %d packets in the entry's life, not 3", got)
	}
	must(p.Keep(nil))
	if carries(false) {
		t.Error("a packet was carried where no program is")
	}
}

// A packet whose header is damaged is left to the kernel, which drops it, and one that claims to be longer than it is.
func TestDamaged(t *testing.T) {
	l := newLab(t)
	p := l.carry(Options{})
	good := packet(arrives, 64, 10, nil)
	l.inner.send(good) // and the router's Ethernet address is known then
	same(t, l.outer.receive(long), good, leaves)
	for _, change := range []func([]byte){
		func(b []byte) { b[10] ^= 1 },
		func(b []byte) { binary.BigEndian.PutUint16(b[2:], uint16(len(b)+1)); fix(b) },
		func(b []byte) { binary.BigEndian.PutUint16(b[2:], 27); fix(b) },
	} {
		bad := bytes.Clone(good)
		change(bad)
		l.inner.sendFrame(bad)
	}
	l.inner.sendFrame(good) // as a proof that frames arrive
	same(t, l.outer.receive(long), good, leaves)
	if n := p.Traffic(arrives).Packets; n != 2 {
		t.Errorf("%d packets were carried, not 2", n)
	}
}

// A packet that leaves by the ordinary path is seen once in a generation, and with where it came from.
func TestSights(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := newLab(t)
		l.router.set("ip_forward", "1")
		p := l.open(o)
		ordinary := Tuple{innerAddr, outerAddr, 9} // nobody translates here
		other := Tuple{innerAddr, outerAddr, 10}
		l.router.do(func() error {
			return errors.Join(p.Watch([]int{l.in, l.out}), p.Await(ordinary), p.Await(other), p.Begin(7))
		})
		see := func(want ...Sight) {
			t.Helper()
			for len(want) > 0 {
				got, err := p.Sights()
				if err != nil || len(got) == 0 || len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
					t.Fatalf("saw %+v, %v instead of %+v", got, err, want)
				}
				want = want[len(got):]
			}
		}
		send := func(tuples ...Tuple) {
			for _, tuple := range tuples {
				l.inner.send(packet(tuple, 64, 10, nil))
				if l.outer.receive(long) == nil {
					t.Fatal("the router forwards nothing")
				}
			}
		}
		sight := Sight{Leaves: ordinary, Generation: 7, Arrived: l.in, Link: l.out}
		l.outer.do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err == nil {
				sight.Next = [6]byte(link.Attrs().HardwareAddr)
			}
			return err
		})
		second := sight
		second.Leaves = other
		send(Tuple{innerAddr, outerAddr, 11}, ordinary, ordinary, other, ordinary)
		see(sight, second)
		l.router.do(p.Halt)
		send(ordinary)
		l.router.do(func() error { return p.Begin(8) })
		send(other, ordinary)
		sight.Generation, second.Generation = 8, 8
		see(second, sight)
		l.router.do(func() error { return errors.Join(p.Forget(ordinary), p.Begin(9)) })
		send(ordinary, other)
		second.Generation = 9
		see(second)
	})
}

// Packets without an Ethernet header, which a tun device has as PPP has, are carried from and to.
func TestBare(t *testing.T) {
	l := newLab(t)
	first, second := l.tun("tun1"), l.tun("tun2")
	p := l.carry(Options{})
	l.router.do(func() error {
		fromTun, toTun := l.call(), l.call()
		fromTun.Arrives = first.link
		toTun.Bare, toTun.Link = true, second.link
		between := toTun
		between.Arrives = first.link
		return errors.Join(p.Carry(first.link, true), p.Carry(second.link, true),
			p.Put(Tuple{innerAddr, outerAddr, 20}, fromTun), p.Put(Tuple{innerAddr, outerAddr, 21}, toTun), p.Put(Tuple{innerAddr, outerAddr, 22}, between))
	})
	for _, n := range []int{0, 100} {
		sent := packet(Tuple{innerAddr, outerAddr, 20}, 64, n, nil)
		first.send(sent)
		same(t, l.outer.receive(long), sent, leaves)

		sent = packet(Tuple{innerAddr, outerAddr, 21}, 64, n, nil)
		l.inner.send(sent)
		same(t, second.receive(), sent, leaves)
		l.inner.sendFrame(append(bytes.Clone(sent), 0, 0, 0, 0, 0, 0)) // Ethernet pads small ones
		same(t, second.receive(), sent, leaves)

		sent = packet(Tuple{innerAddr, outerAddr, 22}, 64, n, nil)
		first.send(sent)
		same(t, second.receive(), sent, leaves)
	}
}

// The verifier accepts the programs also as for processors that can't read unaligned words.
func TestStrictAlignment(t *testing.T) {
	l := newLab(t)
	p := l.open(Options{})
	l.router.do(func() error {
		o, err := parseObject(objectFile)
		if err != nil {
			return err
		}
		maps := p.maps()
		for label := range o.programs {
			instructions, err := o.link(label, maps)
			if err != nil {
				return err
			}
			const strict = 1 // BPF_F_STRICT_ALIGNMENT
			fd, err := load(label, instructions, strict)
			if err != nil {
				return err
			}
			unix.Close(fd)
		}
		return nil
	})
}

// A killed process carries nothing any more. What it left at a clsact queueing discipline is swept away.
func TestKilled(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := newLab(t)
		l.router.set("ip_forward", "1")
		helper := exec.Command(os.Args[0], "-test.run=^TestKilledHelper$")
		helper.Env = append(os.Environ(), fmt.Sprintf("FASTPATH_TEST_HELPER=%d %d %v", l.in, l.out, o.Clsact))
		in, err := helper.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := helper.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		l.router.do(helper.Start) // a process is in the namespace of the thread that starts it
		t.Cleanup(func() { helper.Process.Kill(); helper.Wait() })
		line := make([]byte, 6)
		if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready\n" {
			t.Fatalf("the helper said %q, %v", line, err)
		}
		sent := packet(arrives, 64, 10, nil)
		l.inner.send(sent)
		same(t, l.outer.receive(long), sent, leaves)
		if err := helper.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		helper.Wait()
		// By the ordinary path nothing is translated here. The kernel takes the programs away a moment later.
		for end := time.Now().Add(long); ; {
			l.inner.send(sent)
			got := l.outer.receive(long)
			if got == nil {
				t.Fatal("a packet is lost")
			}
			if bytes.Equal(got[12:16], sent[12:16]) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("packets are still carried")
			}
		}
		l.router.do(func() error {
			left := 0
			if o.Clsact || !tcx(t) {
				left = 2
			}
			for _, want := range []int{left, 0} {
				if n, err := Sweep(); err != nil || n != want {
					t.Errorf("swept %d filters away, %v, not %d", n, err, want)
				}
			}
			for _, link := range []int{l.in, l.out} {
				if d := l.disciplines(link); len(d) != 0 {
					t.Errorf("link %d still has %v", link, d)
				}
			}
			return nil
		})
	})
}

// TestKilledHelper is the process that TestKilled kills.
func TestKilledHelper(t *testing.T) {
	var in, out int
	var old bool
	if _, err := fmt.Sscan(os.Getenv("FASTPATH_TEST_HELPER"), &in, &out, &old); err != nil {
		t.Skip("runs as a part of TestKilled")
	}
	p, err := Open(Options{Entries: 16, Clsact: old})
	if err == nil {
		call := (&lab{in: in, out: out}).call()
		err = errors.Join(p.Carry(in, false), p.Watch([]int{out}), p.Put(arrives, call), p.Begin(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("ready\n")
	io.Copy(io.Discard, os.Stdin)
}

// A device that is gone is no error, and one that comes in its place is another one.
func TestDeviceGone(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := newLab(t)
		p := l.carry(o)
		l.router.do(func() error {
			if err := p.Watch([]int{l.in}); err != nil {
				return err
			}
			link, err := netlink.LinkByIndex(l.in)
			if err != nil {
				return err
			}
			if err := netlink.LinkDel(link); err != nil {
				return err
			}
			again := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "again", Index: l.in}, PeerName: "peer"}
			if err := netlink.LinkAdd(again); err != nil {
				return err
			}
			if err := errors.Join(p.Carry(l.in, false), p.Watch([]int{l.in})); err != nil {
				t.Errorf("attach to the new one: %v", err)
			}
			if p.old != nil {
				filters, err := netlink.FilterList(again, netlink.HANDLE_MIN_INGRESS)
				if err != nil || len(filters) != 1 {
					t.Errorf("the new device has filters %v, %v", filters, err)
				}
			} else if a := p.attached[point{l.in, false}]; linkedTo(a.fd) != l.in {
				t.Errorf("the program is attached to link %d, not %d", linkedTo(a.fd), l.in)
			}
			if err := netlink.LinkDel(again); err != nil {
				return err
			}
			return errors.Join(p.Keep(nil), p.Watch([]int{l.in}), p.Watch(nil))
		})
	})
}

// A program that is there stays there: a packet never finds none because another call begins.
func TestStays(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		l := newLab(t)
		p := l.carry(o)
		l.router.do(func() error {
			watch, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_TC)
			if err != nil {
				return err
			}
			defer watch.Close()
			fd := p.attached[point{l.in, false}].fd
			if err := p.Carry(l.in, false); err != nil {
				return err
			}
			if now := p.attached[point{l.in, false}].fd; now != fd {
				t.Error("it was attached once more")
			}
			if n, _, err := unix.Recvfrom(watch.GetFd(), make([]byte, 4096), unix.MSG_DONTWAIT); err == nil {
				t.Errorf("something changed: %d bytes of news", n)
			}
			return nil
		})
	})
}
