package queue

import (
	"errors"
	"fmt"
)

var (
	// ErrTaken says that another program listens on the queue.
	ErrTaken = errors.New("queue is taken by another program")

	// ErrPermission says that CAP_NET_ADMIN is missing.
	ErrPermission = errors.New("not permitted: CAP_NET_ADMIN is needed")

	// ErrUnsupported says that the kernel has no netfilter queue.
	ErrUnsupported = errors.New("this kernel has no netfilter queue: " +
		"it needs CONFIG_NETFILTER_NETLINK_QUEUE (module nfnetlink_queue, on OpenWrt package kmod-nfnetlink-queue)")

	// ErrSettled says that a packet already had its verdict.
	ErrSettled = errors.New("packet already has its verdict")

	// ErrClosed says that the queue was closed; the kernel has dropped what
	// waited in it.
	ErrClosed = errors.New("queue is closed")
)

// A TakenError is an [ErrTaken] with what the kernel says about the owner.
type TakenError struct {
	Queue uint16
	Owner Kernel
}

func (e *TakenError) Error() string {
	s := fmt.Sprintf("queue %d is taken by another program", e.Queue)
	if e.Owner.PortID != 0 {
		// The first netlink socket of a process gets its process ID.
		s += fmt.Sprintf(" (netlink port %d, often its process ID)", e.Owner.PortID)
	}
	return s + "; " + procFile + " lists the queues in use: stop that program, or choose another queue with --queue"
}

// Is makes a TakenError an ErrTaken.
func (e *TakenError) Is(target error) bool { return target == ErrTaken }
