package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for an answer, from the moment the request's system call has returned:
// in it the kernel does the work, which may be to load modules, and answers, unless it had no memory for
// the answer: nobody should wait for ever then.
const answerTimeout = 5 * time.Second

// A Client is a ctnetlink socket for requests. It is not for concurrent use.
type Client struct {
	*socket
	stale bool // answers to an earlier request may still come
}

// Dial opens a Client in the calling thread's network namespace. Privileges are not checked
// here: requests say when they are missing, and [Client.Probe] does.
func Dial(opts ...Option) (*Client, error) {
	s, err := dial(opts)
	if err != nil {
		return nil, fmt.Errorf("open conntrack socket: %w", err)
	}
	return &Client{socket: s}, nil
}

// Close closes the socket. The entries stay.
func (c *Client) Close() error { return c.socket.Close() }

// PortID is the socket's netlink address: events say which one asked for a change.
func (c *Client) PortID() uint32 { return c.conn.PID() }

// An answer is what came back for one message of a transaction.
type answer struct {
	flow Flow   // if an entry was asked for
	data []byte // if something else was: what came, struct nfgenmsg included
	err  error
}

// request builds a message that gets one answer: an error, an acknowledgement (if flags ask for it), or an
// entry.
func request(typ netlink.HeaderType, flags netlink.HeaderFlags, data []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request | flags}, Data: data}
}

// transact sends all messages in one system call, and returns one answer for each. The kernel carries
// them out in order, but does not hold up packets, nor other programs' requests, meanwhile. A message that
// fails does not keep the next from being carried out. Answers come in order, and it is the last one's that is
// waited for: only that message has to get one. Of the others no answer means success. The error is for the socket.
func (c *Client) transact(msgs ...netlink.Message) ([]answer, error) {
	c.drain()
	first, err := c.send(msgs...)
	if err != nil {
		return nil, explain(err)
	}
	answers := make([]answer, len(msgs))
	for done := false; !done; {
		got, err := c.answer()
		if err != nil {
			c.stale = true
			return nil, fmt.Errorf("receive answer: %w", err)
		}
		for _, m := range got {
			// Sequence numbers were given out in a row. Others belong to answers that came too late
			// for their own request.
			i := m.Header.Sequence - first
			if i >= uint32(len(msgs)) {
				continue
			}
			done = done || i == uint32(len(msgs)-1)
			if last, err := isLast(m); last {
				answers[i].err = err
				if i == 0 && errors.Is(err, unix.EPERM) {
					// Privileges are checked before anything else, and once: the others get no answer.
					return nil, explain(err)
				}
			} else if m.Header.Type != msgNew {
				answers[i].data = bytes.Clone(m.Data)
			} else {
				answers[i].flow, answers[i].err = decodeMessage(m.Data)
			}
		}
	}
	return answers, nil
}

// dump calls each for every entry that the kernel sends in answer to data. The same entry can come
// twice: the kernel starts a bucket again when an entry in it was removed meanwhile.
func (c *Client) dump(data []byte, each func(Flow)) error {
	c.drain()
	sequence, err := c.sendDump(data)
	if err != nil {
		return explain(err)
	}
	if err := c.wait(answerTimeout); err != nil {
		return err
	}
	var bad error
	for {
		got, err := c.receive()
		if err == nil {
			// The limit is for silence, not for a large table.
			err = c.wait(answerTimeout)
		}
		if err != nil {
			c.stale = true
			return fmt.Errorf("receive answer: %w", err)
		}
		for _, m := range got {
			if m.Header.Sequence != sequence {
				continue
			}
			if last, err := isLast(m); last {
				return errors.Join(err, bad)
			}
			f, err := decodeMessage(m.Data)
			if err != nil {
				bad = err
				continue
			}
			each(f)
		}
	}
}

// answer returns the next answer, which in nearly every case has come already.
func (c *Client) answer() ([]netlink.Message, error) {
	got, err := c.poll()
	if err != unix.EAGAIN {
		return got, err
	}
	if err := c.wait(answerTimeout); err != nil {
		return nil, err
	}
	return c.receive()
}

// drain throws away what is left of an earlier request that failed half-way; of a dump, the kernel
// refuses to begin another while one is under way.
func (c *Client) drain() {
	if !c.stale {
		return
	}
	if c.wait(10*time.Millisecond) != nil {
		return
	}
	for {
		_, err := c.receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			break
		}
	}
	c.stale = false
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
	return answers[0].flow, explain(answers[0].err)
}
