package queue

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// testQueue is the queue of all kernel tests; each has a namespace of its own.
const testQueue = 1723

// missing ends a test that cannot run here. In CI that is a failure: a test that
// is always skipped guards nothing.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// inNamespace runs f in a fresh network namespace with its loopback device up, on
// a thread that ends with the test and takes the namespace along.
//
// f must open its sockets itself, not in other goroutines: they run elsewhere.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		defer close(done) // also when f fails the test
		if err := linkUp("lo", 1500); err != nil {
			t.Errorf("set lo up: %v", err)
			return
		}
		f()
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		missing(t, "needs root to make a network namespace")
	} else if err != nil {
		missing(t, "cannot make a network namespace: %v", err)
	}
}

func linkUp(name string, mtu uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, ifr); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// queueTo installs a rule that queues what the namespace sends to a port of a
// protocol. bypass lets packets through while nobody listens.
//
// It uses the xtables target NFQUEUE, which more kernels have than the native
// expression.
func queueTo(t *testing.T, protocol byte, port uint16, bypass bool) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatalf("open nftables: %v", err)
	}
	// struct xt_NFQ_info_v3: queue number, number of queues, flags, padded to 8.
	info := make(xt.Unknown, 8)
	copy(info, binaryutil.NativeEndian.PutUint16(testQueue))
	copy(info[2:], binaryutil.NativeEndian.PutUint16(1))
	if bypass {
		copy(info[4:], binaryutil.NativeEndian.PutUint16(1)) // NFQ_FLAG_BYPASS
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "queue-test"})
	chain := c.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info},
	}})
	if err := c.Flush(); err != nil {
		missing(t, "install a rule with the NFQUEUE target: %v "+
			"(needs CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_TARGET_NFQUEUE)", err)
	}
}

// openTest opens the test queue and closes it with f's end.
func openTest(t *testing.T, cfg Config) *Queue {
	t.Helper()
	cfg.Queue = testQueue
	q, err := Open(cfg)
	if errors.Is(err, ErrUnsupported) {
		missing(t, "%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}
