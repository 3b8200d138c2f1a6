package conntrack

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Sysctls of conntrack. They belong to a network namespace; what one reads and writes under this path is
// that of the calling thread's.
const (
	sysctlAccounting = "/proc/sys/net/netfilter/nf_conntrack_acct"
	sysctlEvents     = "/proc/sys/net/netfilter/nf_conntrack_events"
)

// Probe finds out what is missing, without changing anything: nil, or one or several joined
// *UnsupportedError (errors.As finds the first, which is the most important).
//
// NAT cannot be probed that way; Create says when it is missing.
func (c *Client) Probe() error {
	answers, err := c.probe(protocolGRE)
	if err != nil {
		return fmt.Errorf("probe conntrack: %w", err)
	}
	var missing []error
	switch {
	case errors.Is(answers, unix.EINVAL):
		// It wants keys for GRE, so it knows them. But ctnetlink itself answers EINVAL when it is not
		// there: a protocol that no kernel has keys for shows the difference.
		other, err := c.probe(protocolExperimental)
		if err != nil {
			return fmt.Errorf("probe conntrack: %w", err)
		}
		if !errors.Is(other, unix.ENOENT) {
			missing = append(missing, ctNetlink.because(other))
		}
	case errors.Is(answers, unix.ENOENT):
		missing = append(missing, greKeys.because(nil))
	case errors.Is(answers, unix.EPERM):
		missing = append(missing, capNetAdmin.because(answers))
	default:
		missing = append(missing, ctNetlink.because(answers))
	}
	// 0 is off, 1 on, 2 on while somebody listens. Where /proc cannot be read nothing is known.
	if v, err := readSysctl(sysctlEvents); err == nil && v == "0" {
		missing = append(missing, events.because(nil))
	}
	return errors.Join(missing...)
}

// protocolExperimental is for experimentation and testing (RFC 3692): conntrack knows nothing of it.
const protocolExperimental = 253

// probe returns the kernel's answer to encodeProbe; the second error is for the socket.
func (c *Client) probe(protocol uint8) (answer, err error) {
	data, err := encodeProbe(protocol)
	if err != nil {
		return nil, err
	}
	answers, err := c.transact(request(msgGet, 0, data))
	if err != nil {
		return nil, err
	}
	return answers[0].err, nil
}

// Accounting reports whether entries made from now on in the calling thread's network namespace
// get counters (net.netfilter.nf_conntrack_acct).
func Accounting() (bool, error) {
	v, err := readSysctl(sysctlAccounting)
	if err != nil {
		return false, fmt.Errorf("read conntrack accounting: %w", err)
	}
	return v == "1", nil
}

// SetAccounting switches counters on or off for entries made from now on, ours and all others, in
// the calling thread's network namespace. An entry keeps what it was made with.
func SetAccounting(on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	if err := os.WriteFile(sysctlAccounting, []byte(v), 0); err != nil {
		return fmt.Errorf("set conntrack accounting: %w", err)
	}
	return nil
}

func readSysctl(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
