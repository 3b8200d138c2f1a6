package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultMaxLength is how many packets may wait in the kernel for a verdict.
	DefaultMaxLength = 4096

	// DefaultReadBuffer is the receive buffer in bytes (the kernel doubles it).
	// A queued control segment costs about a kilobyte and a half of it.
	DefaultReadBuffer = 4 << 20

	// backlog is how many decoded packets may wait in the channel. More would
	// only move the kernel's queue into our memory.
	backlog = 64

	// copyRange asks for whole packets (NFQA_CFG_PARAMS); the kernel itself stops
	// a few bytes short of 64 KB.
	copyRange = 0xffff

	// maxFaults is how many receive errors in a row, none of them understood,
	// end the loop. Retrying for ever would burn a processor.
	maxFaults = 16
)

// Config says which queue to open, and how.
type Config struct {
	// Queue is the queue's number.
	Queue uint16

	// MaxLength bounds the packets that wait for a verdict;
	// 0 means [DefaultMaxLength].
	MaxLength uint32

	// ReadBuffer is the size of the socket's receive buffer;
	// 0 means [DefaultReadBuffer].
	ReadBuffer int

	// NetNS is the file descriptor of a network namespace. 0 means the one of
	// the calling thread.
	NetNS int
}

// A Queue is a bound netfilter queue.
type Queue struct {
	number    uint16
	netns     int
	conntrack bool

	socket  *socket
	cancel  context.CancelFunc
	ctx     context.Context
	packets chan *Packet
	ended   chan struct{} // closed when nothing is received any more
	faults  int
	stats   stats

	closing  sync.Once
	finished sync.Once // closes packets
	mu       sync.Mutex
	err      error // why the loop ended
}

// Open binds the queue and starts to receive.
//
// It returns an error that [errors.Is] finds to be [ErrTaken], [ErrPermission] or
// [ErrUnsupported] where it is one of these.
func Open(cfg Config) (*Queue, error) {
	if cfg.MaxLength == 0 {
		cfg.MaxLength = DefaultMaxLength
	}
	if cfg.ReadBuffer == 0 {
		cfg.ReadBuffer = DefaultReadBuffer
	}
	flags := uint32(flagWithCT)
	for {
		q, err := bind(cfg, flags)
		switch {
		case err == nil:
			return q, nil
		case errors.Is(err, unix.EOPNOTSUPP) && flags != 0:
			flags = 0 // no CONFIG_NETFILTER_NETLINK_GLUE_CT
		default:
			return nil, explain(cfg, err)
		}
	}
}

// bind tries once to bind the queue.
func bind(cfg Config, flags uint32) (*Queue, error) {
	s, err := open(cfg.NetNS)
	if err != nil {
		return nil, err
	}
	// SO_RCVBUFFORCE where it is permitted. Best effort: a small buffer works. Before packets come, for there may be a
	// flood; the kernel's answers have to fit in all cases.
	_ = s.conn.SetReadBuffer(max(cfg.ReadBuffer, DefaultReadBuffer))
	early, err := s.bind(cfg.Queue, cfg.MaxLength, flags)
	if err != nil {
		_ = s.conn.Close() // which unbinds the queue
		return nil, err
	}
	if cfg.ReadBuffer < DefaultReadBuffer {
		_ = s.conn.SetReadBuffer(cfg.ReadBuffer)
	}
	q := &Queue{
		number:    cfg.Queue,
		netns:     cfg.NetNS,
		conntrack: flags&flagWithCT != 0,
		socket:    s,
		packets:   make(chan *Packet, backlog),
		ended:     make(chan struct{}),
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	go q.run(early)
	return q, nil
}

// explain turns the kernel's error numbers into words.
func explain(cfg Config, err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EBUSY):
		// nfnetlink answers EPERM without CAP_NET_ADMIN, and nfnetlink_queue too
		// when the queue has another owner. The table of queues tells them apart.
		if taken := taker(cfg); taken != nil {
			return taken
		}
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("open queue %d: %w", cfg.Queue, ErrPermission)
		}
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL):
		// No nfnetlink at all; nfnetlink without the queue subsystem.
		return fmt.Errorf("open queue %d: %w", cfg.Queue, ErrUnsupported)
	}
	return fmt.Errorf("open queue %d: %w", cfg.Queue, err)
}

// taker finds who has the queue, nil if nobody.
func taker(cfg Config) (taken *TakenError) {
	look := func() {
		list, _ := Kernels()
		for _, k := range list {
			if k.Queue == cfg.Queue {
				taken = &TakenError{Queue: k.Queue, PortID: k.PortID}
				taken.Owner, _ = ownerOf(k.PortID)
			}
		}
	}
	if cfg.NetNS == 0 {
		look()
		return taken
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Setns(cfg.NetNS, unix.CLONE_NEWNET) == nil {
			look()
		}
	}()
	<-done
	return taken
}

// Packets returns the channel of packets. It is closed when the queue is, or
// when receiving failed for good; then [Queue.Err] says why.
func (q *Queue) Packets() <-chan *Packet { return q.packets }

// HasConntrack reports whether the kernel sends conntrack entries along.
func (q *Queue) HasConntrack() bool { return q.conntrack }

// Err says why the channel was closed; nil after [Queue.Close].
func (q *Queue) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// Close unbinds the queue. The kernel drops the packets that wait for a verdict,
// held ones included: TCP sends them again, and by then the rule's bypass lets
// them pass or another listener is there.
func (q *Queue) Close() error {
	var err error
	q.closing.Do(func() {
		q.cancel()
		q.socket.interrupt()
		<-q.ended
		err = q.socket.conn.Close() // unbinds the queue
		q.finish()
	})
	return err
}

// finish closes the channel. Nothing may send to it any more.
func (q *Queue) finish() { q.finished.Do(func() { close(q.packets) }) }

// run receives until the queue is closed or broken.
func (q *Queue) run(early [][]byte) {
	defer close(q.ended)
	for _, data := range early {
		if !q.received(data) {
			return
		}
	}
	for {
		datagram, err := q.socket.receive()
		if err != nil {
			if !q.fault(err) {
				return
			}
			continue
		}
		for kind, data := range messages(datagram) {
			goesOn := true
			switch kind {
			case msgPacket:
				goesOn = q.received(data)
			case unix.NLMSG_ERROR:
				if errno := errorNumber(data); errno != 0 {
					goesOn = q.fault(errno)
				}
			}
			if !goesOn {
				return
			}
		}
	}
}

// received hands a packet on. It returns false when the queue was closed.
func (q *Queue) received(data []byte) bool {
	q.faults = 0
	p, cut, err := parse(data)
	if err != nil {
		return true
	}
	q.stats.packets.Add(1)
	err = errTruncated
	if !cut {
		err = decode(p)
	}
	if err != nil {
		q.stats.passed(err)
		_ = q.Accept(p)
		return true
	}
	select {
	case q.packets <- p:
		return true
	case <-q.ctx.Done():
		return false
	}
}

// fault notes an error of receiving, and says whether to go on.
func (q *Queue) fault(err error) bool {
	switch {
	case q.ctx.Err() != nil:
		return false // closed
	case errors.Is(err, unix.ENOBUFS):
		// The receive buffer was full and the kernel dropped packets. What is in
		// it is intact.
		q.stats.overflows.Add(1)
		return true
	case errors.Is(err, unix.ENOENT):
		// A verdict on a packet that is gone: the kernel drops those of an
		// interface that goes down.
		q.stats.late.Add(1)
		return true
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		return true
	}
	q.stats.faults.Add(1)
	if q.faults++; q.faults < maxFaults {
		time.Sleep(time.Millisecond) // errors in a row must not spin
		return true
	}
	q.mu.Lock()
	q.err = fmt.Errorf("receive from queue %d: %w", q.number, err)
	q.mu.Unlock()
	q.finish()
	return false
}
