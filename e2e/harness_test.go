package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
)

// patience is the deadline of everything that is expected to happen. Nothing
// is asserted about how long it takes. PPTP_ALG_PATIENCE says how long it is on
// a slow machine.
var patience = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("PPTP_ALG_PATIENCE")); err == nil {
		return d
	}
	return 30 * time.Second
}()

// quickConfig makes the daemon's waits short, so that scenarios need not wait
// long for the grace of an ended call and for the rest of its Call IDs.
const quickConfig = `
[timeouts]
grace = "300ms"
rest = "1s"
`

var build struct {
	sync.Once
	dir, path string
	err       error
}

// program gives the path of pptp-alg, building it when nobody said which.
func program(t testing.TB) string {
	t.Helper()
	build.Do(func() {
		root, err := filepath.Abs("..")
		if err != nil {
			build.err = err
			return
		}
		if build.path = os.Getenv("PPTP_ALG_BIN"); build.path != "" {
			if !filepath.IsAbs(build.path) {
				build.path = filepath.Join(root, build.path)
			}
			_, build.err = os.Stat(build.path)
			return
		}
		if build.dir, build.err = os.MkdirTemp("", "pptp-alg-"); build.err != nil {
			return
		}
		build.path = filepath.Join(build.dir, "pptp-alg")
		cmd := exec.Command("go", "build", "-o", build.path, "./cmd/pptp-alg")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released; with cgo it can't drop privileges
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = fmt.Errorf("build pptp-alg: %w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

var checkLab = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return lab.Check(ctx)
})

func TestMain(m *testing.M) {
	// Scenarios wait most of the time: more of them at once than processors.
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", "6")
	}
	code := m.Run()
	if build.dir != "" {
		_ = os.RemoveAll(build.dir)
	}
	os.Exit(code)
}

// world is a lab with peers and, after daemon, the program under test.
type world struct {
	*testing.T
	*lab.Site
	ctx    context.Context
	daemon *lab.Daemon
	nodes  []*peer.Node
	before string // the router's ruleset without the daemon

	measured measured
}

// measured is what a scenario says in the end.
type measured struct {
	sync.Mutex
	calls           int // up at once, as the daemon listed them
	asked, answered int // GRE packets of talk
	first           time.Duration
}

func (m *measured) talked(asked, answered int, first time.Duration) {
	m.Lock()
	defer m.Unlock()
	if m.asked == 0 {
		m.first = first
	}
	m.asked, m.answered = m.asked+asked, m.answered+answered
}

func (w *world) sayMeasured() {
	m := &w.measured
	m.Lock()
	defer m.Unlock()
	var said []string
	if m.calls > 0 {
		said = append(said, fmt.Sprintf("%d calls up at once", m.calls))
	}
	if m.asked > 0 {
		said = append(said, fmt.Sprintf("%v to the first answer, %d of %d GRE packets lost", m.first.Round(10*time.Microsecond), m.asked-m.answered, m.asked))
	}
	if len(said) > 0 {
		w.Logf("measured: %s: %s", w.Name(), strings.Join(said, ", "))
	}
}

// newWorld makes a lab without a daemon, in parallel with other tests.
func newWorld(t *testing.T, p lab.Plan) *world {
	t.Helper()
	return worldOf(t, func(ctx context.Context) (*lab.Site, error) { return lab.NewSite(ctx, p) })
}

// worldOf is newWorld for labs that no Plan describes.
func worldOf(t *testing.T, build func(context.Context) (*lab.Site, error)) *world {
	t.Helper()
	t.Parallel()
	if err := checkLab(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*patience)
	s, err := build(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	w := &world{T: t, Site: s, ctx: ctx}
	t.Cleanup(func() {
		if t.Failed() {
			var b strings.Builder
			s.Describe(&b)
			t.Log(b.String())
		}
		w.sayMeasured()
		for _, n := range w.nodes {
			_ = n.Close()
		}
		cancel()
		if err := s.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	w.before = w.structure()
	return w
}

// withDaemon makes a lab and starts the daemon in it.
func withDaemon(t *testing.T, p lab.Plan, args ...string) *world {
	t.Helper()
	w := newWorld(t, p)
	w.start(quickConfig, args...)
	return w
}

// start starts the daemon on the router and waits until it answers.
func (w *world) start(config string, args ...string) *lab.Daemon {
	w.Helper()
	d, err := w.Router.StartDaemon(lab.DaemonOptions{Program: program(w), Args: args, Config: config})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	if err := d.Ready(ctx); err != nil {
		w.Fatal(err)
	}
	w.daemon = d
	return d
}

// structure gives what stays the same in the router's rules.
func (w *world) structure() string {
	w.Helper()
	for end := time.Now().Add(patience); ; {
		s, err := w.Router.Structure()
		if err == nil {
			return s
		}
		// A table that is replaced meanwhile is there in parts only, and the library does not always say that this was why.
		if time.Now().After(end) {
			w.Fatal(err)
		}
	}
}

func (w *world) node(at lab.Station, cfg peer.Config) *peer.Node {
	w.Helper()
	cfg.Network, cfg.Address = at, at.Address
	if cfg.Name == "" {
		cfg.Name = fmt.Sprintf("%s (%v)", at.Name(), at.Address)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	n, err := peer.Start(cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.nodes = append(w.nodes, n)
	return n
}

// client and server make the peer at the i-th client's or server's address.
func (w *world) client(i int, cfg peer.Config) *peer.Node {
	w.Helper()
	return w.node(w.Clients[i], cfg)
}

func (w *world) server(i int, cfg peer.Config) *peer.Node {
	w.Helper()
	n := w.node(w.Servers[i], cfg)
	w.must(n.Listen(peer.Port))
	return n
}

func (w *world) must(errs ...error) {
	w.Helper()
	if err := errors.Join(errs...); err != nil {
		w.Fatal(err)
	}
}

func (w *world) check(errs ...error) {
	w.Helper()
	for _, err := range errs {
		if err != nil {
			w.Error(err)
		}
	}
}

func control(server *peer.Node) netip.AddrPort {
	return netip.AddrPortFrom(server.Address(), peer.Port)
}

// dial opens a control connection.
func (w *world) dial(client, server *peer.Node) *peer.Session {
	w.Helper()
	s, err := client.Dial(w.ctx, control(server))
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// call places a call on a session.
func (w *world) call(s *peer.Session) *peer.Call {
	w.Helper()
	c, err := s.OutgoingCall(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// dialAndCall is dial and call.
func (w *world) dialAndCall(client, server *peer.Node) *peer.Call {
	w.Helper()
	return w.call(w.dial(client, server))
}

// talk sends GRE both ways on a call and wants every answer.
func (w *world) talk(c *peer.Call, far *peer.Node) {
	w.Helper()
	const count = 3
	for _, end := range []*peer.Call{c, w.far(c, far)} {
		before, began := end.Stats().Answers, time.Now()
		w.check(end.Echo(w.ctx, 1, 300))
		first := time.Since(began)
		w.check(end.Echo(w.ctx, count-1, 300))
		w.measured.talked(count, end.Stats().Answers-before, first)
	}
}

// far gives the other end of a call.
func (w *world) far(c *peer.Call, at *peer.Node) *peer.Call {
	w.Helper()
	f, err := at.FindCall(w.ctx, c.Token())
	if err != nil {
		w.Fatal(err)
	}
	return f
}

// noFaults fails for everything that arrived where it should not have.
func (w *world) noFaults() {
	w.Helper()
	for _, n := range w.nodes {
		for _, f := range n.Faults() {
			w.Errorf("%s: %s", n.Name(), f)
		}
	}
}

// status waits until the daemon lists this many calls that are up.
func (w *world) status(calls int) *lab.Status {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	s, err := w.daemon.WaitStatus(ctx, func(s *lab.Status) error {
		if up := s.Up(); len(up) != calls {
			return fmt.Errorf("status lists %d calls that are up instead of %d", len(up), calls)
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	w.measured.Lock()
	w.measured.calls = max(w.measured.calls, calls)
	w.measured.Unlock()
	return s
}

// daemonStatus asks the daemon once.
func (w *world) daemonStatus() *lab.Status {
	w.Helper()
	s, err := w.daemon.Status(w.ctx)
	w.must(err)
	return s
}

// eventually repeats a check until it is content.
func (w *world) eventually(what string, check func() error) {
	w.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	w.Errorf("%s: %v", what, err)
}

// finish ends a scenario in order: no faults, every connection closed, no
// conntrack entry of a call left, the daemon stopped, and the router's rules as
// they were.
func (w *world) finish() {
	w.Helper()
	w.drain()
	if w.daemon != nil {
		w.stop()
	}
}

// drain is finish without the end of the daemon.
func (w *world) drain() {
	w.Helper()
	w.noFaults()
	for _, n := range w.nodes {
		_ = n.Close()
	}
	w.eventually("conntrack entries of calls should go with the calls", func() error {
		gre, err := w.Router.GRE()
		if err == nil && len(gre) > 0 {
			err = fmt.Errorf("%d entries are left:\n%s", len(gre), lab.FlowsText(gre))
		}
		return err
	})
	if w.daemon == nil {
		return
	}
	w.eventually("elements of the guard should go with the calls", func() error {
		elements, err := w.Router.Elements(table, guardSet)
		if err == nil && len(elements) > 0 {
			err = fmt.Errorf("%d elements are left: %x", len(elements), elements)
		}
		return err
	})
	w.eventually("the rules should know no control connections that are over", func() error {
		elements, err := w.Router.Elements(table, connectionsSet)
		if open := w.daemonStatus().Open(); err == nil && len(elements) > 2*open {
			err = fmt.Errorf("%d elements, and %d connections: %x", len(elements), open, elements)
		}
		return err
	})
	if s := w.status(0); len(s.Calls) != 0 {
		w.Errorf("status still lists %d calls", len(s.Calls))
	}
}

// What the daemon's documentation promises to have in the kernel.
const (
	table          = "pptp-alg"
	guardSet       = "calls"
	connectionsSet = "connections" // both flows of those control connections whose entries the daemon puts back
)

// stop stops the daemon with SIGTERM and wants the rules as they were before.
func (w *world) stop() {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	w.check(w.daemon.Stop(ctx))
	if after := w.structure(); after != w.before {
		w.Errorf("the router's rules before the daemon were\n%s\nand after it\n%s", w.before, after)
	}
}

// rawHost opens a raw host; the device is the segment's.
func (w *world) rawHost(at lab.Station, device string, gateway netip.Addr) *raw.Host {
	w.Helper()
	h, err := raw.Open(w.ctx, at, device, at.Address, gateway)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		for _, f := range h.Faults() {
			w.Error(f)
		}
		_ = h.Close()
	})
	return h
}
