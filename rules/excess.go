package rules

import (
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// SendersSet is the set in which the kernel measures how many segments the clients send. Its elements come and go by
// themselves.
const SendersSet = "senders"

// Excess counts segments of control connections that were dropped because their client sent more than Config.Rate.
const Excess = "excess"

const (
	// maxSenders bounds the clients that are measured at a time: some hundred bytes of kernel memory each. Of more than
	// that, the others go unmeasured.
	maxSenders = 16384
	// senderLife is how long a client that sends nothing is remembered. It has to be longer than a burst takes to be
	// allowed again, which is a second.
	senderLife = 10 * time.Second
)

// senders is the set of clients and what they sent.
func senders() set {
	return set{
		name:        SendersSet,
		comment:     "clients, and how many segments they sent",
		declaration: fmt.Sprintf("type ipv4_addr\n\t\tsize %d\n\t\tflags dynamic,timeout\n\t\ttimeout %s", maxSenders, nftTime(senderLife)),
		keyType:     typeAddress,
		keyLength:   4,
		description: byteOrder(bigEndian),
		dynamic:     true,
		flags:       unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
		size:        maxSenders,
		timeout:     senderLife,
	}
}

// nftTime writes whole seconds as nft does.
func nftTime(d time.Duration) string { return fmt.Sprintf("%ds", d/time.Second) }

// excessive matches a segment whose control connection's client has sent more than so many a second. The client is who
// opened the connection, in both directions. A burst of one second's worth is let pass.
func excessive(rate uint32) clause {
	return clause{
		text: fmt.Sprintf("update @%s { ct original ip saddr timeout %s limit rate over %d/second burst %[3]d packets }",
			SendersSet, nftTime(senderLife), rate),
		exprs: []expression{ctOriginal(expr.CtKey(unix.NFT_CT_SRC_IP)), encoded(&expr.Dynset{
			SrcRegKey: reg, SetName: SendersSet, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: senderLife,
			Exprs: []expr.Any{&expr.Limit{
				Type: expr.LimitTypePkts, Rate: uint64(rate), Over: true, Unit: expr.LimitTimeSecond, Burst: rate,
			}},
		})},
		needs: needLimit,
	}
}
