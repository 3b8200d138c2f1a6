package bench

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
)

func needLab(t *testing.T) {
	t.Helper()
	if err := lab.Check(t.Context()); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func world1(t *testing.T, k Kind, o options) *world {
	t.Helper()
	w, err := newWorld(t.Context(), k, o)
	if errors.Is(err, errNoHelper) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func TestFrame(t *testing.T) {
	want := tuple{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("198.18.255.1"), 0xabcd}
	b := frame(make([]byte, 6), make([]byte, 6), want, 7, 100)
	if got, ok := parse(b); !ok || got != want {
		t.Errorf("%v, %v instead of %v", got, ok, want)
	}
	if len(b) != 14+20+12+100 {
		t.Errorf("a frame with 100 bytes of payload has %d", len(b))
	}
	for at := range b[:ethernetSize+ipv4Size] {
		if at < 12 { // hardware addresses are anything
			continue
		}
		broken := slices.Clone(b)
		broken[at] ^= 1
		if got, ok := parse(broken); ok {
			t.Errorf("with byte %d changed it is read as %v", at, got)
		}
	}
	for n := range b {
		if got, ok := parse(b[:n]); ok {
			t.Errorf("%d bytes of it are read as %v", n, got)
		}
	}
}

// TestCounting: what a generator says was delivered is what arrived, and a lost
// packet is not counted.
func TestCounting(t *testing.T) {
	needLab(t)
	w := world1(t, Plain, options{})
	flows := w.flows(10)
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	for _, d := range directions {
		if good, err := w.check(d, flows); err != nil || len(good) != 10 {
			t.Errorf("%s: %d of 10 flows arrive, %v", d, len(good), err)
		}
	}
	for _, d := range directions {
		g, err := w.generator(d, flows, 100)
		if err != nil {
			t.Fatal(err)
		}
		defer g.close()
		got, err := g.run(time.Millisecond)
		if err != nil || got.Sent < batchSize || got.Delivered != got.Sent || got.CPU <= 0 || got.Wall < time.Millisecond {
			t.Errorf("%s: %+v, %v", d, got, err)
		}
	}
	// A router that drops GRE.
	if err := w.router.Firewall(lab.DropGRE("lan")); err != nil {
		t.Fatal(err)
	}
	g, err := w.generator(Out, flows, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if got, err := g.run(time.Millisecond); err != nil || got.Delivered != 0 || got.Sent == 0 {
		t.Errorf("through a firewall that drops: %+v, %v", got, err)
	}
	// The sink: what is dropped at the device does not come to the peers. Without it
	// they take what no call is for, which is a fault of theirs.
	if err := errors.Join(w.router.Firewall(), w.undrain()); err != nil {
		t.Fatal(err)
	}
	if f := w.server.Faults(); f != nil {
		t.Errorf("the sink lets through: %v", f)
	}
	if _, err := w.check(Out, flows[:1]); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); w.server.Faults() == nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if w.server.Faults() == nil {
		t.Error("without the sink nothing arrives at the peer")
	}
}

// TestWrongTranslation: a packet that arrives with another Call ID or address than
// it should does not pass for one that was carried.
func TestWrongTranslation(t *testing.T) {
	needLab(t)
	w := world1(t, Masq, options{})
	flows := w.flows(1)
	if good, err := w.check(Out, flows); err != nil || len(good) != 1 {
		t.Fatalf("%v, %v", good, err)
	}
	for _, change := range []func(*tuple){
		func(a *tuple) { a.callID++ },
		func(a *tuple) { a.src = clientAddress(0) },
	} {
		f := flow{flows[0].sent, map[Direction]tuple{Out: flows[0].arrives[Out]}}
		a := f.arrives[Out]
		change(&a)
		f.arrives[Out] = a
		if good, err := w.check(Out, []flow{f}); err == nil || len(good) != 0 {
			t.Errorf("taken for %v", a)
		}
	}
}

// TestUse: a process's usage grows by what it does.
func TestUse(t *testing.T) {
	sleeper := exec.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() }()
	u, err := use(sleeper.Process.Pid)
	if err != nil || u.resident == 0 || u.cpu > 10*time.Second {
		t.Errorf("%+v, %v", u, err)
	}
	before, err := use(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cpu := threadTime()
	for threadTime()-cpu < 20*time.Millisecond && threadTime() >= cpu { // the thread may change; its time then too
	}
	after, err := use(os.Getpid())
	if err != nil || after.cpu <= before.cpu {
		t.Errorf("%v of CPU, then %v, %v", before.cpu, after.cpu, err)
	}
	if _, err := use(1 << 30); err == nil {
		t.Error("a process that does not exist has a usage")
	}
}

// TestVanish: a call goes on without its control connection, whose ends have gone
// without a word.
func TestVanish(t *testing.T) {
	needLab(t)
	program := filepath.Join(t.TempDir(), "pptp-alg")
	if out, err := exec.Command("go", "build", "-o", program, "pptp-alg/cmd/pptp-alg").CombinedOutput(); err != nil {
		t.Fatalf("build pptp-alg: %v\n%s", err, out)
	}
	w := world1(t, ALG, options{program: program, config: limitsOff})
	if err := w.place(t.Context(), 20, 1, manner{echo: true, vanish: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	for _, d := range directions {
		if good, err := w.check(d, w.flows(20)); err != nil || len(good) != 20 {
			t.Errorf("%s: %d of 20 calls are carried, %v", d, len(good), err)
		}
	}
	s, err := w.daemon.Status(t.Context())
	if err != nil || len(s.Up()) != 20 || len(s.Ended) != 0 {
		t.Errorf("%d calls are up, %d ended, %v", len(s.Up()), len(s.Ended), err)
	}
}

// TestSlowly: a call that is not carried in both directions is not on the fast path.
func TestSlowly(t *testing.T) {
	s := &lab.Status{Calls: []lab.CallStatus{
		{State: lab.StateUp, FastPath: &lab.FastPathStatus{ToServer: true, ToClient: true}},
		{State: lab.StateUp, FastPath: &lab.FastPathStatus{ToServer: true, Reason: "one"}},
		{State: lab.StateUp, FastPath: &lab.FastPathStatus{ToClient: true, Reason: "two"}},
		{State: lab.StateUp},
		{FastPath: &lab.FastPathStatus{Reason: "it is not up"}},
	}}
	if got, want := slowly(s), []string{"one", "two", "it is off"}; !slices.Equal(got, want) {
		t.Errorf("%q instead of %q", got, want)
	}
}

// TestFast: the calls of the fast path are on it before anything is measured, through the bridge, and are carried as they should.
func TestFast(t *testing.T) {
	needLab(t)
	program := filepath.Join(t.TempDir(), "pptp-alg")
	build := exec.Command("go", "build", "-o", program, "pptp-alg/cmd/pptp-alg")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build pptp-alg: %v\n%s", err, out)
	}
	w := world1(t, Fast, options{program: program, config: limitsOff, inside: bridged})
	if err := w.place(t.Context(), 20, 1, manner{echo: true, vanish: true}); err != nil {
		t.Fatal(err)
	}
	flows := w.flows(20)
	// A firewall that changes closes the fast path: packets have to pass it again.
	if err := errors.Join(w.drain(), w.router.Firewall(lab.Masquerade("wan")), w.quicken(t.Context(), flows)); err != nil {
		t.Fatal(err)
	}
	for _, d := range directions {
		if good, err := w.check(d, flows); err != nil || len(good) != 20 {
			t.Errorf("%s: %d of 20 calls are carried, %v", d, len(good), err)
		}
	}
	s, err := w.daemon.Status(t.Context())
	if err != nil || len(s.Up()) != 20 || len(slowly(s)) != 0 {
		t.Errorf("of %d calls on the fast path some are not: %v, %v", len(s.Up()), slowly(s), err)
	}
	if link, err := w.router.Netlink().LinkByName("lan"); err != nil || link.Type() != "bridge" {
		t.Errorf("the router's inside is no bridge: %v, %v", link, err)
	}
}
