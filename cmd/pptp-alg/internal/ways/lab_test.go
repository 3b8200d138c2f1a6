package ways

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A lab is a router's namespace: the LAN is a bridge, the uplink a veth, and there is a second uplink.
type lab struct {
	t *testing.T
	w *Ways
}

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

const (
	client = "10.77.1.1"
	server = "203.0.113.1"
)

func newLab(t *testing.T) *lab {
	t.Helper()
	inNewNamespace(t)
	l := &lab{t: t}
	l.ip("link set lo up",
		"link add lan type bridge", "link add port type veth peer name client", "link set port master lan",
		"link add up1 type veth peer name isp1", "link add up2 type veth peer name isp2")
	for _, dev := range []string{"lan", "port", "client", "up1", "isp1", "up2", "isp2"} {
		l.ip("link set " + dev + " up")
	}
	l.ip("addr add 10.77.0.1/16 dev lan", "addr add 198.18.1.1/24 dev up1", "addr add 198.18.2.1/24 dev up2",
		"route add default via 198.18.1.254")
	l.sysctl("net/ipv4/ip_forward", "1")
	l.sysctl("net/ipv4/conf/all/rp_filter", "0")
	if _, err := os.Stat(bridges); err == nil { // on where the kernel has br_netfilter
		l.sysctl("net/bridge/bridge-nf-call-iptables", "0")
	}
	w, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	l.w = w
	for _, dev := range []string{"lan", "up1", "up2"} {
		l.index(dev)
	}
	l.settle()
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lab) try(program string, arguments ...string) error {
	out, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		return errors.New(program + " " + strings.Join(arguments, " ") + ": " + err.Error() + ": " + string(out))
	}
	return nil
}

// ip runs commands of ip(8).
func (l *lab) ip(commands ...string) {
	l.t.Helper()
	for _, c := range commands {
		if err := l.try("ip", strings.Fields(c)...); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lab) tc(command string) {
	l.t.Helper()
	if err := l.try("tc", strings.Fields(command)...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) sysctl(name, value string) {
	l.t.Helper()
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// index waits until a device has a carrier: a bridge gets it a moment after its port.
func (l *lab) index(name string) int {
	l.t.Helper()
	var all []Link
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		if all, err = l.w.Links(); err != nil {
			l.t.Fatal(err)
		}
		for _, k := range all {
			if k.Name == name {
				return k.Index
			}
		}
	}
	l.t.Fatalf("there is no device %s among those in use: %v", name, all)
	return 0
}

// out is the question for a packet of the client.
func (l *lab) out() Question {
	l.t.Helper()
	return Question{Src: netip.MustParseAddr(client), Dst: netip.MustParseAddr(server), Link: l.index("lan")}
}

// ask asks for the way of packets that are taken at the device by which they come in.
func (l *lab) ask(q Question) (Way, error) {
	if err := errors.Join(l.w.Arrives(q.Link), l.w.Filtered(q.Link)); err != nil {
		return Way{}, err
	}
	return l.w.Find(q)
}

// found asks q and expects a way by the device to the next hop.
func (l *lab) found(q Question, device, gateway string, mtu int) {
	l.t.Helper()
	got, err := l.ask(q)
	if err != nil {
		l.t.Errorf("no way: %v", err)
		return
	}
	if want := (Way{Link: got.Link, Name: device, Gateway: netip.MustParseAddr(gateway), MTU: mtu, Ethernet: true}); got != want {
		l.t.Errorf("the way is %+v instead of %+v", got, want)
	}
}

// refused asks q and expects that the reason contains the words.
func (l *lab) refused(q Question, words string) {
	l.t.Helper()
	got, err := l.ask(q)
	var reason *Unsafe
	if !errors.As(err, &reason) {
		l.t.Errorf("the way is %+v, error %v, instead of a reason with %q", got, err, words)
	} else if !strings.Contains(reason.Reason, words) {
		l.t.Errorf("the reason is %q without %q", reason.Reason, words)
	}
}

// changed does something that has to be news.
func (l *lab) changed(what string, do func()) {
	l.t.Helper()
	l.settle()
	do()
	select {
	case _, open := <-l.w.Changes():
		if !open {
			l.t.Fatalf("%s: the watch is over", what)
		}
	case <-time.After(30 * time.Second):
		l.t.Errorf("%s is no news", what)
	}
	l.settle()
}

// unchanged does something that must not be news. What is news comes behind it.
func (l *lab) unchanged(what string, do func()) {
	l.t.Helper()
	l.settle()
	do()
	select {
	case <-l.w.Changes():
		l.t.Errorf("%s is news", what)
	case <-time.After(200 * time.Millisecond):
	}
}

// settle waits until no news come any more.
func (l *lab) settle() {
	for {
		select {
		case <-l.w.Changes():
		case <-time.After(100 * time.Millisecond):
			return
		}
	}
}
