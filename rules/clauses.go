package rules

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A clause is one phrase of a rule: what nft calls it, and the expressions which that phrase compiles to. The
// expressions are those that nft itself generates, so that `nft list` finds back the words.
type clause struct {
	text    string
	exprs   []expression
	foreign bool              // nft has no syntax for it: the text is a description
	needs   *UnsupportedError // what a kernel lacks that does not know it
}

// An expression is one step of a rule in the kernel's virtual machine: the attributes of one NFTA_LIST_ELEM, which are a
// name and data.
type expression []byte

// encoded is an expression of the library's.
func encoded(e expr.Any) expression {
	b, err := expr.Marshal(unix.NFPROTO_IPV4, e)
	if err != nil {
		panic("rules: encode expression: " + err.Error()) // fixed values: our own mistake
	}
	return b
}

// Registers. The first is the 16-byte register 1; a concatenation goes on in the 4-byte registers that follow its first
// four bytes (NFT_REG32_01 = 9 is bytes 4 to 7 of register 1).
const (
	reg  = unix.NFT_REG_1
	reg1 = unix.NFT_REG32_01
	reg2 = unix.NFT_REG32_02
	reg3 = unix.NFT_REG32_03
)

// Offsets in the IPv4 header (RFC 791), the TCP header (RFC 9293), and the enhanced GRE header (RFC 2637, section 4.1).
// The rules read the transport header (@th) without asking for fragments: conntrack has put those together before
// prerouting -200, and where they are not, an expression that cannot find its bytes ends the rule.
const (
	ipLength, ipProtocol, ipSource, ipDestination = 2, 9, 12, 16
	tcpSource, tcpDestination, tcpOffset, tcpBits = 0, 2, 12, 13
	greFlags, greCallID                           = 0, 6
)

// TCP flags (RFC 9293, section 3.1) in their byte.
const (
	flagFIN, flagSYN, flagRST, flagACK = 0x01, 0x02, 0x04, 0x10
)

// statusFixedTimeout is IPS_FIXED_TIMEOUT (linux/netfilter/nf_conntrack_common.h), which the conntrack entries of calls
// carry and which the kernel itself never sets. nft has no name for the bit.
const statusFixedTimeout = 1 << 10

// host is an integer as conntrack's keys hold it in a register: in the machine's own byte order.
func host(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// load reads n bytes of a header into a register.
func load(base expr.PayloadBase, offset, n, register uint32) expression {
	return encoded(&expr.Payload{Base: base, Offset: offset, Len: n, DestRegister: register})
}

const (
	network   = expr.PayloadBaseNetworkHeader
	transport = expr.PayloadBaseTransportHeader
)

// equal and differs compare the first register.
func equal(data ...byte) expression {
	return encoded(&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data})
}
func differs(data ...byte) expression {
	return encoded(&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: data})
}

// and masks the first register.
func and(mask ...byte) expression {
	return encoded(&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))})
}

// in looks the first register up in a named set.
func in(set string) expression { return encoded(&expr.Lookup{SourceRegister: reg, SetName: set}) }

// ct loads a property of the packet's conntrack entry.
func ct(key expr.CtKey) expression { return encoded(&expr.Ct{Key: key, Register: reg}) }

// ctOriginal loads a property of the original direction into the first register.
func ctOriginal(key expr.CtKey) expression { return ctOriginalTo(key, reg) }

// ctOriginalTo loads a property of the original direction. By hand, because the library encodes the direction in four
// bytes, of which the kernel reads the first and complains about the others.
func ctOriginalTo(key expr.CtKey, register uint32) expression {
	return encode(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_EXPR_NAME, "ct")
		nest(e, unix.NFTA_EXPR_DATA, func(e *netlink.AttributeEncoder) {
			e.Uint32(unix.NFTA_CT_KEY, uint32(key))
			e.Uint32(unix.NFTA_CT_DREG, register)
			e.Uint8(unix.NFTA_CT_DIRECTION, 0) // IP_CT_DIR_ORIGINAL
		})
	})
}

// tcpExprs is the dependency that nft puts in front of anything about TCP.
func tcpExprs() []expression {
	return []expression{encoded(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}), equal(unix.IPPROTO_TCP)}
}

func tcp() clause { return clause{text: "meta l4proto tcp", exprs: tcpExprs()} }

// ipTCP asks the same of the header, for which the kernel need not call a function.
func ipTCP() clause {
	return clause{text: "ip protocol tcp", exprs: []expression{load(network, ipProtocol, 1, reg), equal(unix.IPPROTO_TCP)}}
}

// tcpPort matches a control port in the packet itself; which is "sport" or "dport".
func tcpPort(which string) clause {
	offset := uint32(tcpDestination)
	if which == "sport" {
		offset = tcpSource
	}
	return clause{
		text:  fmt.Sprintf("tcp %s @%s", which, portsSet),
		exprs: append(tcpExprs(), load(transport, offset, 2, reg), in(portsSet)),
	}
}

// dialledPort matches the port that the client dialled, whichever way the packet goes.
func dialledPort() clause {
	return clause{
		text:  "ct original proto-dst @" + portsSet,
		exprs: []expression{ctOriginal(expr.CtKeyPROTODST), in(portsSet)},
		needs: needConntrack,
	}
}

// notEstablished compares the whole state, in which exactly one bit is set.
func notEstablished() clause {
	return clause{
		text:  "ct state != established",
		exprs: []expression{ct(expr.CtKeySTATE), differs(host(expr.CtStateBitESTABLISHED)...)},
		needs: needConntrack,
	}
}

// isEstablished compares the whole state too: nft's "ct state established" would take a third expression.
func isEstablished() clause {
	return clause{
		text:  "ct state == established",
		exprs: []expression{ct(expr.CtKeySTATE), equal(host(expr.CtStateBitESTABLISHED)...)},
		needs: needConntrack,
	}
}

func synAlone() clause {
	return clause{
		text:  "tcp flags & (syn | ack) == syn",
		exprs: append(tcpExprs(), load(transport, tcpBits, 1, reg), and(flagSYN|flagACK), equal(flagSYN)),
	}
}

func noSYNFINRST() clause {
	return clause{
		text:  "tcp flags & (fin | syn | rst) == 0",
		exprs: append(tcpExprs(), load(transport, tcpBits, 1, reg), and(flagFIN|flagSYN|flagRST), equal(0)),
	}
}

// bareACK matches a segment without payload by its total length and the byte with its data offset. Segments with IP
// options, or with one of the four bits below the data offset set, are not recognised and go to the queue: harmless.
func bareACK() clause {
	return clause{
		text:  "ip length . @th,96,8 @" + bareACKsSet,
		exprs: []expression{load(network, ipLength, 2, reg), load(transport, tcpOffset, 1, reg1), in(bareACKsSet)},
	}
}

func gre() clause {
	return clause{text: "ip protocol gre", exprs: greExprs()}
}

func greExprs() []expression {
	return []expression{load(network, ipProtocol, 1, reg), equal(unix.IPPROTO_GRE)}
}

// versionOne matches the low three bits of the second byte (RFC 2637, section 4.1).
func versionOne() clause {
	return clause{
		text:  "ip protocol gre @th,13,3 1",
		exprs: append(greExprs(), load(transport, greFlags+1, 1, reg), and(0x07), equal(0x01)),
	}
}

// withKey matches a packet that is long enough for payload length and Call ID: what is not there cannot be compared.
func withKey() clause {
	return clause{
		text:  "@th,32,32 >= 0x0",
		exprs: []expression{load(transport, greFlags+4, 4, reg), encoded(&expr.Cmp{Op: expr.CmpOpGte, Register: reg, Data: make([]byte, 4)})},
	}
}

// enhancedGRE matches version and protocol type with one comparison of the first 32 bits: three expressions, where a
// field each would take five. The low three bits of the second byte are the version, 1; the protocol type is 0x880B (RFC
// 2637, section 4.1).
func enhancedGRE() clause {
	return clause{
		text: "ip protocol gre @th,0,32 & 0x7ffff == 0x1880b",
		exprs: append(greExprs(),
			load(transport, greFlags, 4, reg), and(0x00, 0x07, 0xff, 0xff), equal(0x00, 0x01, 0x88, 0x0b)),
	}
}

// mapped matches a packet whose conntrack entry was made by the daemon.
func mapped() clause {
	return clause{
		text:  fmt.Sprintf("ct status & %#x == %#[1]x", statusFixedTimeout),
		exprs: []expression{ct(expr.CtKeySTATUS), and(host(statusFixedTimeout)...), equal(host(statusFixedTimeout)...)},
		needs: needConntrack,
	}
}

// newFlow matches a packet that found no conntrack entry, or one that has seen no reply. The reply to GRE without keys
// of its own never comes, so every packet of an ordinary flow with the tuple of a call is "new".
func newFlow() clause {
	return clause{
		text:  "ct state new",
		exprs: []expression{ct(expr.CtKeySTATE), and(host(expr.CtStateBitNEW)...), differs(host(0)...)},
		needs: needConntrack,
	}
}

// callTuple looks up addresses and Call ID, as they arrived, in the guard set. A DNAT of the user's may have changed the
// destination by now, which conntrack remembers; a Call ID is changed in no flow that is new.
func callTuple() clause {
	return clause{
		text: "ct original ip saddr . ct original ip daddr . @th,48,16 @" + CallsSet,
		exprs: []expression{
			ctOriginal(unix.NFT_CT_SRC_IP), ctOriginalTo(unix.NFT_CT_DST_IP, reg1), load(transport, greCallID, 2, reg2),
			in(CallsSet),
		},
		needs: needConntrack,
	}
}

// count counts in a named counter.
func count(name string) clause {
	return clause{
		text:  fmt.Sprintf("counter name %q", name),
		exprs: []expression{encoded(&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name})},
		needs: needCounters,
	}
}

func jump(chain string) clause {
	return clause{text: "jump " + chain, exprs: []expression{encoded(&expr.Verdict{Kind: expr.VerdictJump, Chain: chain})}}
}

// verdict is "return" or "drop".
func verdict(word string) clause {
	kind := expr.VerdictReturn
	if word == "drop" {
		kind = expr.VerdictDrop
	}
	return clause{text: word, exprs: []expression{encoded(&expr.Verdict{Kind: kind})}}
}

// The xtables target's revision with the bypass flag and a number of queues: struct xt_NFQ_info_v3 of
// linux/netfilter/xt_NFQUEUE.h, three 16-bit integers in the machine's byte order, padded to 8 bytes as all xtables data.
const (
	targetName     = "NFQUEUE"
	targetRevision = 3
	targetBypass   = 0x01 // NFQ_FLAG_BYPASS
)

// queue hands the packet to user space, or lets it pass while nobody listens there (bypass).
func queue(c Config) clause {
	to := fmt.Sprint(c.Queue)
	if c.Queues > 1 {
		to = fmt.Sprintf("%d-%d", c.Queue, c.Queue+c.Queues-1)
	}
	if c.Native {
		return clause{
			text:  "queue flags bypass to " + to,
			exprs: []expression{encoded(&expr.Queue{Num: c.Queue, Total: c.Queues, Flag: expr.QueueFlagBypass})},
			needs: needQueue,
		}
	}
	info := make(xt.Unknown, 0, 8)
	for _, v := range []uint16{c.Queue, c.Queues, targetBypass, 0} {
		info = binary.NativeEndian.AppendUint16(info, v)
	}
	return clause{
		text:    fmt.Sprintf("xtables target %s revision %d (bypass, to %s)", targetName, targetRevision, to),
		exprs:   []expression{encoded(&expr.Target{Name: targetName, Rev: targetRevision, Info: &info})},
		foreign: true,
		needs:   needQueue,
	}
}
