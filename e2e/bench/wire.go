package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/wire"
)

// route is where GRE of a direction is sent and where it arrives: hosts, the name
// of their device, hardware addresses of a frame.
type route struct {
	from, to     *lab.Host
	device, sink string // at from, at to
	src, dst     net.HardwareAddr
}

func (w *world) route(d Direction) route {
	if d == Out {
		return route{w.inside, w.outside, "lan", "wan", w.macs["inside"], w.macs["lan"]}
	}
	return route{w.outside, w.inside, "wan", "lan", w.macs["outside"], w.macs["wan"]}
}

// sinkTable is the nftables table that drops GRE as soon as it has come in.
const sinkTable = "sink"

// drain has both ends drop the GRE that arrives, at the device.
func (w *world) drain() error {
	for _, d := range directions {
		r := w.route(d)
		c, err := r.to.Nftables()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: sinkTable})
		chain := c.AddChain(&nftables.Chain{Table: table, Name: "ingress", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Device: r.sink})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{8, 0}}, // ETH_P_IP
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{wire.ProtocolGRE}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		if err := c.Flush(); err != nil {
			return fmt.Errorf("drop GRE at %s: %w", r.to.Name(), err)
		}
	}
	return nil
}

// undrain lets GRE reach the peers again.
func (w *world) undrain() error {
	var errs []error
	for _, h := range []*lab.Host{w.inside, w.outside} {
		c, err := h.Nftables()
		if err == nil {
			c.DelTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: sinkTable})
			err = c.Flush()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// arrived counts the packets that came in at the far end since the lab was made.
func (r route) arrived() (uint64, error) {
	link, err := r.to.Netlink().LinkByName(r.sink)
	if err != nil {
		return 0, fmt.Errorf("read counters of %s: %w", r.to.Name(), err)
	}
	return link.Attrs().Statistics.RxPackets, nil
}

// packetSocket opens a packet socket on a device. One that sends only takes
// protocol 0.
func packetSocket(h *lab.Host, device string, protocol uint16) (fd int, err error) {
	link, err := h.Netlink().LinkByName(device)
	if err != nil {
		return -1, fmt.Errorf("open packet socket on %s: %w", h.Name(), err)
	}
	err = h.Do(func() error {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		big := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: big, Ifindex: link.Attrs().Index}); err != nil {
			_ = unix.Close(fd)
			return err
		}
		return nil
	})
	if err != nil {
		return -1, fmt.Errorf("open packet socket on %s: %w", h.Name(), err)
	}
	// Straight to the device's driver (PACKET_QDISC_BYPASS); a veth has no queue anyway.
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	return fd, nil
}

// batchSize is how many packets go in one system call: enough that it costs nothing
// a packet, few enough that a turn of a slow competitor ends in time.
const batchSize = 256

// minFrames is how many frames a generator has at least: few calls are repeated,
// so that every system call takes many packets.
const minFrames = batchLimit

// generator sends the packets of many calls in one direction.
type generator struct {
	route
	fd int
	*batch
	at int
}

// generator makes the frames of all flows, in random order, the same for every
// competitor.
func (w *world) generator(d Direction, flows []flow, payload int) (*generator, error) {
	r := w.route(d)
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(flows))
	var frames [][]byte
	for sequence := uint32(0); len(frames) < max(minFrames, len(flows)); sequence++ {
		for _, i := range order {
			frames = append(frames, frame(r.src, r.dst, flows[i].sent[d], sequence, payload))
		}
	}
	fd, err := packetSocket(r.from, r.device, 0)
	if err != nil {
		return nil, err
	}
	return &generator{route: r, fd: fd, batch: newBatch(frames)}, nil
}

func (g *generator) close() { _ = unix.Close(g.fd) }

// turn is the outcome of one turn of a generator.
type turn struct {
	Sent, Delivered int           // packets
	CPU             time.Duration // of the sending thread, the router's work included
	Wall            time.Duration // with what else ran on the machine
}

// run sends for so long, all frames at least once.
func (g *generator) run(length time.Duration) (t turn, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := g.arrived()
	if err != nil {
		return t, err
	}
	began, cpu := time.Now(), threadTime()
	for time.Since(began) < length || t.Sent == 0 {
		n, err := g.send(g.fd, g.at, batchSize)
		if err != nil {
			return t, err
		}
		t.Sent += n
		if g.at += n; g.at == len(g.frames) {
			g.at = 0
		}
	}
	t.CPU, t.Wall = threadTime()-cpu, time.Since(began)
	after, err := g.arrived()
	t.Delivered = int(after - before)
	return t, err
}

// threadTime is the processor time of the calling thread, what the kernel did on
// its behalf in softirqs included (unless it has CONFIG_IRQ_TIME_ACCOUNTING).
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic("bench: " + err.Error()) // every Linux has it
	}
	return time.Duration(t.Nano())
}
