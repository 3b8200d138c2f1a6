package conntrack

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for an answer. The kernel answers before the request's system call
// returns, unless it had no memory for the answer: nobody should wait for ever then.
const answerTimeout = 5 * time.Second

// A Client is a ctnetlink socket for requests. It is not for concurrent use.
type Client struct {
	conn  *netlink.Conn
	stale bool // answers to an earlier request may still come
}

// An Option changes how a socket is opened.
type Option func(*netlink.Config)

// InNamespace opens the socket in the network namespace that the file descriptor stands for,
// instead of in that of the calling thread. It needs CAP_SYS_ADMIN. The descriptor is not
// needed any more afterwards.
func InNamespace(fd int) Option {
	return func(c *netlink.Config) { c.NetNS = fd }
}

func dial(opts []Option) (*netlink.Conn, error) {
	var config netlink.Config
	for _, o := range opts {
		o(&config)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &config)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return nil, ctNetlink.because(err)
	case err != nil:
		return nil, explain(err)
	}
	// Only for better words: a kernel without it is fine too.
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true)
	return conn, nil
}

// Dial opens a Client in the calling thread's network namespace. Privileges are not checked
// here: requests say when they are missing, and [Client.Probe] does.
func Dial(opts ...Option) (*Client, error) {
	conn, err := dial(opts)
	if err != nil {
		return nil, fmt.Errorf("open conntrack socket: %w", err)
	}
	return &Client{conn: conn}, nil
}

// Close closes the socket. The entries stay.
func (c *Client) Close() error { return c.conn.Close() }

// PortID is the socket's netlink address: events say which one asked for a change.
func (c *Client) PortID() uint32 { return c.conn.PID() }

// An answer is what came back for one message of a transaction: messages or an error.
type answer struct {
	msgs []netlink.Message
	err  error
}

// request builds a message that gets one answer: an error, an acknowledgement (if flags ask for it), or an
// entry.
func request(typ netlink.HeaderType, flags netlink.HeaderFlags, data []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request | flags}, Data: data}
}

// transact sends all messages in one system call, and returns one answer for each. The kernel carries
// them out in order, with nothing of its own in between, but packets are not held up. A message that
// fails does not keep the next from being carried out. The error is for the socket.
func (c *Client) transact(msgs ...netlink.Message) ([]answer, error) {
	c.drain()
	if err := c.conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	sent, err := c.conn.SendMessages(msgs)
	if err != nil {
		return nil, explain(err)
	}
	index := make(map[uint32]int, len(sent))
	for i, m := range sent {
		index[m.Header.Sequence] = i
	}
	answers := make([]answer, len(sent))
	for len(index) > 0 {
		got, err := c.conn.Receive()
		if err != nil {
			var op *netlink.OpError
			if !errors.As(err, &op) || op.Sequence == 0 {
				c.stale = true
				return nil, err
			}
			if i, ok := index[op.Sequence]; ok {
				answers[i].err = err
				delete(index, op.Sequence)
			}
			continue
		}
		for _, m := range got {
			i, ok := index[m.Header.Sequence]
			if !ok {
				continue // an answer that came too late for its own request
			}
			delete(index, m.Header.Sequence)
			if m.Header.Type != netlink.Error { // an acknowledgement carries nothing
				answers[i].msgs = append(answers[i].msgs, m)
			}
		}
	}
	return answers, nil
}

// dump calls each for every entry that the kernel sends in answer to data. The same entry can come
// twice: the kernel starts a bucket again when an entry in it was removed meanwhile.
func (c *Client) dump(data []byte, each func(Flow)) error {
	c.drain()
	if err := c.conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := c.conn.Send(request(msgGet, netlink.Dump, data)); err != nil {
		return explain(err)
	}
	var bad error
	n := 0
	for m, err := range c.conn.ReceiveIter() {
		if err != nil {
			var op *netlink.OpError
			if !errors.As(err, &op) || op.Sequence == 0 {
				c.stale = true
			}
			return err
		}
		if n++; n%4096 == 0 { // the deadline is for silence, not for a large table
			if err := c.conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
				return err
			}
		}
		f, err := decodeMessage(m.Data)
		if err != nil {
			bad = err
			continue
		}
		each(f)
	}
	return bad
}

// drain throws away what is left of an earlier request that failed half-way.
func (c *Client) drain() {
	if !c.stale {
		return
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		return
	}
	for {
		_, err := c.conn.Receive()
		var op *netlink.OpError
		if errors.As(err, &op) && (op.Timeout() || op.Sequence == 0 && !errors.Is(err, unix.ENOBUFS)) {
			break
		}
	}
	c.stale = false
}

// one returns the entry in an answer.
func (a answer) one() (Flow, error) {
	if a.err != nil {
		return Flow{}, explain(a.err)
	}
	if len(a.msgs) == 0 {
		return Flow{}, fmt.Errorf("decode conntrack entry: %w", errShort)
	}
	return decodeMessage(a.msgs[0].Data)
}

// get asks for one entry by a tuple; see encodeGet.
func (c *Client) get(attr uint16, protocol uint8, t Tuple, z Zone) (Flow, error) {
	data, err := encodeGet(attr, protocol, t, z)
	if err != nil {
		return Flow{}, err
	}
	answers, err := c.transact(request(msgGet, 0, data))
	if err != nil {
		return Flow{}, err
	}
	return answers[0].one()
}
