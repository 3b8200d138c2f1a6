package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

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
	sendBuffer int // bytes the socket takes in one piece

	applied  *Ruleset // the last that Apply brought about
	verified uint32   // the generation in which the table was last seen to be as applied; 0: none
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
	return &Kernel{conn: conn, raw: raw}, nil
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

const messageHeaderLength, errnoLength = 16, 4

// netlinkMessage puts the nfgenmsg header (family, version 0, resource id) in front of the attributes. The resource id
// is the subsystem in the messages that frame a batch.
func netlinkMessage(kind netlink.HeaderType, flags netlink.HeaderFlags, sequence uint32, family byte, resource uint16, attributes []byte) netlink.Message {
	data := make([]byte, 4, 4+len(attributes))
	data[0] = family
	binary.BigEndian.PutUint16(data[2:], resource)
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: flags, Sequence: sequence},
		Data:   append(data, attributes...),
	}
}

func nftables(kind uint16) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)
}

// transact sends a batch, in one system call as nftables demands, and returns what the kernel objects to. With commit
// false the message that ends a batch is left out: the kernel then checks everything and takes nothing over (this is
// what `nft -c` does).
func (k *Kernel) transact(messages []message, commit bool) ([]failure, error) {
	if _, err := k.drain(); err != nil { // late answers to an earlier request would be taken for ours
		return nil, err
	}
	first := k.sequence + 1
	k.sequence += uint32(len(messages)) + 2

	batch := make([]netlink.Message, 0, len(messages)+2)
	batch = append(batch, netlinkMessage(unix.NFNL_MSG_BATCH_BEGIN, netlink.Request, first, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil))
	size := 2 * (messageHeaderLength + 4)
	for i, m := range messages {
		n := netlinkMessage(nftables(m.kind), m.flags, first+1+uint32(i), unix.NFPROTO_IPV4, 0, m.attributes)
		size += messageHeaderLength + len(n.Data) + 3
		batch = append(batch, n)
	}
	if commit {
		batch = append(batch, netlinkMessage(unix.NFNL_MSG_BATCH_END, netlink.Request, k.sequence, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil))
	}
	if err := k.growSendBuffer(size); err != nil {
		return nil, err
	}
	if _, err := k.conn.SendMessages(batch); err != nil {
		return nil, err
	}
	// No message asks for an acknowledgement. The kernel works through the batch inside the system call that sends it, so
	// by now every objection lies in the receive queue, and an empty queue means that all went well.
	errnos, err := k.drain()
	if err != nil {
		return nil, err
	}
	var failures []failure
	for _, e := range errnos {
		f := failure{errno: e.errno}
		if i := int(e.sequence - first - 1); i >= 0 && i < len(messages) {
			f.message = &messages[i]
		}
		failures = append(failures, f)
	}
	return failures, nil
}

// growSendBuffer makes room for a message of this size: netlink sends it in one piece or answers EMSGSIZE.
func (k *Kernel) growSendBuffer(size int) error {
	const ordinary = 64 << 10 // below net.core.wmem_default everywhere
	if size <= max(ordinary, k.sendBuffer) {
		return nil
	}
	if err := k.conn.SetWriteBuffer(size); err != nil {
		return fmt.Errorf("make room for %d bytes in the socket's send buffer: %w", size, err)
	}
	k.sendBuffer = size
	return nil
}

type answer struct {
	sequence uint32
	errno    unix.Errno
}

// drain reads what lies in the receive queue, without waiting, and returns the errors in it.
func (k *Kernel) drain() ([]answer, error) {
	var (
		answers []answer
		failed  error
		buffer  [8192]byte
	)
	err := k.raw.Control(func(fd uintptr) {
		for {
			n, _, err := unix.Recvfrom(int(fd), buffer[:], unix.MSG_DONTWAIT)
			switch err {
			case nil:
				answers = append(answers, parseErrors(buffer[:n])...)
			case unix.EAGAIN:
				return
			case unix.EINTR:
			default:
				failed = fmt.Errorf("receive: %w", err)
				return
			}
		}
	})
	return answers, errors.Join(err, failed)
}

// parseErrors finds the NLMSG_ERROR messages with an error in them: header, then the negative error number.
func parseErrors(b []byte) []answer {
	var answers []answer
	for len(b) >= messageHeaderLength {
		length := int(binary.NativeEndian.Uint32(b))
		if length < messageHeaderLength || length > len(b) {
			break
		}
		kind, sequence := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		if netlink.HeaderType(kind) == netlink.Error && length >= messageHeaderLength+errnoLength {
			if errno := int32(binary.NativeEndian.Uint32(b[messageHeaderLength:])); errno < 0 {
				answers = append(answers, answer{sequence, unix.Errno(-errno)})
			}
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return answers
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

// get asks for one object, or with dump for a list.
func (k *Kernel) get(kind uint16, flags netlink.HeaderFlags, attributes []byte) ([]netlink.Message, error) {
	if _, err := k.drain(); err != nil {
		return nil, err
	}
	k.sequence++
	return k.conn.Execute(netlinkMessage(nftables(kind), netlink.Request|flags, k.sequence, unix.NFPROTO_IPV4, 0, attributes))
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
