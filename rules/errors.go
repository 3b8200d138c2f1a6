package rules

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrAbsent says that the table is not there (any more): something has deleted it, and Apply brings it back.
var ErrAbsent = errors.New("table ip " + TableName + " is not there: it was removed from outside or never installed")

// An UnsupportedError says what the kernel lacks, and how to get it.
type UnsupportedError struct {
	// Feature is what is missing.
	Feature string
	// Fix says what to install or load.
	Fix string
}

// Error says both.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("not supported by this kernel: %s: %s", e.Feature, e.Fix)
}

// What the ruleset needs from the kernel. The Debian names are modules that its linux-image packages bring along.
var (
	needTables = &UnsupportedError{"nftables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_IPV4)",
		"Debian: modprobe nf_tables; OpenWrt: install kmod-nft-core"}
	needConntrack = &UnsupportedError{"the nftables ct expression (CONFIG_NFT_CT)",
		"Debian: modprobe nft_ct; OpenWrt: install kmod-nft-core"}
	needCounters = &UnsupportedError{"nftables named counters (CONFIG_NFT_COUNTER, CONFIG_NFT_OBJREF)",
		"Debian: modprobe nft_counter nft_objref; OpenWrt: install kmod-nft-core"}
	needLimit = &UnsupportedError{"nftables limits (CONFIG_NFT_LIMIT)",
		"Debian: modprobe nft_limit; OpenWrt: install kmod-nft-core"}
	needNAT = &UnsupportedError{"nftables nat chains (CONFIG_NFT_NAT)",
		"Debian: modprobe nft_chain_nat; OpenWrt: install kmod-nft-nat"}
	needQueue = &UnsupportedError{"handing packets to user space: neither the nftables queue expression (CONFIG_NFT_QUEUE) " +
		"nor the xtables target NFQUEUE (CONFIG_NFT_COMPAT, CONFIG_NETFILTER_XT_TARGET_NFQUEUE)",
		"Debian: modprobe nft_queue; OpenWrt: install kmod-nft-queue and kmod-nfnetlink-queue"}
)

// needHelper is what an anchor needs; the helper's name is in the error that it comes with.
var needHelper = &UnsupportedError{"nftables conntrack helper objects, or the helper itself (CONFIG_NF_CONNTRACK_FTP)",
	"Debian: modprobe nf_conntrack_ftp; OpenWrt: install kmod-nf-nathelper"}

// needs are several of them.
type needs []*UnsupportedError

// unsupported tells whether an error number means that the kernel does not know what it was asked for, as opposed to
// objecting to it.
func unsupported(errno unix.Errno) bool {
	return errno == unix.ENOENT || errno == unix.EOPNOTSUPP || errno == unix.EPROTONOSUPPORT || errno == unix.EAFNOSUPPORT
}

// explain wraps an error number of a request with what was asked and, where it is known, what to do about it.
func explain(doing string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return fmt.Errorf("rules: %s: %w: CAP_NET_ADMIN is missing: run as root, or give the service this capability", doing, err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("rules: %s: %w: the kernel is out of memory for it", doing, err)
	case errors.Is(err, unix.ENFILE):
		return fmt.Errorf("rules: %s: %w: the set is full", doing, err)
	}
	return fmt.Errorf("rules: %s: %w", doing, err)
}
