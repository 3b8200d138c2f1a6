package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/google/nftables"
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
