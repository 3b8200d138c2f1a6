package e2e

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// floods is a lab with a client that only wants to work, clients that flood, and
// the server of all of them.
type floods struct {
	*world
	server *peer.Node
	sink   *peer.Node // another server, which answers no call
	raws   []*raw.Host
	honest *peer.Node
	port   uint16 // where the floods go
}

// flood is one way to be a nuisance. It ends with its context.
type flood struct {
	name string
	run  func(ctx context.Context, f *floods) string // says what it did
}

// onRaw floods with frames of a control connection of its own, from every raw host.
func onRaw(frames func(*raw.Conn) ([]raw.Segment, error)) func(context.Context, *floods) string {
	return func(ctx context.Context, f *floods) string {
		var sent atomic.Uint64
		var all sync.WaitGroup
		for _, h := range f.raws {
			all.Go(func() {
				c, err := h.Dial(ctx, f.toServer(), raw.Options{})
				if err != nil {
					return
				}
				segments, err := frames(c)
				var list []raw.Frame
				for _, s := range segments {
					b, e := c.Frame(s)
					if err == nil {
						err = e
					}
					list = append(list, b)
				}
				if err != nil {
					f.Error(err)
					return
				}
				sent.Add(h.Flood(ctx, list))
				_ = c.Reset()
			})
		}
		all.Wait()
		return fmt.Sprintf("%d segments", sent.Load())
	}
}

// onConnections has several workers each repeat something.
func onConnections(workers int, once func(ctx context.Context, f *floods, n *peer.Node) error) func(context.Context, *floods) string {
	return func(ctx context.Context, f *floods) string {
		var done, failed atomic.Uint64
		var all sync.WaitGroup
		n, err := peer.Start(peer.Config{Name: "flooder", Network: f.Clients[1], Address: f.Clients[1].Address,
			CallID: peer.Fixed(7), Timeout: time.Second, Stray: func(netip.Addr, wire.GRE) {}})
		if err != nil {
			f.Error(err)
			return ""
		}
		for range workers {
			all.Go(func() {
				for ctx.Err() == nil {
					if once(ctx, f, n) == nil {
						done.Add(1)
					} else {
						failed.Add(1)
					}
				}
			})
		}
		all.Wait()
		_ = n.Close()
		return fmt.Sprintf("%d times, %d more failed", done.Load(), failed.Load())
	}
}

var allFloods = []flood{
	{"one byte again and again", onRaw(func(*raw.Conn) ([]raw.Segment, error) {
		return []raw.Segment{{Flags: raw.PSH | raw.ACK, Payload: []byte{0}}}, nil
	})},
	{"overlapping, with different bytes", onRaw(func(*raw.Conn) (list []raw.Segment, _ error) {
		r := rand.New(rand.NewPCG(1, 2))
		for range 256 {
			b := make([]byte, 1+r.IntN(200))
			_, _ = crand.Read(b)
			list = append(list, raw.Segment{Offset: r.IntN(1000), Flags: raw.PSH | raw.ACK, Payload: b})
		}
		return list, nil
	})},
	{"behind a gap", onRaw(func(*raw.Conn) (list []raw.Segment, _ error) {
		for i := range 256 {
			list = append(list, raw.Segment{Offset: 10 + i, Flags: raw.PSH | raw.ACK, Payload: []byte{1}})
		}
		return list, nil
	})},
	{"garbage", onConnections(4, func(ctx context.Context, f *floods, n *peer.Node) error {
		s, err := n.Connect(ctx, f.toSink())
		if err != nil {
			return err
		}
		defer s.Abort()
		b := make([]byte, 64<<10)
		_, _ = crand.Read(b)
		for ctx.Err() == nil {
			if err := s.SendBytes(b); err != nil {
				return err
			}
		}
		return nil
	})},
	{"messages of the greatest length", onConnections(4, func(ctx context.Context, f *floods, n *peer.Node) error {
		s, err := n.Connect(ctx, f.toSink())
		if err != nil {
			return err
		}
		defer s.Abort()
		b := make([]byte, 0xffff)
		copy(b, wire.Encode(&wire.EchoRequest{}))
		b[0], b[1] = 0xff, 0xff
		for ctx.Err() == nil {
			if err := s.SendBytes(b); err != nil {
				return err
			}
		}
		return nil
	})},
	{"connections that say nothing", onConnections(16, func(ctx context.Context, f *floods, n *peer.Node) error {
		_, err := n.Connect(ctx, f.toServer())
		return err
	})},
	{"redialling", onConnections(16, func(ctx context.Context, f *floods, n *peer.Node) error {
		s, err := n.Dial(ctx, f.toServer())
		if err != nil {
			return err
		}
		defer s.Abort()
		_, err = s.OutgoingCall(ctx)
		return err
	})},
	{"calls with one ID", onConnections(8, manyCalls((*floods).toServer))},
	{"calls that nobody answers", onConnections(8, manyCalls((*floods).toSink))},
}

func (f *floods) toServer() netip.AddrPort { return netip.AddrPortFrom(f.server.Address(), f.port) }
func (f *floods) toSink() netip.AddrPort   { return netip.AddrPortFrom(f.sink.Address(), f.port) }

// manyCalls asks for calls without waiting for any, on one connection after the
// other.
func manyCalls(to func(*floods) netip.AddrPort) func(context.Context, *floods, *peer.Node) error {
	return func(ctx context.Context, f *floods, n *peer.Node) error {
		s, err := n.Dial(ctx, to(f))
		if err != nil {
			return err
		}
		defer s.Abort()
		var requests []wire.Message
		for range 50 {
			requests = append(requests, &wire.OutgoingCallRequest{CallID: 7, PhoneNumber: wire.MakeText("x")})
		}
		for range 40 {
			if err := s.Send(requests...); err != nil {
				return err
			}
			if err := s.Ping(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

// work is what the honest client does: a control connection, a call, GRE on it,
// and everything closed again. It gives the time until the call carried GRE.
func (f *floods) work() time.Duration {
	f.Helper()
	begin := time.Now()
	s := f.dial(f.honest, f.server)
	c := f.call(s)
	f.check(c.Echo(f.ctx, 1, 100))
	took := time.Since(begin)
	f.check(c.HangUp(f.ctx))
	f.check(s.Stop(f.ctx))
	return took
}

func (f *floods) measure(rounds int) []time.Duration {
	f.Helper()
	var all []time.Duration
	for range rounds {
		all = append(all, f.work())
	}
	slices.Sort(all)
	return all
}

// processor gives the processor time that the daemon has used.
func (w *world) processor() time.Duration {
	w.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/schedstat", w.daemon.PID()))
	w.must(err)
	var sum time.Duration
	for _, name := range files {
		var ns int64
		if b, err := os.ReadFile(name); err == nil { // a thread may have ended; some kernels have no such file
			_, _ = fmt.Sscan(string(b), &ns)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// rss gives the daemon's resident memory in KiB, the highest it was.
func (w *world) rss() (now, peak string) {
	w.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.PID()))
	w.must(err)
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "VmRSS":
			now = strings.TrimSpace(value)
		case "VmHWM":
			peak = strings.TrimSpace(value)
		}
	}
	return now, peak
}

// newFloods makes the lab.
func newFloods(t *testing.T) *floods {
	f := &floods{world: withDaemon(t, lab.Plan{Clients: 2, RawClients: 2, Servers: 2}), port: peer.Port}
	stray := func(netip.Addr, wire.GRE) {}
	f.server = f.node(f.Servers[0], peer.Config{CallID: peer.Counting(1), Stray: stray})
	f.must(f.server.Listen(peer.Port))
	f.sink = f.node(f.Servers[1], peer.Config{Answer: func(wire.Message) peer.Answer { return peer.Answer{Silent: true} }})
	f.must(f.sink.Listen(peer.Port))
	for _, s := range f.RawClients {
		f.raws = append(f.raws, f.rawHost(s, "lan", lab.LANRouter))
	}
	f.honest = f.client(0, peer.Config{CallID: peer.Fixed(7)})
	return f
}

// While clients flood, in every way that is known to hurt, another client's calls
// come up, none is refused, and GRE flows on them. How much longer they take is
// logged and not judged: the flooders, the peers and the router share the machine's
// processors.
func TestFloods(t *testing.T) {
	f := newFloods(t)
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	usual := f.measure(rounds)
	t.Logf("%-36s median %v, worst %v", "nobody floods", usual[rounds/2], usual[rounds-1])
	for _, fl := range allFloods {
		start := f.daemonStatus()
		ctx, stop := context.WithCancel(f.ctx)
		said := make(chan string, 1)
		go func() { said <- fl.run(ctx, f) }()
		f.eventually(fl.name+" should reach the router", func() error {
			if n := more(start, f.daemonStatus(), "queue_packets", "packets_excess"); n < 100 {
				return fmt.Errorf("%d segments", n)
			}
			return nil
		})
		before, busy, begin := f.daemonStatus(), f.processor(), time.Now()
		all := f.measure(rounds)
		after := f.daemonStatus()
		share := float64(f.processor()-busy) / float64(time.Since(begin))
		stop()
		what := <-said
		now, peak := f.rss()
		t.Logf("%-36s median %v, worst %v: %.1f times as long; daemon's processor time %.0f%%, memory %s, at most %s; %s; segments: %d queued, %d dropped, %d before the queue; %d connections and %d calls refused", fl.name, all[rounds/2], all[rounds-1],
			float64(all[rounds/2])/float64(usual[rounds/2]), 100*share, now, peak, what,
			more(before, after, "queue_packets"), more(before, after, "queue_dropped"), more(before, after, "packets_excess"),
			more(before, after, "connections_refused"), more(before, after, "calls_refused_limit", "calls_refused_exhausted", "calls_refused_ambiguous"))
	}
	// What was too much was counted, wherever it was dropped.
	if s := f.daemonStatus(); s.Counter("packets_excess")+s.Counter("segments_dropped_excess")+s.Counter("segments_dropped_held") == 0 {
		t.Error("nothing was too much: did the floods flood?")
	}
}

// more gives by how much counters have grown.
func more(before, after *lab.Status, names ...string) (n uint64) {
	for _, name := range names {
		n += after.Counter(name) - before.Counter(name)
	}
	return n
}
