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
	Queue  uint16
	PortID uint32  // the owner's netlink port; 0 if unknown
	Owner  Process // if known
}

func (e *TakenError) Error() string {
	who := "another program"
	switch {
	case e.Owner.PID != 0:
		who = e.Owner.String()
	case e.PortID != 0: // a process that we may not see, or of another PID namespace
		who = fmt.Sprintf("another program (netlink port %d)", e.PortID)
	}
	return fmt.Sprintf("queue %d is taken by %s; stop it, or choose another queue with --queue "+
		"(%s lists those in use)", e.Queue, who, procFile)
}

// Is makes a TakenError an ErrTaken.
func (e *TakenError) Is(target error) bool { return target == ErrTaken }
