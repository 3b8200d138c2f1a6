//go:build !nofastpath

package fastpath

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is bpf(2), as far as it is needed. Each struct is the part of union bpf_attr that its command reads: the
// kernel takes what is missing for zeros.

// call makes the system call.
func call[T any](command uintptr, attr *T) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR, unix.EAGAIN: // the verifier was interrupted by a signal
			continue
		}
		return -1, os.NewSyscallError("bpf", errno)
	}
}

// address is a pointer in the 64 bits that bpf(2) has for it whatever the machine's are. The garbage collector sees it as
// one, so that what it points at stays, and is found where it moves to with a goroutine's stack.
type address [8 / unsafe.Sizeof(uintptr(0))]unsafe.Pointer

func at[T any](p *T) (a address) {
	i := 0
	if len(a) > 1 && bigEndian {
		i = 1
	}
	a[i] = unsafe.Pointer(p)
	return a
}

// name is one of the kernel's names of maps and programs, which bpftool(8) shows.
func name(s string) (n [16]byte) {
	copy(n[:len(n)-1], s)
	return n
}

type mapAttr struct {
	Type, Key, Value, Entries, Flags, Inner, Node uint32
	Name                                          [16]byte
}

func makeMap(label string, kind, key, value, entries, flags uint32) (int, error) {
	a := mapAttr{Type: kind, Key: key, Value: value, Entries: entries, Flags: flags, Name: name("pptp_" + label)}
	fd, err := charged(func() (int, error) { return call(unix.BPF_MAP_CREATE, &a) })
	if err != nil {
		return -1, fmt.Errorf("make the eBPF map %s: %w", label, err)
	}
	return fd, nil
}

// charged does what kernels before 5.11 count as locked memory, of which a process may have 64 KB unless it is told otherwise.
func charged(do func() (int, error)) (int, error) {
	fd, err := do()
	if !errors.Is(err, unix.EPERM) {
		return fd, err
	}
	most := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &most) == nil {
		fd, err = do()
	}
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w (CAP_BPF is needed; before Linux 5.11 also an unlimited RLIMIT_MEMLOCK, LimitMEMLOCK=infinity in a systemd unit)", err)
	}
	return fd, err
}

type loadAttr struct {
	Type, Count           uint32
	Instructions, Licence address
	LogLevel, LogSize     uint32
	Log                   address
	KernelVersion, Flags  uint32
	Name                  [16]byte
}

const instructionSize = 8

// load gives a program to the kernel's verifier. Its last words are in the error.
func load(label string, instructions []byte, flags uint32) (int, error) {
	licence := []byte("Dual MIT/GPL\x00")
	a := loadAttr{
		Type: unix.BPF_PROG_TYPE_SCHED_CLS, Count: uint32(len(instructions) / instructionSize),
		Instructions: at(&instructions[0]), Licence: at(&licence[0]), Flags: flags, Name: name("pptp_" + label),
	}
	fd, err := charged(func() (int, error) { return call(unix.BPF_PROG_LOAD, &a) })
	if err != nil && !errors.Is(err, unix.EPERM) {
		log := make([]byte, 64<<10)
		a.LogLevel, a.LogSize, a.Log = 1, uint32(len(log)), at(&log[0])
		if fd, err = call(unix.BPF_PROG_LOAD, &a); err != nil {
			err = fmt.Errorf("%w%s", err, lastWords(log))
		}
	}
	if err != nil {
		return -1, fmt.Errorf("load the eBPF program %s: %w", label, err)
	}
	return fd, nil
}

// lastWords are the last lines of the verifier's log that say something.
func lastWords(log []byte) string {
	log, _, _ = bytes.Cut(log, []byte{0})
	lines := bytes.Split(bytes.TrimSpace(log), []byte{'\n'})
	for len(lines) > 0 && bytes.HasPrefix(lines[len(lines)-1], []byte("processed ")) {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 || len(lines[0]) == 0 {
		return ""
	}
	const some = 3
	return ": " + string(bytes.Join(lines[max(0, len(lines)-some):], []byte("; ")))
}

type elementAttr struct {
	Map, _     uint32
	Key, Value address
	Flags      uint64
}

func element[K, V any](command uintptr, fd int, k *K, v *V) error {
	a := elementAttr{Map: uint32(fd), Key: at(k), Value: at(v)}
	_, err := call(command, &a)
	return err
}

type batchAttr struct {
	In, Out, Keys, Values address
	Count, Map            uint32
	ElementFlags, Flags   uint64
}

type linkAttr struct {
	Program, Target, Kind, Flags uint32
	Relative, _                  uint32
	Revision                     uint64
}

// makeLink attaches a program to a device, behind those of others, until the descriptor that is returned is closed.
func makeLink(program int, to point) (int, error) {
	a := linkAttr{Program: uint32(program), Target: uint32(to.link), Kind: unix.BPF_TCX_INGRESS}
	if to.egress {
		a.Kind = unix.BPF_TCX_EGRESS
	}
	return call(unix.BPF_LINK_CREATE, &a)
}

type queryAttr struct {
	Target, Kind, QueryFlags, AttachFlags uint32
	Programs                              address
	Count, _                              uint32
	ProgramFlags, Links, LinkFlags        address
	Revision                              uint64
}

// programsAt counts the programs that are attached to a device's ingress by tcx; 0 where the kernel has none.
func programsAt(link int) int {
	a := queryAttr{Target: uint32(link), Kind: unix.BPF_TCX_INGRESS}
	if _, err := call(unix.BPF_PROG_QUERY, &a); err != nil {
		return 0
	}
	return int(a.Count)
}

type infoAttr struct {
	FD, Length uint32
	Info       address
}

// linkInfo is the beginning of struct bpf_link_info, for links of tcx.
type linkInfo struct {
	Type, ID, Program, _ uint32
	Device, Kind         uint32
}

// linkedTo returns the device that a link is attached to; 0: to none any more.
func linkedTo(fd int) int {
	var info linkInfo
	a := infoAttr{FD: uint32(fd), Length: uint32(unsafe.Sizeof(info)), Info: at(&info)}
	if _, err := call(unix.BPF_OBJ_GET_INFO_BY_FD, &a); err != nil {
		return 0
	}
	return int(info.Device)
}
