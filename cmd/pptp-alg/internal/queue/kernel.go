package queue

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// procFile is where people find the queues of a network namespace.
const procFile = "/proc/net/netfilter/nfnetlink_queue"

// threadFile is the same for the namespace of the calling thread. /proc/net shows
// the namespace of the process's first thread.
const threadFile = "/proc/thread-self/net/netfilter/nfnetlink_queue"

// Kernel is what the kernel tells about a queue.
type Kernel struct {
	Queue   uint16
	PortID  uint32 // the listener's netlink port
	Waiting uint32 // packets without a verdict

	// QueueDropped counts packets that found the queue full,
	// SocketDropped those that found the listener's receive buffer full.
	QueueDropped, SocketDropped uint32

	// Sequence is the ID of the last packet.
	Sequence uint32
}

// Kernels lists the queues in use in the calling thread's network namespace.
// Without the queue in the kernel the list is empty.
func Kernels() ([]Kernel, error) {
	f, err := os.Open(threadFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	defer f.Close()
	return parseKernels(f)
}

// parseKernels reads the kernel's table. Its columns are queue number, port ID,
// waiting, copy mode, copy range, dropped by the queue, dropped at the socket,
// last ID, and a 1.
func parseKernels(r io.Reader) ([]Kernel, error) {
	var list []Kernel
	for s := bufio.NewScanner(r); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 8 {
			return nil, fmt.Errorf("list queues: unexpected line %q in %s", s.Text(), procFile)
		}
		var n [8]uint32
		for i := range n {
			v, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("list queues: column %d of %s: %w", i+1, procFile, err)
			}
			n[i] = uint32(v)
		}
		list = append(list, Kernel{
			Queue: uint16(n[0]), PortID: n[1], Waiting: n[2],
			QueueDropped: n[5], SocketDropped: n[6], Sequence: n[7],
		})
	}
	return list, nil
}
