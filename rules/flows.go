package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ConnectionsSet is the set of the flows of known control connections, as they arrive.
const ConnectionsSet = "connections"

// Stray counts segments of known control connections that conntrack has no entry for, or that do not fit the entry.
const Stray = "stray"

// A Flow is one direction of a control connection as its segments arrive at the router, before any translation.
//
// When the connection's conntrack entry is removed, such a segment is translated wrongly or not at all. What a server sends to
// the router's address would be answered with a reset by the router itself, since it has no such connection.
type Flow struct{ Src, Dst netip.AddrPort }

// String is the element in nft's words.
func (f Flow) String() string {
	return fmt.Sprintf("%s . %d . %s . %d", f.Src.Addr(), f.Src.Port(), f.Dst.Addr(), f.Dst.Port())
}

// flowKeyLength is the length of an element: each field of a concatenation is padded to four bytes.
const flowKeyLength = 4 + 4 + 4 + 4

func (f Flow) key() ([]byte, error) {
	key := make([]byte, 0, flowKeyLength)
	for _, end := range [...]netip.AddrPort{f.Src, f.Dst} {
		a := end.Addr().Unmap()
		if !a.Is4() {
			return nil, fmt.Errorf("flow %s: not IPv4 addresses", f)
		}
		key = append(key, a.AsSlice()...)
		key = binary.BigEndian.AppendUint16(key, end.Port())
		key = append(key, 0, 0)
	}
	return key, nil
}

// AddFlows makes control connections known: from now on a segment of one that has no conntrack entry begins no entry. Flows that
// are there already stay. ErrAbsent: there is no table.
func (k *Kernel) AddFlows(flows ...Flow) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return addTo(k, "add control connections", ConnectionsSet, flows)
}

// DeleteFlows forgets control connections. Those that are not there, or a table that is not there, are no error.
func (k *Kernel) DeleteFlows(flows ...Flow) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return deleteFrom(k, "delete control connections", ConnectionsSet, flows)
}

// Flows lists the flows of the control connections that are known. ErrAbsent: there is no table.
func (k *Kernel) Flows() ([]Flow, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	const doing = "list control connections"
	keys, err := k.keys(ConnectionsSet)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("rules: %s: %w", doing, ErrAbsent)
	}
	if err != nil {
		return nil, explain(doing, err)
	}
	flows := make([]Flow, 0, len(keys))
	for _, key := range keys {
		if len(key) != flowKeyLength {
			return nil, fmt.Errorf("rules: %s: an element of %d bytes instead of %d: the set is not as Apply makes it", doing, len(key), flowKeyLength)
		}
		flows = append(flows, Flow{Src: addrPort(key), Dst: addrPort(key[flowKeyLength/2:])})
	}
	return flows, nil
}

func addrPort(key []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(key)), binary.BigEndian.Uint16(key[4:]))
}

// MissingFlows returns those of the flows that are not known (any more). ErrAbsent: there is no table, or no such set.
func (k *Kernel) MissingFlows(flows []Flow) ([]Flow, error) {
	return lacking(flows, k.Flows)
}

// connections is the set of flows.
func connections() set {
	return set{
		name:        ConnectionsSet,
		comment:     "source and destination of segments of known control connections, as they arrive",
		declaration: "type ipv4_addr . inet_service . ipv4_addr . inet_service",
		keyType:     typeAddress<<(3*typeBits) | typeService<<(2*typeBits) | typeAddress<<typeBits | typeService,
		keyLength:   flowKeyLength,
		description: byteOrder(0),
		dynamic:     true,
	}
}

// strays are the rules for segments that belong to no conntrack entry.
//
// The daemon puts back the entries of control connections that others remove, and TCP sends again what gets no
// acknowledgement: so it is enough that a segment which comes in between goes no further. It goes to the daemon, which puts
// back the entry, if it was not told that this is gone, and drops the segment. While nobody listens it passes.
//
// Conntrack takes a segment for invalid that does not fit the connection's entry, or that it begins no entry with (any, with
// nf_conntrack_tcp_loose=0). It would not be translated, but answered with a reset by the router itself.
func strays() chain {
	return chain{
		name:    "strays",
		comment: "segments in the middle of a connection that conntrack has no entry for, or does not understand",
		rules: []rule{
			{[]clause{invalid(), flow(), jump("known")}, "of a known control connection, and would not be translated"},
			{[]clause{unconfirmed(), originalFlow(), jump("known")}, "of a known control connection, and would begin an entry of its own"},
		},
	}
}

// strayRate is how many segments a second come to the daemon that belong to no entry. There may be as many connections whose
// entries go at once, and whoever knows addresses and ports of one can forge them.
const strayRate = 1000

func known(c Config) chain {
	k := chain{
		name:    "known",
		comment: "segments of known control connections whose conntrack entries are gone, or that do not fit them",
		rules: []rule{
			{[]clause{count(Stray), queue(c)}, "its entry is gone: pptp-alg puts it back, and TCP sends again; passes while nobody listens"},
		},
	}
	if c.Rate > 0 {
		k.rules = slices.Insert(k.rules, 0, rule{
			[]clause{over(strayRate), count(Stray), verdict("drop")}, "no more than can be looked at; TCP sends again",
		})
	}
	return k
}

// over matches packets beyond so many a second. A burst of one second's worth is let pass.
func over(rate uint32) clause {
	return clause{
		text: fmt.Sprintf("limit rate over %d/second burst %[1]d packets", rate),
		exprs: []expression{encoded(&expr.Limit{
			Type: expr.LimitTypePkts, Rate: uint64(rate), Over: true, Unit: expr.LimitTimeSecond, Burst: rate,
		})},
		needs: needLimit,
	}
}

// noSYN matches all segments but those that begin a connection.
func noSYN() clause {
	return clause{
		text:  "tcp flags & syn == 0x0",
		exprs: append(tcpExprs(), load(transport, tcpBits, 1, reg), and(flagSYN), equal(0)),
	}
}

// statusConfirmed is IPS_CONFIRMED (linux/netfilter/nf_conntrack_common.h): the entry is in conntrack's table.
const statusConfirmed = 1 << 3

// unconfirmed matches a packet that would begin a conntrack entry if it went on. What conntrack does not track has no status.
func unconfirmed() clause {
	return clause{
		text:  "ct status & confirmed == 0x0",
		exprs: []expression{ct(expr.CtKeySTATUS), and(host(statusConfirmed)...), equal(host(0)...)},
		needs: needConntrack,
	}
}

// invalid compares the whole state, in which exactly one bit is set. Such a packet has no conntrack entry.
func invalid() clause {
	return clause{
		text:  "ct state == invalid",
		exprs: []expression{ct(expr.CtKeySTATE), equal(host(expr.CtStateBitINVALID)...)},
		needs: needConntrack,
	}
}

// originalFlow looks up the flow with which a segment arrived that is about to begin a conntrack entry. A DNAT of the user's may
// have changed the destination by now.
func originalFlow() clause {
	return clause{
		text: "meta l4proto tcp ct original ip saddr . ct original proto-src . ct original ip daddr . ct original proto-dst @" + ConnectionsSet,
		exprs: append(tcpExprs(),
			ctOriginal(unix.NFT_CT_SRC_IP), ctOriginalTo(expr.CtKeyPROTOSRC, reg1),
			ctOriginalTo(unix.NFT_CT_DST_IP, reg2), ctOriginalTo(expr.CtKeyPROTODST, reg3), in(ConnectionsSet)),
		needs: needConntrack,
	}
}

// flow looks up the flow of a segment as it is.
func flow() clause {
	return clause{
		text: "ip saddr . tcp sport . ip daddr . tcp dport @" + ConnectionsSet,
		exprs: append(tcpExprs(),
			load(network, ipSource, 4, reg), load(transport, tcpSource, 2, reg1),
			load(network, ipDestination, 4, reg2), load(transport, tcpDestination, 2, reg3), in(ConnectionsSet)),
	}
}
