package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os/exec"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func (h *Host) nftables() (*nftables.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("open nftables of %s: host is gone", h.name)
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(h.ns)))
	if err != nil {
		return nil, fmt.Errorf("open nftables of %s: %w", h.name, err)
	}
	return conn, nil
}

// Nftables gives a connection to the host's nftables, for what the lab has no
// function for.
func (h *Host) Nftables() (*nftables.Conn, error) { return h.nftables() }

// Tables names the host's nftables tables, the lab's own excepted.
func (h *Host) Tables() ([]string, error) {
	conn, err := h.nftables()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list tables of %s: %w", h.name, err)
	}
	var names []string
	for _, t := range tables {
		if t.Name != FirewallTable || t.Family != nftables.TableFamilyIPv4 {
			names = append(names, familyName(t.Family)+" "+t.Name)
		}
	}
	return names, nil
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyNetdev:
		return "netdev"
	case nftables.TableFamilyBridge:
		return "bridge"
	case nftables.TableFamilyARP:
		return "arp"
	}
	return fmt.Sprintf("family %d", f)
}

// Elements lists a set's elements as raw keys (table of family ip).
func (h *Host) Elements(table, set string) ([][]byte, error) {
	conn, err := h.nftables()
	if err != nil {
		return nil, err
	}
	s, err := conn.GetSetByName(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: table}, set)
	if err != nil {
		return nil, fmt.Errorf("find set %s in %s: %w", set, table, err)
	}
	elements, err := conn.GetSetElements(s)
	if err != nil {
		return nil, fmt.Errorf("list set %s in %s: %w", set, table, err)
	}
	var keys [][]byte
	for _, e := range elements {
		keys = append(keys, e.Key)
	}
	return keys, nil
}

// Structure prints everything in the host's nftables that stays the same while
// packets flow: tables, chains, rules with their handles, sets with their
// number of elements, objects; no counters. The handles of rules and tables are
// in it, so that two equal texts mean that nothing was changed in between, not
// even replaced by its like.
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
	for _, t := range tables {
		fmt.Fprintf(&b, "table %s %s, handle %d\n", familyName(t.Family), t.Name, handles[tableKey{t.Family, t.Name}])
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
			b.WriteByte('\n')
			rules, err := conn.GetRules(t, c)
			if err != nil {
				return "", fmt.Errorf("list rules of %s: %w", c.Name, err)
			}
			for _, r := range rules {
				fmt.Fprintf(&b, "    rule %d:", r.Handle)
				for _, e := range r.Exprs {
					if _, ok := e.(*expr.Counter); ok {
						e = &expr.Counter{}
					}
					fmt.Fprintf(&b, " %T", e)
				}
				b.WriteByte('\n')
			}
		}
	}
	return strings.ReplaceAll(b.String(), "*expr.", ""), nil
}

// nftaTableHandle is NFTA_TABLE_HANDLE (linux/netfilter/nf_tables.h), which
// package unix does not have.
const nftaTableHandle = 4

type tableKey struct {
	family nftables.TableFamily
	name   string
}

// tableHandles asks for what google/nftables leaves out of a table: its handle
// (NFTA_TABLE_HANDLE), which no later table of the same name shares.
func (h *Host) tableHandles() (map[tableKey]uint64, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(h.ns)})
	if err != nil {
		return nil, fmt.Errorf("open nftables of %s: %w", h.name, err)
	}
	defer func() { _ = conn.Close() }()
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, 0, 0, 0}, // struct nfgenmsg
	})
	if err != nil {
		return nil, fmt.Errorf("list tables of %s: %w", h.name, err)
	}
	handles := map[tableKey]uint64{}
	for _, m := range replies {
		if len(m.Data) < 4 {
			continue
		}
		d, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return nil, fmt.Errorf("list tables of %s: %w", h.name, err)
		}
		d.ByteOrder = binary.BigEndian
		key, handle := tableKey{family: nftables.TableFamily(m.Data[0])}, uint64(0)
		for d.Next() {
			switch d.Type() {
			case unix.NFTA_TABLE_NAME:
				key.name = d.String()
			case nftaTableHandle:
				handle = d.Uint64()
			}
		}
		handles[key] = handle
	}
	return handles, nil
}

// Counter reads a named counter (table of family ip).
func (h *Host) Counter(table, name string) (packets, bytes uint64, err error) {
	conn, err := h.nftables()
	if err != nil {
		return 0, 0, err
	}
	o, err := conn.GetObject(&nftables.CounterObj{Table: &nftables.Table{Family: nftables.TableFamilyIPv4, Name: table}, Name: name})
	if err != nil {
		return 0, 0, fmt.Errorf("read counter %s: %w", name, err)
	}
	c, ok := o.(*nftables.CounterObj)
	if !ok {
		return 0, 0, fmt.Errorf("read counter %s: it is a %T", name, o)
	}
	return c.Packets, c.Bytes, nil
}

// RulesetText lists the ruleset with nft where that is installed, else in the
// words of Structure. A host without rules gives "".
func (h *Host) RulesetText(ctx context.Context) (string, error) {
	structure, err := h.Structure()
	if err != nil || structure == "" {
		return "", err
	}
	nft, err := exec.LookPath("nft")
	if err != nil {
		return structure, nil // the program is only a convenience
	}
	out, err := h.Run(ctx, nft, "list", "ruleset")
	if err != nil {
		return structure, nil
	}
	return out, nil
}

// Run runs a program inside the host and gives its standard output.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// Only the start has to happen on a thread inside.
	if err := h.Do(cmd.Start); err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}
