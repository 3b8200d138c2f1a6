package ways

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// rules is what matters of the routing rules (`ip rule`): marks, addresses and devices are a part of the question, but
// some rules look at what can't be asked.
type rules struct {
	service   bool           // at the type of service, which packets of one call may differ in
	protocols map[uint8]bool // at the protocol: the kernel answers for UDP, TCP and ICMP only
}

// fraDSCP came with 6.13.
const fraDSCP = 25

// protocol says for which protocol to ask, so that the answer is that for GRE: one that no rule names.
func (w *Ways) protocol() (uint8, error) {
	if w.rules == nil {
		r, err := w.askRules()
		if err != nil {
			return 0, fmt.Errorf("list routing rules: %w", err)
		}
		w.rules = &r
	}
	if w.rules.service {
		return 0, refuse("a routing rule looks at the type of service (tos, dscp)")
	}
	if !w.rules.protocols[unix.IPPROTO_GRE] {
		for _, p := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP, unix.IPPROTO_ICMP} {
			if !w.rules.protocols[p] {
				return p, nil
			}
		}
	}
	return 0, refuse("a routing rule looks at the protocol (ipproto)")
}

func (w *Ways) askRules() (rules, error) {
	request := make([]byte, 12) // fib_rule_hdr
	request[0] = unix.AF_INET
	replies, err := w.asks.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETRULE, Flags: netlink.Request | netlink.Dump}, Data: request})
	if err != nil {
		return rules{}, err
	}
	return parseRules(replies), nil
}

// parseRules reads RTM_NEWRULEs: a fib_rule_hdr of 12 bytes, whose fourth is the type of service, and attributes.
func parseRules(replies []netlink.Message) rules {
	r := rules{protocols: map[uint8]bool{}}
	for _, m := range replies {
		if m.Header.Type != unix.RTM_NEWRULE || len(m.Data) < 12 {
			continue
		}
		r.service = r.service || m.Data[3] != 0
		d, err := netlink.NewAttributeDecoder(m.Data[12:])
		if err != nil {
			continue
		}
		for d.Next() {
			switch t := d.Type(); {
			case t == unix.FRA_IP_PROTO:
				r.protocols[d.Uint8()] = true
			case t == fraDSCP:
				r.service = true
			}
		}
	}
	return r
}
