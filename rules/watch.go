package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// groupTables is NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h): whoever is in it is told of every transaction in the
// namespace.
const groupTables = 7

// A Watch tells when somebody else has changed nftables in the namespace. While nobody does, it costs nothing: there is
// no timer, and what the Kernel that it belongs to changes does not wake anybody.
type Watch struct {
	conn   *netlink.Conn
	raw    syscall.RawConn
	buffer []byte
	closed atomic.Bool
}

// A Change is one or several transactions of others. Which tables they were about is not told.
type Change struct {
	Program string // the name of the process that made the last of them (at most 15 bytes); empty if it is not known
	PID     uint32 // its process ID, as the kernel's first PID namespace counts; 0 if it is not known
	Lost    bool   // transactions came faster than they were received: there were more
}

// String names the program for a log.
func (c Change) String() string {
	if c.Program == "" {
		return "an unknown program"
	}
	return fmt.Sprintf("%s[%d]", c.Program, c.PID)
}

// Watch begins to watch, in the namespace of the calling thread or that of the options: use the same as for Dial.
//
// The kernel ends each transaction with a message of its own, NFT_MSG_NEWGEN, which names the process; only those of
// others pass the filter, so that a transaction of thousands of objects wakes the program once, and its own never.
func (k *Kernel) Watch(options ...Option) (*Watch, error) {
	const doing = "watch nftables"
	var config netlink.Config
	for _, o := range options {
		o(&config)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &config)
	if err != nil {
		return nil, explain(doing, err)
	}
	w := &Watch{conn: conn, buffer: make([]byte, watchBuffer)}
	filter, err := othersOnly(k.conn.PID())
	if err == nil {
		err = conn.SetBPF(filter) // before the first message can come
	}
	if err == nil {
		err = conn.JoinGroup(groupTables)
	}
	if err == nil {
		w.raw, err = conn.SyscallConn()
	}
	if err != nil {
		conn.Close()
		return nil, explain(doing, err)
	}
	return w, nil
}

// watchBuffer holds an NFT_MSG_NEWGEN: a header, a number, a name and a process ID.
const watchBuffer = 4 << 10

// othersOnly lets NFT_MSG_NEWGEN pass unless it is about a transaction of the socket with that port ID. The fields of
// struct nlmsghdr are in the machine's byte order, while the filter loads big-endian.
func othersOnly(own uint32) ([]bpf.RawInstruction, error) {
	const typeOffset, portOffset = 4, 12
	kind := binary.NativeEndian.AppendUint16(nil, uint16(nftables(unix.NFT_MSG_NEWGEN)))
	port := binary.NativeEndian.AppendUint32(nil, own)
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typeOffset, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(binary.BigEndian.Uint16(kind)), SkipTrue: 3},
		bpf.LoadAbsolute{Off: portOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(port), SkipTrue: 1},
		bpf.RetConstant{Val: watchBuffer},
		bpf.RetConstant{Val: 0},
	})
}

// Receive waits until somebody else has changed something, and takes in all that was changed up to now. After Close it
// returns os.ErrClosed.
func (w *Watch) Receive() (Change, error) {
	var c Change
	var failed error
	wait := w.raw.Read(func(fd uintptr) bool {
		some := false
		for {
			n, _, _, _, err := unix.Recvmsg(int(fd), w.buffer, nil, unix.MSG_DONTWAIT)
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				return some
			case err == unix.ENOBUFS:
				c.Lost, some = true, true
			case err != nil:
				failed = err
				return true
			default:
				some = true
				for _, m := range parseMessages(w.buffer[:n]) {
					c.read(m)
				}
			}
		}
	})
	switch {
	case wait != nil && w.closed.Load():
		return Change{}, os.ErrClosed
	case errors.Join(wait, failed) != nil:
		return Change{}, fmt.Errorf("rules: watch nftables: %w", errors.Join(wait, failed))
	}
	return c, nil
}

// read takes the process from an NFT_MSG_NEWGEN.
func (c *Change) read(m netlink.Message) {
	c.Program, c.PID = "", 0
	for kind, v := range attributes(m) {
		switch kind {
		case unix.NFTA_GEN_PROC_NAME:
			c.Program = text(v)
		case unix.NFTA_GEN_PROC_PID:
			c.PID = number(v)
		}
	}
}

// Close ends the watch, and a Receive that waits.
func (w *Watch) Close() error {
	w.closed.Store(true)
	return w.conn.Close()
}

// Missing returns those of the calls that are not in the guard (any more). ErrAbsent: there is no table, or no such set.
func (k *Kernel) Missing(calls []Call) ([]Call, error) {
	return lacking(calls, k.Calls)
}

func lacking[E comparable](wanted []E, list func() ([]E, error)) ([]E, error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	found, err := list()
	if err != nil {
		return nil, err
	}
	there := make(map[E]struct{}, len(found))
	for _, e := range found {
		there[e] = struct{}{}
	}
	var gone []E
	for _, e := range wanted {
		if _, ok := there[e]; !ok {
			gone = append(gone, e)
		}
	}
	return gone, nil
}
