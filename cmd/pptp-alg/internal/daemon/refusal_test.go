package daemon

import (
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"pptp-alg/nat"
)

// failing has all of the calling thread's sending, or its receiving, fail from now on: a filter for system calls answers
// instead of the kernel (seccomp(2)). The thread has it for ever.
func failing(t *testing.T, number unix.Errno, calls ...uint32) {
	t.Helper()
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 4}} // seccomp_data.nr
	for i, call := range calls {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: call, SkipTrue: uint8(len(calls) - i)})
	}
	program = append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}, bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(number)})
	raw, err := bpf.Assemble(program)
	if err != nil {
		t.Error(err)
		return
	}
	// struct sock_filter has the fields of bpf.RawInstruction.
	f := unix.SockFprog{Len: uint16(len(raw)), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&f)), 0, 0); err != nil {
		t.Error(err)
	}
	runtime.KeepAlive(raw)
}

// Whatever error the kernel answers, to a request or to the reading of its answer: the new call is refused with the
// error's words, the one that is up stays, and its renewal is tried again.
func TestKernelErrors(t *testing.T) {
	for _, number := range []unix.Errno{unix.EPERM, unix.EBUSY, unix.ENOMEM, unix.ENOBUFS} {
		for what, calls := range map[string][]uint32{"sending": {unix.SYS_SENDTO, unix.SYS_SENDMSG}, "receiving": {unix.SYS_RECVFROM, unix.SYS_RECVMSG}} {
			inKernel(t, func(d *daemon) {
				now := time.Now()
				c := connected(t, d)
				if c == nil {
					return
				}
				up := c.Request(now, nat.Client, nat.Outgoing, 5, nil)
				if up.Refused {
					t.Errorf("refused: %s", up.Reason)
					return
				}
				c.Up(now, up)
				failing(t, number, calls...)
				refused := c.Request(now, nat.Client, nat.Outgoing, 6, nil)
				if !refused.Refused || refused.Reason == "" || d.table.Counters.RefusedKernel != 1 {
					t.Errorf("%s fails with %v: refused %v with %q", what, number, refused.Refused, refused.Reason)
				}
				d.table.Expire(now.Add(entryRenew))
				next, more := d.table.Next()
				if !up.Live() || !more || next.After(now.Add(entryRenew+time.Minute)) {
					t.Errorf("%s fails with %v: the call that was up is %v, and something is done at %v", what, number, up.State, next.Sub(now))
				}
				t.Logf("%s fails with %v: %s", what, number, refused.Reason)
			})
		}
	}
}
