package rules

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// missing skips a test for want of something, or fails it where everything has to be there.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s (CI is set: this must not be skipped)", what)
	}
	t.Skip(what)
}

// rootNamespace is where the tests were started. Nothing may be done to it.
var rootNamespace, _ = os.Readlink("/proc/self/ns/net")

// inNewNamespace moves the test into a network namespace of its own. The goroutine keeps its thread locked to the end, so
// that the thread ends with it, and the namespace with the thread. A subtest runs on another goroutine, and so outside:
// steps of such a test go through step instead of t.Run.
func inNewNamespace(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "making a network namespace needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		missing(t, "cannot make a network namespace: "+err.Error())
	}
}

// dial connects to nftables in the test's namespace.
func dial(t testing.TB) *Kernel {
	t.Helper()
	k, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// installable makes a configuration one that this kernel can do.
func installable(t testing.TB, k *Kernel, c Config) Ruleset {
	t.Helper()
	f, err := k.Features()
	if lacking := (*UnsupportedError)(nil); errors.As(err, &lacking) {
		missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Native = f.Queue
	return mustNew(t, c)
}

// nftTry runs nft in the test's namespace.
func nftTry(t testing.TB, input string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		missing(t, "nft is not installed")
	}
	if here, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || here == rootNamespace {
		t.Fatalf("nft %s would act outside of the test's namespace (%v)", strings.Join(args, " "), err)
	}
	command := exec.Command("nft", args...)
	command.Stdin = strings.NewReader(input)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	err := command.Run()
	if err != nil {
		return problems.String(), err
	}
	return out.String(), nil
}

// nft is nftTry for what has to work.
func nft(t testing.TB, input string, args ...string) string {
	t.Helper()
	out, err := nftTry(t, input, args...)
	if err != nil {
		t.Fatalf("nft %s: %v\n%s%s", strings.Join(args, " "), err, out, input)
	}
	return out
}

// listing is the whole ruleset of the namespace with handles, and without the warning that nft puts above a table with
// an xtables target in it.
func listing(t testing.TB) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(nft(t, "", "-a", "list", "ruleset")) {
		if !strings.HasPrefix(line, "# Warning:") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// step runs a part of a test on the test's own goroutine and says which part failed.
func step(t *testing.T, name string, f func()) {
	t.Helper()
	before := t.Failed()
	defer func() {
		if t.Failed() && !before {
			t.Logf("that was: %s", name)
		}
	}()
	f()
}
