package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds each wait of a test.
const patience = 5 * time.Second

// next takes the next packet from the queue.
func next(t *testing.T, q *Queue) *Packet {
	t.Helper()
	select {
	case p, ok := <-q.Packets():
		if !ok {
			t.Fatalf("channel closed: %v", q.Err())
		}
		return p
	case <-time.After(patience):
		t.Fatal("no packet came")
	}
	return nil
}

// nextPayload accepts packets without payload until one has some.
func nextPayload(t *testing.T, q *Queue) *Packet {
	t.Helper()
	for {
		p := next(t, q)
		if len(p.Payload) > 0 {
			return p
		}
		if err := q.Accept(p); err != nil {
			t.Fatal(err)
		}
	}
}

// connect makes a TCP connection within the namespace. What dialer sends is
// queued; the handshake is accepted here.
func connect(t *testing.T, q *Queue) (dialer, acceptor *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:1723")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	// The handshake needs two verdicts while Dial waits.
	shaken := make(chan struct{})
	go func() {
		defer close(shaken)
		for range 2 {
			select {
			case p := <-q.Packets():
				q.Accept(p)
			case <-time.After(patience):
			}
		}
	}()
	d, err := net.DialTimeout("tcp4", "127.0.0.1:1723", patience)
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	<-shaken
	for _, c := range []net.Conn{d, a} {
		c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { c.Close() })
	}
	return d.(*net.TCPConn), a.(*net.TCPConn)
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("received %q, want %q: %v", got[:n], want, err)
	}
	if string(got) != want {
		t.Fatalf("received %q, want %q", got, want)
	}
}

// update is RFC 1624's incremental checksum for one 16-bit word.
func update(sum, old, new uint16) uint16 {
	v := uint32(^sum) + uint32(^old) + uint32(new)
	v = v&0xffff + v>>16
	v = v&0xffff + v>>16
	return ^uint16(v)
}

// A changed payload arrives changed. The receiver would discard it if the
// checksum in the packet had not been complete before (CHECKSUM_PARTIAL), or if
// the update did not reach it.
func TestAcceptModified(t *testing.T) {
	inNamespace(t, func() {
		q := openTest(t, Config{})
		queueTo(t, unix.IPPROTO_TCP, 1723, false)
		d, a := connect(t, q)

		write(t, d, "Call ID 1234")
		p := nextPayload(t, q)
		if string(p.Payload) != "Call ID 1234" {
			t.Fatalf("payload %q", p.Payload)
		}
		if p.Dst.String() != "127.0.0.1:1723" || p.Src != d.LocalAddr().(*net.TCPAddr).AddrPort() {
			t.Errorf("ends %v and %v", p.Src, p.Dst)
		}
		if !p.Flags.Has(ACK) || p.Flags.Has(SYN) {
			t.Errorf("flags %v", p.Flags)
		}
		at := p.Payload[8:10] // an even offset
		sum := update(p.Checksum(), binary.BigEndian.Uint16(at), binary.BigEndian.Uint16([]byte("98")))
		copy(at, "98")
		p.SetChecksum(sum)
		if err := q.AcceptModified(p); err != nil {
			t.Fatal(err)
		}
		expect(t, a, "Call ID 9834")
		if c := q.Counters(); c.Modified != 1 || c.Packets < 3 {
			t.Errorf("counters %+v", c)
		}
		if err := q.Drop(p); !errors.Is(err, ErrSettled) {
			t.Errorf("second verdict: %v", err)
		}
	})
}

// Packets are held, keep their bytes meanwhile, and leave in another order: here
// two of each connection, as many as TCP gives out while the first is in the
// host's own queues.
func TestVerdictsOutOfOrder(t *testing.T) {
	inNamespace(t, func() {
		q := openTest(t, Config{})
		queueTo(t, unix.IPPROTO_TCP, 1723, false)
		const connections = 8
		var dialers, acceptors [connections]*net.TCPConn
		for i := range connections {
			dialers[i], acceptors[i] = connect(t, q)
		}
		var held []*Packet
		for i, d := range dialers {
			for part := range 2 {
				write(t, d, fmt.Sprintf("connection %d part %d;", i, part))
				p := nextPayload(t, q)
				if n := len(held); n > 0 && p.ID <= held[n-1].ID {
					t.Fatalf("ID %d after %d", p.ID, held[n-1].ID)
				}
				held = append(held, p)
			}
		}
		for i, p := range held {
			if s := fmt.Sprintf("connection %d part %d;", i/2, i%2); string(p.Payload) != s {
				t.Errorf("held payload is %q, was %q", p.Payload, s)
			}
		}
		for i := len(held) - 1; i >= 0; i-- {
			if err := q.Accept(held[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i, a := range acceptors {
			expect(t, a, fmt.Sprintf("connection %d part 0;connection %d part 1;", i, i))
		}
	})
}

// A dropped segment is sent again by TCP.
func TestDrop(t *testing.T) {
	inNamespace(t, func() {
		q := openTest(t, Config{})
		queueTo(t, unix.IPPROTO_TCP, 1723, false)
		d, a := connect(t, q)

		write(t, d, "again")
		first := nextPayload(t, q)
		if err := q.Drop(first); err != nil {
			t.Fatal(err)
		}
		second := nextPayload(t, q)
		if second.Seq != first.Seq || string(second.Payload) != "again" {
			t.Fatalf("sent again: %q at %d, was %q at %d", second.Payload, second.Seq, first.Payload, first.Seq)
		}
		q.Accept(second)
		expect(t, a, "again")
	})
}

// The kernel cuts super-packets before it queues them.
func TestNoSuperPackets(t *testing.T) {
	inNamespace(t, func() {
		q := openTest(t, Config{})
		queueTo(t, unix.IPPROTO_TCP, 1723, false)
		d, a := connect(t, q)

		sent := bytes.Repeat([]byte("0123456789"), 3000)
		done := make(chan error, 1)
		go func() {
			got := make([]byte, len(sent))
			_, err := io.ReadFull(a, got)
			if err == nil && !bytes.Equal(got, sent) {
				err = errors.New("received other bytes than were sent")
			}
			done <- err
		}()
		if _, err := d.Write(sent); err != nil {
			t.Fatal(err)
		}
		segments := 0
		for {
			select {
			case p := <-q.Packets():
				segments++
				if len(p.Data) > 1500 {
					t.Errorf("packet of %d bytes over an MTU of 1500", len(p.Data))
				}
				q.Accept(p)
				continue
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			}
			break
		}
		if segments < len(sent)/1500 {
			t.Errorf("%d bytes in %d segments", len(sent), segments)
		}
	})
}

// What is not a TCP segment passes unseen.
func TestOthersPass(t *testing.T) {
	inNamespace(t, func() {
		q := openTest(t, Config{})
		queueTo(t, unix.IPPROTO_UDP, 1723, false)
		l, err := net.ListenPacket("udp4", "127.0.0.1:1723")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d, err := net.Dial("udp4", "127.0.0.1:1723")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		write(t, d, "datagram")
		l.SetDeadline(time.Now().Add(patience))
		b := make([]byte, 100)
		n, _, err := l.ReadFrom(b)
		if err != nil || string(b[:n]) != "datagram" {
			t.Fatalf("received %q: %v", b[:n], err)
		}
		for end := time.Now().Add(patience); q.Counters().Accepted == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // the verdict is counted after it was sent
		}
		if c := q.Counters(); c.NotTCP != 1 || c.Accepted != 1 || len(q.Packets()) != 0 {
			t.Errorf("counters %+v, %d in the channel", c, len(q.Packets()))
		}
	})
}

func TestTaken(t *testing.T) {
	inNamespace(t, func() {
		openTest(t, Config{})
		_, err := Open(Config{Queue: testQueue})
		if !errors.Is(err, ErrTaken) {
			t.Fatalf("error %v, want ErrTaken", err)
		}
		var taken *TakenError
		if !errors.As(err, &taken) || taken.PortID == 0 || taken.Owner.PID != os.Getpid() || taken.Owner.Name == "" {
			t.Errorf("owner unknown in %v", err)
		}
		if !strings.Contains(err.Error(), "/proc/net/netfilter/nfnetlink_queue") {
			t.Errorf("error does not say where to look: %v", err)
		}
	})
}

// Closing unbinds: the rule's bypass works at once, and the queue can be opened
// again. The channel ends.
func TestClose(t *testing.T) {
	inNamespace(t, func() {
		q := openTest(t, Config{})
		queueTo(t, unix.IPPROTO_TCP, 1723, true)
		d, a := connect(t, q)
		write(t, d, "held")
		p := nextPayload(t, q)
		if list, err := Kernels(); err != nil || len(list) != 1 || list[0].Waiting != 1 {
			t.Errorf("kernel's queues before: %+v, %v", list, err)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if _, ok := <-q.Packets(); ok {
			t.Error("channel is open")
		}
		if err := q.Err(); err != nil {
			t.Error(err)
		}
		if err := q.Accept(p); !errors.Is(err, ErrClosed) {
			t.Errorf("verdict after closing: %v", err)
		}
		if list, err := Kernels(); err != nil || len(list) != 0 {
			t.Errorf("kernel's queues after: %+v, %v", list, err)
		}
		expect(t, a, "held") // sent again, past the rule
		openTest(t, Config{})
	})
}

// flood sends datagrams into the queue as fast as it can until stop.
func flood(t *testing.T) (stop func()) {
	t.Helper()
	queueTo(t, unix.IPPROTO_UDP, 9, false)
	d, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		payload := make([]byte, 1000)
		for {
			select {
			case <-quit:
				return
			default:
				d.Write(payload)
			}
		}
	}()
	return func() { close(quit); <-done; d.Close() }
}

// A packet may come in between the steps of binding, see bind.
func TestOpenUnderTraffic(t *testing.T) {
	inNamespace(t, func() {
		stop := flood(t)
		defer stop()
		for range 30 {
			q, err := Open(Config{Queue: testQueue})
			if err != nil {
				t.Fatal(err)
			}
			q.Close()
		}
	})
}

// A full receive buffer costs packets, not the queue.
func TestOverflow(t *testing.T) {
	inNamespace(t, func() {
		q := openTest(t, Config{ReadBuffer: 1}) // the kernel makes it its smallest
		queueTo(t, unix.IPPROTO_TCP, 1723, false)
		d, a := connect(t, q)
		stop := flood(t)
		for end := time.Now().Add(patience); q.Counters().Overflows == 0; {
			if time.Now().After(end) {
				t.Fatal("receive buffer never overflowed")
			}
			time.Sleep(time.Millisecond)
		}
		stop()
		write(t, d, "still here")
		q.Accept(nextPayload(t, q))
		expect(t, a, "still here")
		if q.Err() != nil {
			t.Error(q.Err())
		}
	})
}

// A verdict on a packet that is gone is counted and harms nothing.
func TestLateVerdict(t *testing.T) {
	inNamespace(t, func() {
		q := openTest(t, Config{})
		queueTo(t, unix.IPPROTO_TCP, 1723, false)
		d, a := connect(t, q)
		if err := q.Accept(&Packet{ID: 1 << 30}); err != nil {
			t.Fatal(err)
		}
		write(t, d, "still here")
		q.Accept(nextPayload(t, q))
		expect(t, a, "still here")
		if c := q.Counters(); c.LateVerdicts != 1 {
			t.Errorf("counters %+v", c)
		}
	})
}

// The option for another namespace than the thread's works, errors included.
func TestNetNS(t *testing.T) {
	inNamespace(t, func() {
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		fd := int(ns.Fd())
		elsewhere := make(chan error)
		go func() { // runs on a thread of the first namespace
			q, err := Open(Config{Queue: testQueue, NetNS: fd})
			if err == nil {
				t.Cleanup(func() { q.Close() })
				_, err = Open(Config{Queue: testQueue, NetNS: fd})
			}
			elsewhere <- err
		}()
		err = <-elsewhere
		var taken *TakenError
		if !errors.As(err, &taken) || taken.Owner.PID != os.Getpid() {
			t.Errorf("second queue: %v", err)
		}
		if list, err := Kernels(); err != nil || len(list) != 1 {
			t.Errorf("queues in the namespace: %+v, %v", list, err)
		}
	})
}

// Without the capability the error names it, and not another program.
func TestPermission(t *testing.T) {
	inNamespace(t, func() {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Fatal(err)
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN // of this thread, which ends with the test
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Queue: testQueue}); !errors.Is(err, ErrPermission) {
			t.Errorf("got %v, want ErrPermission", err)
		}
	})
}
