package conntrack

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// KernelHelper is the name of the kernel's own PPTP helper, as Connection.Helper has it: such a connection is
// translated by the kernel (nf_nat_pptp).
const KernelHelper = "pptp"

// A user-space helper is a conntrack helper that some program registers under a name (nfnetlink_cthelper). A disabled one
// does nothing at all to the packets of its connections; that they have one is what counts: the kernel puts no
// connection with a helper into a flow table.
//
// The registry is one for all network namespaces, outlives the program, and belongs to root of the machine: in a
// container's user namespace the answer is EPERM.

// ErrForeignHelper: another program has registered a helper of this name, and packets would go to it.
var ErrForeignHelper = errors.New("another program's conntrack helper has this name")

// Message types (enum nfnl_cthelper_msg_types).
const (
	subsysHelper = unix.NFNL_SUBSYS_CTHELPER << 8

	msgHelperNew    netlink.HeaderType = subsysHelper + 0 // NFNL_MSG_CTHELPER_NEW, also the answer to GET
	msgHelperGet    netlink.HeaderType = subsysHelper + 1 // NFNL_MSG_CTHELPER_GET
	msgHelperDelete netlink.HeaderType = subsysHelper + 2 // NFNL_MSG_CTHELPER_DEL: without a name it takes all
)

// Attributes (linux/netfilter/nfnetlink_cthelper.h). Integers are big-endian.
const (
	helperName     = 1 // NFCTH_NAME, string of at most 15 characters
	helperTuple    = 2 // NFCTH_TUPLE, nested
	helperQueue    = 3 // NFCTH_QUEUE_NUM, u32: where an enabled helper's packets go
	helperPolicy   = 4 // NFCTH_POLICY, nested
	helperDataSize = 5 // NFCTH_PRIV_DATA_LEN, u32: bytes the helper keeps in each connection
	helperStatus   = 6 // NFCTH_STATUS, u32: a helperState

	helperTupleNetwork  = 1 // NFCTH_TUPLE_L3PROTONUM, u16
	helperTupleProtocol = 2 // NFCTH_TUPLE_L4PROTONUM, u8

	helperPolicyCount = 1 // NFCTH_POLICY_SET_NUM, u32
	helperPolicyFirst = 2 // NFCTH_POLICY_SET1, nested

	helperPolicyName    = 1 // NFCTH_POLICY_NAME, string
	helperPolicyMost    = 2 // NFCTH_POLICY_EXPECT_MAX, u32
	helperPolicyTimeout = 3 // NFCTH_POLICY_EXPECT_TIMEOUT, u32, seconds
)

// helperDisabled is NFCT_HELPER_STATUS_DISABLED. An enabled helper sends every packet to its queue and, while nobody
// listens there, drops it.
const helperDisabled = 0

// helperPatience is how long UnregisterHelper waits for nftables, which lets go of a helper a moment after the
// transaction that removed the object.
const helperPatience = 500 * time.Millisecond

// errGone says that a helper was in the way which then was not there: it was just removed, or the name is that of a
// helper in the kernel itself, which cannot be asked for.
var errGone = fmt.Errorf("%w, or it is being removed", ErrForeignHelper)

// RegisterHelper makes sure that there is a disabled user-space helper of this name for TCP over IPv4. That it is there
// already is fine, whoever put it there. It may make the kernel load a module.
//
// An *UnsupportedError says that the kernel has no such helpers, or that we may not register one.
func (c *Client) RegisterHelper(name string) error {
	err := c.registerHelper(name)
	// Another namespace's daemon may be just taking away the helper that was in the way.
	for end := time.Now().Add(helperPatience); errors.Is(err, errGone) && time.Now().Before(end); err = c.registerHelper(name) {
		time.Sleep(helperPatience / 20)
	}
	if err != nil {
		err = fmt.Errorf("register conntrack helper %q: %w", name, err)
	}
	return err
}

func (c *Client) registerHelper(name string) error {
	data, err := encodeHelper(name)
	if err != nil {
		return err
	}
	answers, err := c.transact(request(msgHelperNew, netlink.Acknowledge|netlink.Create|netlink.Excl, data))
	if err != nil {
		return err
	}
	if err := answers[0].err; !errors.Is(err, unix.EEXIST) {
		return explainHelper(err)
	}
	status, err := c.helperStatus(name)
	switch {
	case errors.Is(err, ErrNotFound):
		return errGone
	case err == nil && status != helperDisabled:
		return fmt.Errorf("%w: its status is %d", ErrForeignHelper, status)
	}
	return err
}

// UnregisterHelper removes the helper unless a rule of whichever namespace still uses it. That it stays for
// that reason, or is not there, is no error. Connections that had it stay out of flow tables.
func (c *Client) UnregisterHelper(name string) error {
	data, err := encodeHelperRemoval(name)
	for end := time.Now().Add(helperPatience); err == nil; time.Sleep(helperPatience / 20) {
		var answers []answer
		if answers, err = c.transact(request(msgHelperDelete, netlink.Acknowledge, data)); err != nil {
			break
		}
		busy := errors.Is(answers[0].err, unix.EBUSY)
		if answers[0].err == nil || errors.Is(answers[0].err, unix.ENOENT) || busy && time.Now().After(end) {
			return nil
		}
		if !busy {
			err = explainHelper(answers[0].err)
		}
	}
	return fmt.Errorf("unregister conntrack helper %q: %w", name, err)
}

// ProbeHelper says whether RegisterHelper would work, and registers nothing.
func (c *Client) ProbeHelper(name string) error {
	status, err := c.helperStatus(name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err == nil && status != helperDisabled:
		err = ErrForeignHelper
	}
	if err != nil {
		return fmt.Errorf("look for conntrack helper %q: %w", name, err)
	}
	return nil
}

// helperStatus returns NFCTH_STATUS of a user-space helper, or ErrNotFound.
func (c *Client) helperStatus(name string) (uint32, error) {
	data, err := encodeHelperQuestion(name)
	if err != nil {
		return 0, err
	}
	answers, err := c.transact(request(msgHelperGet, 0, data))
	if err != nil {
		return 0, err
	}
	if answers[0].err != nil {
		return 0, explainHelper(answers[0].err)
	}
	return decodeHelperStatus(answers[0].data)
}

// explainHelper puts an answer about user-space helpers into words. A kernel without them does not know the subsystem,
// and says EINVAL.
func explainHelper(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return userHelpers.because(err)
	}
	return explain(err)
}

// encodeHelper builds NFNL_MSG_CTHELPER_NEW. A policy is required; nothing ever expects a connection by it.
func encodeHelper(name string) ([]byte, error) {
	return encode(func(m *encoder) {
		putHelper(m, name)
		m.uint32(helperQueue, 0)
		m.nested(helperPolicy, func() {
			m.uint32(helperPolicyCount, 1)
			m.nested(helperPolicyFirst, func() {
				m.text(helperPolicyName, name)
				m.uint32(helperPolicyMost, 1)
				m.uint32(helperPolicyTimeout, 1)
			})
		})
		m.uint32(helperDataSize, 0)
		m.uint32(helperStatus, helperDisabled)
	}), nil
}

// encodeHelperRemoval builds NFNL_MSG_CTHELPER_DEL.
func encodeHelperRemoval(name string) ([]byte, error) {
	return encode(func(m *encoder) { putHelper(m, name) }), nil
}

// encodeHelperQuestion builds NFNL_MSG_CTHELPER_GET, by the name only: where the protocols are given too, the kernel
// does not answer at all if there is no such helper.
func encodeHelperQuestion(name string) ([]byte, error) {
	return encode(func(m *encoder) { m.text(helperName, name) }), nil
}

func putHelper(m *encoder, name string) {
	m.text(helperName, name)
	m.nested(helperTuple, func() {
		m.uint16(helperTupleNetwork, familyIPv4)
		m.uint8(helperTupleProtocol, protocolTCP)
	})
}

// decodeHelperStatus reads the answer to GET.
func decodeHelperStatus(b []byte) (status uint32, err error) {
	if len(b) < nfgenLen {
		return 0, errShort
	}
	said := false
	err = attributes(b[nfgenLen:], func(attr uint16, v value) (err error) {
		if attr == helperStatus {
			said = true
			status, err = v.uint32()
		}
		return err
	})
	if err == nil && !said {
		err = errors.New("answer without NFCTH_STATUS")
	}
	return status, err
}
