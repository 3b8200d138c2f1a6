package lab

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of nf_tables (linux/netfilter/nf_tables.h) that the lab reads by
// itself. google/nftables leaves out the handles of tables, and gives up on
// rules with an expression or attribute that it does not know; a lab must show
// whatever is there.
const (
	nftaTableName   = 1
	nftaTableHandle = 4

	nftaRuleTable       = 1
	nftaRuleChain       = 2
	nftaRuleHandle      = 3
	nftaRuleExpressions = 4

	nftaListElement = 1

	nftaExpressionName = 1
	nftaExpressionData = 2
)

// Structure prints everything in the host's nftables that stays the same while
// packets flow: tables, chains, rules, sets with their number of elements,
// objects; no counters. The handles of rules and tables are in it, so that two
// equal texts mean that nothing was changed in between, not even replaced by
// its like.
func (h *Host) Structure() (string, error) {
	conn, err := h.nftables()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	tables, err := conn.ListTables()
	if err != nil {
		return "", fmt.Errorf("list tables of %s: %w", h.name, err)
	}
	handles, err := h.tableHandles()
	if err != nil {
		return "", err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return "", fmt.Errorf("list chains of %s: %w", h.name, err)
	}
	rules, err := h.ruleLines()
	if err != nil {
		return "", err
	}
	for _, t := range tables {
		fmt.Fprintf(&b, "table %s %s, handle %d\n", familyName(t.Family), t.Name, handles[nftKey{t.Family, t.Name, ""}])
		sets, err := conn.GetSets(t)
		if err != nil {
			return "", fmt.Errorf("list sets of %s: %w", t.Name, err)
		}
		for _, s := range sets {
			elements, err := conn.GetSetElements(s)
			if err != nil {
				return "", fmt.Errorf("list set %s: %w", s.Name, err)
			}
			fmt.Fprintf(&b, "  set %s, %d elements\n", s.Name, len(elements))
		}
		objects, err := conn.GetNamedObjects(t)
		if err != nil {
			return "", fmt.Errorf("list objects of %s: %w", t.Name, err)
		}
		for _, o := range objects {
			if o, ok := o.(*nftables.NamedObj); ok {
				fmt.Fprintf(&b, "  object %s, type %d\n", o.Name, o.Type)
			}
		}
		for _, c := range chains {
			if c.Table.Name != t.Name || c.Table.Family != t.Family {
				continue
			}
			fmt.Fprintf(&b, "  chain %s", c.Name)
			if c.Hooknum != nil && c.Priority != nil {
				fmt.Fprintf(&b, " %s hook %d priority %d", c.Type, *c.Hooknum, *c.Priority)
			}
			if c.Policy != nil {
				fmt.Fprintf(&b, " policy %d", *c.Policy)
			}
			b.WriteByte('\n')
			for _, line := range rules[nftKey{t.Family, t.Name, c.Name}] {
				fmt.Fprintf(&b, "    %s\n", line)
			}
		}
	}
	return b.String(), nil
}

// nftKey names a chain, or with an empty chain a table.
type nftKey struct {
	family       nftables.TableFamily
	table, chain string
}

// nftDump asks for all objects of a kind and hands each to take.
func (h *Host) nftDump(message uint16, take func(family nftables.TableFamily, d *netlink.AttributeDecoder)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(h.ns)})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message), Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, 0, 0, 0}, // struct nfgenmsg
	})
	if err != nil {
		return err
	}
	for _, m := range replies {
		if len(m.Data) < 4 {
			continue
		}
		d, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return err
		}
		d.ByteOrder = binary.BigEndian
		take(nftables.TableFamily(m.Data[0]), d)
		if err := d.Err(); err != nil {
			return err
		}
	}
	return nil
}

// tableHandles gives the handle of every table. No later table of the same name
// has the same.
func (h *Host) tableHandles() (map[nftKey]uint64, error) {
	handles := map[nftKey]uint64{}
	err := h.nftDump(unix.NFT_MSG_GETTABLE, func(family nftables.TableFamily, d *netlink.AttributeDecoder) {
		key, handle := nftKey{family: family}, uint64(0)
		for d.Next() {
			switch d.Type() {
			case nftaTableName:
				key.table = d.String()
			case nftaTableHandle:
				handle = d.Uint64()
			}
		}
		handles[key] = handle
	})
	if err != nil {
		return nil, fmt.Errorf("list tables of %s: %w", h.name, err)
	}
	return handles, nil
}

// ruleLines gives a line for every rule: its handle, the names of its
// expressions and a checksum over all but its counters.
func (h *Host) ruleLines() (map[nftKey][]string, error) {
	lines := map[nftKey][]string{}
	err := h.nftDump(unix.NFT_MSG_GETRULE, func(family nftables.TableFamily, d *netlink.AttributeDecoder) {
		key, handle := nftKey{family: family}, uint64(0)
		var names []string
		sum := crc32.NewIEEE()
		for d.Next() {
			switch d.Type() {
			case nftaRuleTable:
				key.table = d.String()
			case nftaRuleChain:
				key.chain = d.String()
			case nftaRuleHandle:
				handle = d.Uint64()
			case nftaRuleExpressions:
				d.Nested(func(d *netlink.AttributeDecoder) error {
					for d.Next() {
						if d.Type() != nftaListElement {
							continue
						}
						d.Nested(func(d *netlink.AttributeDecoder) error {
							name := ""
							for d.Next() {
								switch {
								case d.Type() == nftaExpressionName:
									name = d.String()
									names = append(names, name)
								case d.Type() == nftaExpressionData && name != "counter":
									_, _ = sum.Write(d.Bytes())
								}
							}
							return nil
						})
					}
					return nil
				})
			}
		}
		lines[key] = append(lines[key], fmt.Sprintf("rule %d: %s (%08x)", handle, strings.Join(names, " "), sum.Sum32()))
	})
	if err != nil {
		return nil, fmt.Errorf("list rules of %s: %w", h.name, err)
	}
	return lines, nil
}
