package privilege

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrCgo says that this build cannot drop anything: with cgo, threads may exist
// of which the Go runtime knows nothing, so it reaches only its own.
var ErrCgo = errors.New("privileges cannot be dropped in a program built with cgo: build it with CGO_ENABLED=0")

// maxCapability bounds the capabilities: they are 64 bits wide. The kernel
// answers EINVAL from the first one on that it does not know.
const maxCapability = 63

// Drop leaves every thread of the process with no capability but CAP_NET_ADMIN and
// those of also that it has, which are not inheritable, and sets no_new_privs (prctl(2)): nothing that the
// process could ever execute has more. User and group stay. Then it looks
// whether that is so, in /proc.
//
// What the threads lack already stays away. A process without CAP_SETPCAP
// cannot take anything out of its bounding set; with no_new_privs that set
// gives nothing either.
func Drop(also ...uintptr) error {
	keep, err := kept(also)
	if err != nil {
		return err
	}
	if err := allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	// Kernels before 4.3 have no ambient set; EINVAL says so.
	if err := allThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for c := uintptr(0); c <= maxCapability; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		err := allThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			break // no such capability, so none beyond it; or no CAP_SETPCAP
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(keep), uint32(keep>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return fmt.Errorf("set capabilities: %w", errno)
	}
	// A thread that is about to end takes part in no such call any more. It is in /proc with what it had until it is gone.
	for end := time.Now().Add(ending); ; time.Sleep(time.Millisecond) {
		if err := verify(os.Getpid(), keep); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// ending is how long a thread may take to end.
const ending = 5 * time.Second

// kept is CAP_NET_ADMIN and those of others that this process has, one bit each.
func kept(also []uintptr) (uint64, error) {
	keep := uint64(1) << unix.CAP_NET_ADMIN
	for _, c := range also {
		has, err := Effective(int(c))
		if err != nil {
			return 0, err
		}
		if has {
			keep |= 1 << c
		}
	}
	return keep, nil
}

// allThreads has every thread make a system call.
func allThreads(call, a, b uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(call, a, b, 0, 0, 0, 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return ErrCgo
	}
	return errno
}

// Verify returns an error unless all threads of a process are as Drop leaves
// them, as far as /proc/PID/task/TID/status tells. What is left in the bounding
// set does not count where a process could not drop it.
func Verify(pid int) error { return verify(pid, 1<<unix.CAP_NET_ADMIN) }

func verify(pid int, keep uint64) error {
	files, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task/[0-9]*/status"))
	if err == nil && len(files) == 0 {
		err = errors.New("there is no /proc to read them in")
	}
	if err != nil {
		return fmt.Errorf("verify dropped privileges: %w", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // a thread that ended meanwhile
		}
		if err != nil {
			return fmt.Errorf("verify dropped privileges: %w", err)
		}
		if err := verifyThread(b, keep); err != nil {
			return fmt.Errorf("privileges were not dropped: thread %s: %w", filepath.Base(filepath.Dir(f)), err)
		}
	}
	return nil
}

// verifyThread judges one thread's status.
func verifyThread(status []byte, keep uint64) error {
	want := map[string]uint64{
		"CapInh": 0, "CapAmb": 0, "NoNewPrivs": 1,
		"CapPrm": keep, "CapEff": keep,
	}
	for line := range bytes.Lines(status) {
		name, value, _ := strings.Cut(string(line), ":")
		must, known := want[name]
		if !known {
			continue
		}
		delete(want, name)
		if is, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err != nil || is != must {
			return fmt.Errorf("%s is %s, not %x", name, strings.TrimSpace(value), must)
		}
	}
	delete(want, "CapAmb") // not there before Linux 4.3
	for name := range want {
		return fmt.Errorf("the kernel does not say %s", name)
	}
	return nil
}
