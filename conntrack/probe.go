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
	sysctlMax        = "/proc/sys/net/netfilter/nf_conntrack_max" // there whenever conntrack is
)

// Probe finds out what is missing, without changing anything: nil, or one or several joined
// *UnsupportedError (errors.As finds the first, which is the most important).
//
// NAT cannot be probed that way; Create says when it is missing.
func (c *Client) Probe() error {
	gre, err := c.probe(protocolGRE)
	if err != nil {
		return fmt.Errorf("probe conntrack: %w", err)
	}
	other, err := c.probe(protocolExperimental)
	if err != nil {
		return fmt.Errorf("probe conntrack: %w", err)
	}
	return errors.Join(deduce(gre, other), probeEvents())
}

// deduce says what is missing, from the answers to questions for a tuple without keys: of GRE, and of
// a protocol that no kernel has keys for.
func deduce(gre, other error) error {
	switch {
	case errors.Is(gre, unix.EPERM):
		return capNetAdmin.because(gre)
	case !errors.Is(other, unix.ENOENT): // EINVAL: nobody is there to answer
		return ctNetlink.because(other)
	case errors.Is(gre, unix.EINVAL): // it wants the keys
		return nil
	case errors.Is(gre, unix.ENOENT): // it does without
		return greKeys.because(nil)
	}
	return ctNetlink.because(gre)
}

func probeEvents() error {
	v, err := readSysctl(sysctlEvents)
	switch {
	case err == nil && v == "0": // 1 is on, 2 is on while somebody listens
		return events.because(nil)
	case errors.Is(err, os.ErrNotExist):
		// Not built in; or is /proc hidden, or conntrack not loaded yet?
		if _, err := os.Stat(sysctlMax); err == nil {
			return events.because(nil)
		}
	}
	return nil
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
