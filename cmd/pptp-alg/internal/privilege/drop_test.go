package privilege

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDropHelper drops the privileges of a process of its own, for TestDrop: what is
// gone cannot be had back.
func TestDropHelper(t *testing.T) {
	if os.Getenv("PRIVILEGE_TEST_HELPER") == "" {
		t.Skip("runs as a part of TestDrop")
	}
	// Threads that exist before, one of them locked, and threads that come later.
	var held sync.WaitGroup
	release := make(chan struct{})
	hold := func() {
		held.Add(1)
		go func() {
			runtime.LockOSThread()
			held.Done()
			<-release
		}()
	}
	for range 8 {
		hold()
	}
	held.Wait()
	var also []uintptr
	if os.Getenv("PRIVILEGE_TEST_HELPER") == "keep" {
		also = []uintptr{unix.CAP_BPF}
	}
	err := Drop(also...)
	for range 8 {
		hold()
	}
	held.Wait()
	if err != nil {
		os.Stdout.WriteString("error: " + err.Error() + "\n")
	} else {
		os.Stdout.WriteString("dropped\n")
	}
	io.Copy(io.Discard, os.Stdin)
	close(release)
}

// dropping starts the helper and returns what it says, and its process ID. It lives
// until the test ends.
func dropping(t *testing.T, how string) (string, int) {
	t.Helper()
	if had, err := Effective(unix.CAP_NET_ADMIN); err != nil || !had {
		t.Skipf("needs CAP_NET_ADMIN (%v)", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDropHelper$")
	cmd.Env = append(os.Environ(), "PRIVILEGE_TEST_HELPER="+how)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); io.Copy(io.Discard, out); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line), cmd.Process.Pid
}

// Every thread has lost everything but CAP_NET_ADMIN, as /proc has it. A build with
// cgo says that it cannot, and Verify sees that nothing was dropped.
func TestDrop(t *testing.T) {
	said, pid := dropping(t, "all")
	if said == "error: set no_new_privs: "+ErrCgo.Error() {
		if err := Verify(pid); err == nil || !strings.Contains(err.Error(), "were not dropped") {
			t.Errorf("nothing was dropped, and Verify says %v", err)
		}
		return
	}
	if said != "dropped" {
		t.Fatalf("the helper said %q", said)
	}
	files, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status")
	if len(files) < 16 {
		t.Fatalf("the helper has %d threads: are those that it holds not there?", len(files))
	}
	setpcap, err := Effective(unix.CAP_SETPCAP)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text := thread(t, f)
		for _, want := range []string{
			"CapInh:\t0000000000000000", "CapPrm:\t0000000000001000", "CapEff:\t0000000000001000",
			"CapBnd:\t0000000000001000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1",
		} {
			if text != "" && !strings.Contains(text, want+"\n") && (setpcap || !strings.HasPrefix(want, "CapBnd")) {
				t.Errorf("%s has no line %q", f, want)
			}
		}
	}
	if err := Verify(pid); err != nil {
		t.Error(err)
	}
}

// thread reads what the kernel says of a thread, nothing of one that has ended.
func thread(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		t.Fatal(err)
	}
	return string(b)
}

// Verify looks at this process, which dropped nothing.
func TestVerify(t *testing.T) {
	if err := Verify(os.Getpid()); err == nil || !strings.Contains(err.Error(), "thread ") {
		t.Errorf("with all privileges: %v", err)
	}
	if err := Verify(1 << 30); err == nil {
		t.Error("no such process: no error")
	}
	const good = "CapInh:\t0\nCapPrm:\t1000\nCapEff:\t1000\nCapAmb:\t0\nNoNewPrivs:\t1\n"
	for text, want := range map[string]string{
		good: "",
		strings.Replace(good, "CapAmb:\t0\n", "", 1):                   "",
		strings.Replace(good, "CapPrm:\t1000", "CapPrm:\t1001", 1):     "CapPrm is 1001",
		strings.Replace(good, "CapEff:\t1000", "CapEff:\t0", 1):        "CapEff is 0",
		strings.Replace(good, "CapInh:\t0", "CapInh:\t1000", 1):        "CapInh is 1000",
		strings.Replace(good, "NoNewPrivs:\t1", "NoNewPrivs:\t0", 1):   "NoNewPrivs is 0",
		strings.Replace(good, "CapAmb:\t0", "CapAmb:\t1000", 1):        "CapAmb is 1000",
		strings.Replace(good, "NoNewPrivs:\t1\n", "", 1):               "does not say NoNewPrivs",
		strings.Replace(good, "CapEff:\t1000", "CapEff:\tnonsense", 1): "CapEff is nonsense",
	} {
		err := verifyThread([]byte(text), 1<<unix.CAP_NET_ADMIN)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if errors.Is(Verify(os.Getpid()), ErrCgo) {
		t.Error("Verify knows nothing of cgo")
	}
}

// What is to be kept beside CAP_NET_ADMIN is, in every thread, and nothing else.
func TestDropKeeps(t *testing.T) {
	if had, err := Effective(unix.CAP_BPF); err != nil || !had {
		t.Skipf("needs CAP_BPF (%v)", err)
	}
	said, pid := dropping(t, "keep")
	if said == "error: set no_new_privs: "+ErrCgo.Error() {
		return
	}
	if said != "dropped" {
		t.Fatalf("the helper said %q", said)
	}
	files, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status")
	for _, f := range files {
		text := thread(t, f)
		for _, want := range []string{"CapPrm:\t0000008000001000", "CapEff:\t0000008000001000", "CapBnd:\t0000008000001000", "CapInh:\t0000000000000000"} {
			if text != "" && !strings.Contains(text, want+"\n") {
				t.Errorf("%s has no line %q", f, want)
			}
		}
	}
	if err := Verify(pid); err == nil {
		t.Error("CAP_BPF passes for nothing")
	}
}
