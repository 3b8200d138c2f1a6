package conntrack

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// eventBuffer is the size wanted for the receive buffer: what comes in a burst is mostly the end of
// calls, two messages of about 800 bytes of kernel memory each.
const eventBuffer = 4 << 20

// An Event says that an entry left the table (DESTROY).
//
// Only entries that were made while somebody listened are reported: have Listen come before
// Create. Those that expire are reported up to a minute late.
type Event struct {
	Flow // the entry at its end; with its counters, if it was accounted

	// PortID is the netlink address of who asked for it, and 0 when the kernel itself did: the entry expired, or
	// its interface or address went away.
	PortID uint32
}

// By reports whether c asked for the event: Delete, DeleteFlow and Replace cause them too.
func (e Event) By(c *Client) bool { return e.PortID == c.PortID() }

// Events is a ctnetlink socket for events.
type Events struct {
	socket *socket
	ports  []uint16
}

// Listen opens a socket for the ends of entries of ours, and of TCP connections with one of the ports at
// either end of either tuple. The kernel filters, so that other traffic neither wakes the
// program nor overflows the socket.
//
// A program should have only one, and not in the same socket as its requests: a flush of a large table
// would fill it and take the answers with it.
func Listen(ports []uint16, opts ...Option) (*Events, error) {
	filter, err := eventFilter(ports)
	if err != nil {
		return nil, fmt.Errorf("listen for conntrack events: %w", err)
	}
	s, err := dial(opts)
	if err != nil {
		return nil, fmt.Errorf("listen for conntrack events: %w", err)
	}
	// The filter is there before the first event can be.
	err = s.conn.SetBPF(filter) // its errors are a socket's: no memory does not mean a full table
	if err == nil {
		err = explain(s.conn.JoinGroup(groupDestroy))
	}
	if err != nil {
		_ = s.conn.Close()
		return nil, fmt.Errorf("listen for conntrack events: %w", err)
	}
	// Works with CAP_NET_ADMIN beyond the sysctl's limit; a smaller one only makes ErrOverflow likelier.
	_ = s.conn.SetReadBuffer(eventBuffer)
	return &Events{socket: s, ports: slices.Clone(ports)}, nil
}

// Ignore leaves out what comes of the client's own requests. Thousands of these would fill the socket.
func (e *Events) Ignore(c *Client) error {
	filter, err := eventFilter(e.ports, c.PortID())
	if err == nil {
		err = e.socket.conn.SetBPF(filter)
	}
	if err != nil {
		return fmt.Errorf("listen for conntrack events of others: %w", err)
	}
	return nil
}

// Receive waits for events, and returns them in their order. ErrOverflow says that some are lost; more
// will come. After Close, os.ErrClosed.
func (e *Events) Receive() ([]Event, error) {
	msgs, err := e.socket.receive()
	if errors.Is(err, unix.ENOBUFS) {
		return nil, fmt.Errorf("receive conntrack events: %w", ErrOverflow)
	}
	if err != nil {
		return nil, fmt.Errorf("receive conntrack events: %w", err)
	}
	list := make([]Event, 0, len(msgs))
	for _, m := range msgs {
		if m.Header.Type != msgDelete {
			continue
		}
		f, err := decodeMessage(m.Data)
		if err != nil {
			return list, fmt.Errorf("receive conntrack events: %w", err)
		}
		list = append(list, Event{Flow: f, PortID: m.Header.PID})
	}
	return list, nil
}

// SetReadDeadline makes Receive fail with a timeout from that time on; the zero time is never.
func (e *Events) SetReadDeadline(t time.Time) error { return e.socket.conn.SetReadDeadline(t) }

// SetReadBuffer sets the size of the receive buffer, in bytes.
func (e *Events) SetReadBuffer(bytes int) error { return e.socket.conn.SetReadBuffer(bytes) }

// Close closes the socket, and ends a Receive that waits.
func (e *Events) Close() error { return e.socket.Close() }
