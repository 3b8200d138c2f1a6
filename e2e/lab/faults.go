package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What others do to a router: the faults of the scenarios.

// FlushRuleset removes all rules, as nft flush ruleset does.
func (h *Host) FlushRuleset() error {
	conn, err := h.nftables()
	if err != nil {
		return err
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("flush ruleset of %s: %w", h.name, err)
	}
	return nil
}

// DeleteTables deletes every table, one after the other, as fw4 does when it is
// stopped.
func (h *Host) DeleteTables() error {
	conn, err := h.nftables()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return fmt.Errorf("list tables of %s: %w", h.name, err)
	}
	for _, t := range tables {
		conn.DelTable(t)
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("delete table %s of %s: %w", t.Name, h.name, err)
		}
	}
	return nil
}

// DeleteTable deletes a table of family ip.
func (h *Host) DeleteTable(name string) error {
	return h.edit(name, func(conn *nftables.Conn, t *nftables.Table) { conn.DelTable(t) })
}

// FlushChain removes the rules of a chain.
func (h *Host) FlushChain(table, chain string) error {
	return h.edit(table, func(conn *nftables.Conn, t *nftables.Table) { conn.FlushChain(&nftables.Chain{Table: t, Name: chain}) })
}

// DeleteChain removes a chain.
func (h *Host) DeleteChain(table, chain string) error {
	return h.edit(table, func(conn *nftables.Conn, t *nftables.Table) { conn.DelChain(&nftables.Chain{Table: t, Name: chain}) })
}

// FlushSet removes the elements of a set.
func (h *Host) FlushSet(table, set string) error {
	return h.edit(table, func(conn *nftables.Conn, t *nftables.Table) { conn.FlushSet(&nftables.Set{Table: t, Name: set}) })
}

func (h *Host) edit(table string, do func(*nftables.Conn, *nftables.Table)) error {
	conn, err := h.nftables()
	if err != nil {
		return err
	}
	do(conn, &nftables.Table{Family: nftables.TableFamilyIPv4, Name: table})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("edit table %s of %s: %w", table, h.name, err)
	}
	return nil
}

// SNATFrom hides what one host sends through a device behind an address.
func SNATFrom(from netip.Addr, out string, to netip.Addr) Piece {
	return func(f *firewall) {
		f.rule("postrouting", outDevice(out), fromNetwork(netip.PrefixFrom(from, 32)), load(1, to),
			just(&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegAddrMax: 1}))
	}
}

// SetLink sets a device up or down.
func (h *Host) SetLink(device string, up bool) error {
	link, err := h.handle.LinkByName(device)
	if err == nil && up {
		err = h.handle.LinkSetUp(link)
	} else if err == nil {
		err = h.handle.LinkSetDown(link)
	}
	if err != nil {
		return fmt.Errorf("set %s of %s up (%v): %w", device, h.name, up, err)
	}
	return nil
}

// AddDevice adds a device with nobody at its other end.
func (h *Host) AddDevice(name string) error {
	err := h.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-end"})
	if err != nil {
		return fmt.Errorf("add %s to %s: %w", name, h.name, err)
	}
	return h.up(name)
}

// DeleteDevice removes a device, and with it its addresses.
func (h *Host) DeleteDevice(name string) error {
	link, err := h.handle.LinkByName(name)
	if err == nil {
		err = h.handle.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("delete %s of %s: %w", name, h.name, err)
	}
	return nil
}

// Wakeups counts how often the threads of the daemon went to sleep by
// themselves, which is how often something woke them.
func (d *Daemon) Wakeups() (n int, err error) {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.PID()))
	if err != nil {
		return 0, err
	}
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				k, err := strconv.Atoi(strings.TrimSpace(value))
				if err != nil {
					return 0, err
				}
				n += k
			}
		}
	}
	return n, nil
}
