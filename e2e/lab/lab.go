package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Lab is a set of hosts and switches.
type Lab struct {
	dir *directory // sockets and configuration of daemons

	mu       sync.Mutex
	hosts    []*Host
	segments []*Segment
	closers  []func() error
	closed   bool
}

// New makes an empty lab. Close it.
func New() (*Lab, error) {
	dir, err := newDirectory()
	if err != nil {
		return nil, fmt.Errorf("make directory for sockets: %w", err)
	}
	return &Lab{dir: dir}, nil
}

// Host adds a host: a namespace with nothing but a loopback device.
func (l *Lab) Host(name string) (*Host, error) {
	h, err := newHost(l, name)
	if err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		h.close()
		return nil, fmt.Errorf("make host %s: %w", name, os.ErrClosed)
	}
	l.hosts = append(l.hosts, h)
	return h, nil
}

// Router adds a host that forwards.
func (l *Lab) Router(name string) (*Host, error) {
	h, err := l.Host(name)
	if err != nil {
		return nil, err
	}
	return h, h.Sysctl("net.ipv4.ip_forward", "1")
}

// OnClose registers something to close with the lab. The last registered is
// closed first, and all before the hosts.
func (l *Lab) OnClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// Dir is a directory of the lab's own; it goes with the lab.
func (l *Lab) Dir() string { return l.dir.path }

// Hosts gives the hosts in the order they were made.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Host(nil), l.hosts...)
}

// Close stops the daemons and lets go of everything. It is safe to call twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	closers, hosts := l.closers, l.hosts
	l.closers, l.closed = nil, true
	l.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	for _, h := range hosts {
		h.close()
	}
	errs = append(errs, l.dir.remove())
	return errors.Join(errs...)
}

// Describe writes what one wants to know about a lab in which something went
// wrong: for every host with a daemon or a firewall its ruleset, its conntrack
// entries, the daemon's log and status. Errors are written where the text would
// be: a broken lab must still be described.
func (l *Lab) Describe(w io.Writer) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, h := range l.Hosts() {
		h.mu.Lock()
		daemons := append([]*Daemon(nil), h.daemons...)
		h.mu.Unlock()
		rules, err := h.RulesetText(ctx)
		if err == nil && rules == "" && len(daemons) == 0 {
			continue
		}
		section := func(what, text string, err error) {
			fmt.Fprintf(w, "----- %s: %s\n%s", h.name, what, text)
			if err != nil {
				fmt.Fprintf(w, "(%v)\n", err)
			}
		}
		section("nftables ruleset", rules, err)
		flows, err := h.Conntrack()
		section("conntrack entries", FlowsText(flows), err)
		for _, d := range daemons {
			section(fmt.Sprintf("daemon %v, log", d.cmd.Args), tail(d.Log(), 80), nil)
			if !d.Running() {
				section("daemon's end", "", d.exitError())
				continue
			}
			text, err := d.StatusText(ctx)
			section("daemon's status", text, err)
		}
	}
}

// tail gives the last lines of a text.
func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	if len(all) <= lines {
		return text
	}
	return fmt.Sprintf("(%d lines before these)\n%s", len(all)-lines, strings.Join(all[len(all)-lines:], ""))
}
