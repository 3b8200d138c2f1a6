package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// This file is rtnetlink's traffic control as far as filters have to be found and taken away, which builds without the
// fast path do as well: the daemon that was killed may have been another build.

// FilterName is the name of our filters in `tc filter show`.
const FilterName = "pptp-alg"

// madeName is that of filters whose queueing discipline was made by us, and goes with them.
const madeName = FilterName + " and qdisc"

const (
	filterPriority = 49000 // behind those that people number, before those that the kernel does
	filterHandle   = 1

	clsactHandle = 0xffff0000 // TC_H_CLSACT's own
	clsactParent = 0xfffffff1 // TC_H_CLSACT, and TC_H_INGRESS
	atIngress    = 0xfffffff2 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
	atEgress     = 0xfffffff3

	tcaKind        = 1
	tcaOptions     = 2
	tcaBPFFD       = 6
	tcaBPFName     = 7
	tcaBPFFlags    = 8
	actDirect      = 1 // TCA_BPF_FLAG_ACT_DIRECT: the program's result is the verdict
	trafficMessage = 20
)

// ne is the byte order of this machine, and so of the object that is for it.
var ne = binary.NativeEndian

// A point is where a program can be attached.
type point struct {
	link   int
	egress bool
}

// parent is where a filter is.
func (at point) parent() uint32 {
	if at.egress {
		return atEgress
	}
	return atIngress
}

// clsact attaches programs as filters of clsact queueing disciplines, which every kernel has: tc(8), over rtnetlink.
//
// A filter outlives the process. So what is attached is a stub, which calls the program out of an array that the kernel
// empties when nobody has a descriptor of it any more; what is left behind then does nothing, and Sweep takes it away.
type clsact struct {
	conn *netlink.Conn
	made map[int]bool // links whose queueing discipline was made by us
}

func openTraffic() (*clsact, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open a socket to the kernel's traffic control: %w", err)
	}
	return &clsact{conn: conn, made: map[int]bool{}}, nil
}

// traffic is a request about traffic control: struct tcmsg, and attributes.
func traffic(kind netlink.HeaderType, flags netlink.HeaderFlags, link int, handle, parent, info uint32, attributes func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	attributes(e)
	b, err := e.Encode()
	if err != nil {
		return netlink.Message{}, err
	}
	head := make([]byte, 0, trafficMessage+len(b))
	head = append(head, unix.AF_UNSPEC, 0, 0, 0)
	for _, w := range []uint32{uint32(link), handle, parent, info} {
		head = ne.AppendUint32(head, w)
	}
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(head, b...),
	}, nil
}

func (c *clsact) do(m netlink.Message, err error) error {
	if err == nil {
		_, err = c.conn.Execute(m)
	}
	return err
}

func plain(kind string) func(*netlink.AttributeEncoder) {
	return func(e *netlink.AttributeEncoder) { e.String(tcaKind, kind) }
}

// filterInfo is the priority and, in network order, the protocol (ETH_P_ALL) of our filters.
func filterInfo() uint32 {
	return filterPriority<<16 | uint32(ne.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff}))
}

// detach takes the filter away, and the queueing discipline if it was ours and nobody else came to use it.
func (c *clsact) detach(at point) error {
	err := c.do(traffic(unix.RTM_DELTFILTER, 0, at.link, filterHandle, at.parent(), filterInfo(), plain("bpf")))
	if errors.Is(err, unix.ENOENT) { // others have taken the filter away, which leaves the queueing discipline
		err = nil
	}
	if err == nil && c.made[at.link] {
		var left bool
		if left, err = c.used(at.link); err == nil && !left {
			delete(c.made, at.link)
			err = c.do(traffic(unix.RTM_DELQDISC, 0, at.link, clsactHandle, clsactParent, 0, plain("clsact")))
		}
	}
	// No device, or no queueing discipline: others have taken them away.
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		delete(c.made, at.link)
		return nil
	}
	return err
}

// used reports whether a link's clsact has filters.
func (c *clsact) used(link int) (bool, error) {
	in, err := c.filters(point{link, false})
	if err != nil || len(in) > 0 {
		return true, err
	}
	out, err := c.filters(point{link, true})
	return len(out) > 0, err
}

// dump returns what the kernel lists about traffic control.
func (c *clsact) dump(kind netlink.HeaderType, link int, parent uint32) ([]netlink.Message, error) {
	m, err := traffic(kind, netlink.Dump, link, 0, parent, 0, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return nil, err
	}
	m.Header.Flags &^= netlink.Acknowledge
	return c.conn.Execute(m)
}

// filters lists the names of the filters at a point; those that have none are there with an empty one.
func (c *clsact) filters(at point) (names []string, err error) {
	answers, err := c.dump(unix.RTM_GETTFILTER, at.link, at.parent())
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // no clsact there, or no traffic control in this kernel
	}
	if err != nil {
		return nil, fmt.Errorf("list the filters of link %d: %w", at.link, err)
	}
	for _, m := range answers {
		if len(m.Data) >= trafficMessage {
			names = append(names, filterName(m.Data[trafficMessage:]))
		}
	}
	return names, nil
}

// filterName is the name of a filter that is a program.
func filterName(attributes []byte) (name string) {
	d, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return ""
	}
	for d.Next() {
		if d.Type() == tcaOptions {
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == tcaBPFName {
						name = d.String()
					}
				}
				return nil
			})
		}
	}
	return name
}

func (c *clsact) close() error { return c.conn.Close() }

// Sweep takes away the filters that a process left behind which was killed, with the queueing disciplines that it had made, and
// returns how many filters there were. It must not be called while a process is at work.
func Sweep() (n int, err error) {
	links, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("list devices: %w", err)
	}
	c, err := openTraffic()
	if err != nil {
		return 0, err
	}
	defer c.close()
	for _, link := range links {
		for _, at := range []point{{link.Index, false}, {link.Index, true}} {
			names, err := c.filters(at)
			if err != nil {
				return n, err
			}
			i := slices.IndexFunc(names, func(name string) bool { return name == FilterName || name == madeName })
			if i < 0 {
				continue
			}
			if names[i] == madeName {
				c.made[link.Index] = true
			}
			if err := c.detach(at); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}
