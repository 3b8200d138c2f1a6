package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Kernel is a connection to nftables in one network namespace. Its methods may be called from several goroutines; they
// take turns.
type Kernel struct {
	mu   sync.Mutex
	conn *netlink.Conn
	raw  syscall.RawConn

	sequence   uint32
	sendBuffer int    // bytes the socket takes in one piece
	buffer     []byte // for one received datagram
	stale      bool   // answers to an earlier request may still lie in the socket

	applied  *Ruleset // the last that Apply brought about
	verified uint32   // the generation in which the table was last seen to be as applied; 0: none
	left     uint32   // the generation that Apply has left behind, if nobody else made one meanwhile
	fresh    bool     // when the last Apply came, there was no table
}

// An Option changes what Dial does.
type Option func(*netlink.Config)

// InNamespace makes Dial work in the network namespace that a file descriptor refers to, instead of the calling
// thread's.
func InNamespace(fd int) Option { return func(c *netlink.Config) { c.NetNS = fd } }

// Dial connects to nftables in the calling thread's network namespace.
func Dial(options ...Option) (*Kernel, error) {
	var config netlink.Config
	for _, o := range options {
		o(&config)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &config)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return nil, fmt.Errorf("rules: open netfilter socket: %w", needTables)
	case err != nil:
		return nil, explain("open netfilter socket", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("rules: open netfilter socket: %w", err)
	}
	// Without it the kernel returns the whole failed request with its error, elements and all.
	if err := conn.SetOption(netlink.CapAcknowledge, true); err != nil {
		conn.Close()
		return nil, fmt.Errorf("rules: set NETLINK_CAP_ACK: %w", err)
	}
	return &Kernel{conn: conn, raw: raw, buffer: make([]byte, receiveBuffer)}, nil
}

// Close closes the connection. What was applied stays.
func (k *Kernel) Close() error { return k.conn.Close() }

// A message is one request to nftables.
type message struct {
	kind       uint16 // NFT_MSG_*
	flags      netlink.HeaderFlags
	attributes []byte
	what       string // the object, for errors
	needs      needs  // what may be missing if the kernel does not know the object
}

// A failure is the kernel's objection to one message of a batch.
type failure struct {
	message *message // nil: the batch as a whole
	errno   unix.Errno
}

// Flags of the messages in a batch: nftables's NLM_F_* beyond the common ones.
const (
	create = netlink.Request | netlink.Create
	add    = create | netlink.Append // to the end of a chain
	remove = netlink.Request
)

// transact sends a batch, in one system call as nftables demands, and returns what the kernel objects to. With commit
// false the message that ends a batch is left out: the kernel then checks everything and takes nothing over (this is
// what `nft -c` does).
func (k *Kernel) transact(messages []message, commit bool) ([]failure, error) {
	first := k.sequence + 1
	k.sequence += uint32(len(messages)) + 2

	size := 2 * (messageHeaderLength + familyHeaderLength)
	for _, m := range messages {
		size += messageHeaderLength + familyHeaderLength + len(m.attributes) + 3
	}
	batch := make([]byte, 0, size)
	batch = appendMessage(batch, unix.NFNL_MSG_BATCH_BEGIN, netlink.Request, first, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	for i, m := range messages {
		batch = appendMessage(batch, nftables(m.kind), m.flags, first+1+uint32(i), unix.NFPROTO_IPV4, 0, m.attributes)
	}
	if commit {
		batch = appendMessage(batch, unix.NFNL_MSG_BATCH_END, netlink.Request, k.sequence, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	// No message asks for an acknowledgement: an empty answer means that all went well.
	replies, err := k.exchange(batch)
	if err != nil {
		return nil, err
	}
	var failures []failure
	for _, r := range replies {
		errno := errorNumber(r)
		if errno == 0 {
			continue
		}
		f := failure{errno: errno}
		if i := int(r.Header.Sequence - first - 1); i >= 0 && i < len(messages) {
			f.message = &messages[i]
		}
		failures = append(failures, f)
	}
	return failures, nil
}

// commit sends a batch and turns the first objection into an error that names the object.
func (k *Kernel) commit(doing string, messages []message) error {
	failures, err := k.transact(messages, true)
	if err != nil {
		return explain(doing, err)
	}
	return objection(doing, messages, failures)
}

// objection turns the first failure of a batch into an error. Where the kernel did not know the object, what it lacks is
// that need of the object which no other message of the batch had without failing.
func objection(doing string, messages []message, failures []failure) error {
	if len(failures) == 0 {
		return nil
	}
	f := failures[0]
	switch {
	case f.message == nil && f.errno == unix.EOPNOTSUPP:
		return fmt.Errorf("rules: %s: %w", doing, needTables)
	case f.message == nil:
		return explain(doing, f.errno)
	case unsupported(f.errno):
		met := map[*UnsupportedError]bool{}
		for i := range messages {
			if !slices.ContainsFunc(failures, func(f failure) bool { return f.message == &messages[i] }) {
				for _, n := range messages[i].needs {
					met[n] = true
				}
			}
		}
		for _, n := range f.message.needs {
			if !met[n] {
				return fmt.Errorf("rules: %s: %s: %w", doing, f.message.what, n)
			}
		}
	}
	return explain(doing+": "+f.message.what, f.errno)
}

// get asks for one object, or with netlink.Dump for a list. A list that somebody's transaction has cut in two is asked
// for again.
func (k *Kernel) get(kind uint16, flags netlink.HeaderFlags, attributes []byte) ([]netlink.Message, error) {
	return k.getOf(unix.NFPROTO_IPV4, kind, flags, attributes)
}

// getOf asks for what is of a family.
func (k *Kernel) getOf(family byte, kind uint16, flags netlink.HeaderFlags, attributes []byte) ([]netlink.Message, error) {
	for pause := time.Millisecond; ; pause *= 2 {
		found, err := k.getOnce(family, kind, flags, attributes)
		if err != errMoving || pause > time.Second {
			return found, err
		}
		time.Sleep(pause)
	}
}

func (k *Kernel) getOnce(family byte, kind uint16, flags netlink.HeaderFlags, attributes []byte) ([]netlink.Message, error) {
	k.sequence++
	replies, err := k.exchange(appendMessage(nil, nftables(kind), netlink.Request|flags, k.sequence, family, 0, attributes))
	if err != nil {
		return nil, err
	}
	done := flags&netlink.Dump == 0
	var found []netlink.Message
	for _, r := range replies {
		switch {
		case errorNumber(r) != 0:
			return nil, errorNumber(r)
		case r.Header.Flags&netlink.DumpInterrupted != 0:
			return nil, errMoving
		case r.Header.Type == netlink.Done:
			done = true
		case r.Header.Type != netlink.Error:
			found = append(found, r)
		}
	}
	if !done {
		return nil, errors.New("the kernel's list has no end")
	}
	return found, nil
}

// generation is the number of the current ruleset of the whole namespace: every transaction of anybody raises it.
func (k *Kernel) generation() (uint32, error) {
	replies, err := k.get(unix.NFT_MSG_GETGEN, 0, nil)
	if err != nil {
		return 0, err
	}
	for _, r := range replies {
		for kind, data := range attributes(r) {
			if kind == unix.NFTA_GEN_ID && len(data) == 4 {
				return binary.BigEndian.Uint32(data), nil
			}
		}
	}
	return 0, errors.New("the kernel's answer has no NFTA_GEN_ID")
}
