//go:build !nofastpath

package fastpath

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// clsact attaches programs as filters of clsact queueing disciplines, which every kernel has: tc(8), over rtnetlink.
//
// A filter outlives the process. So what is attached is a stub, which calls the program out of an array that the kernel
// empties when nobody has a descriptor of it any more; what is left behind then does nothing, and Sweep takes it away.
type clsact struct {
	conn *netlink.Conn
	made map[int]bool // links whose queueing discipline was made by us
}

// FilterName is the name of our filters in `tc filter show`.
const FilterName = "pptp-alg"

const (
	filterPriority = 49000 // behind those that people number, before those that the kernel does
	filterHandle   = 1

	clsactHandle = 0xffff0000 // TC_H_CLSACT's own
	clsactParent = 0xfffffff1 // TC_H_CLSACT
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

// openClsact puts the programs where the stubs call them.
func (p *Path) openClsact() error {
	for i, label := range placed {
		k, v := uint32(i), uint32(p.code[label])
		if err := element(unix.BPF_MAP_UPDATE_ELEM, p.programs, &k, &v); err != nil {
			return fmt.Errorf("put the eBPF program %s into the array of programs: %w", label, err)
		}
	}
	conn, err := dialTraffic()
	if err == nil {
		p.old = &clsact{conn: conn, made: map[int]bool{}}
	}
	return err
}

func dialTraffic() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open a socket to the kernel's traffic control: %w", err)
	}
	return conn, nil
}

// parent is where a filter is.
func (at point) parent() uint32 {
	if at.egress {
		return atEgress
	}
	return atIngress
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
	protocol := uint32(unix.ETH_P_ALL)
	if !bigEndian {
		protocol = uint32(bits.ReverseBytes16(uint16(protocol)))
	}
	return filterPriority<<16 | protocol
}

func (c *clsact) attach(at point, stub int) error {
	err := c.do(traffic(unix.RTM_NEWQDISC, netlink.Create|netlink.Excl, at.link, clsactHandle, clsactParent, 0, plain("clsact")))
	if err == nil {
		c.made[at.link] = true
	} else if !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("add a clsact queueing discipline: %w", err)
	}
	return c.do(traffic(unix.RTM_NEWTFILTER, netlink.Create|netlink.Replace, at.link, filterHandle, at.parent(), filterInfo(), func(e *netlink.AttributeEncoder) {
		e.String(tcaKind, "bpf")
		e.Nested(tcaOptions, func(e *netlink.AttributeEncoder) error {
			e.Uint32(tcaBPFFD, uint32(stub))
			e.String(tcaBPFName, FilterName)
			e.Uint32(tcaBPFFlags, actDirect)
			return nil
		})
	}))
}

// detach takes the filter away, and the queueing discipline if it was ours and nobody else came to use it.
func (c *clsact) detach(at point) error {
	err := c.do(traffic(unix.RTM_DELTFILTER, 0, at.link, filterHandle, at.parent(), filterInfo(), plain("bpf")))
	if err == nil && c.made[at.link] {
		var left []point
		if left, err = c.filters(at.link, ""); err == nil && len(left) == 0 {
			delete(c.made, at.link)
			err = c.do(traffic(unix.RTM_DELQDISC, 0, at.link, clsactHandle, clsactParent, 0, plain("clsact")))
		}
	}
	// No device, no queueing discipline, or no filter: others have taken them away.
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		delete(c.made, at.link)
		return nil
	}
	return err
}

// filters lists where there are filters at a link's clsact: those of a name, or all.
func (c *clsact) filters(link int, name string) (found []point, err error) {
	for _, at := range []point{{link, false}, {link, true}} {
		m, err := traffic(unix.RTM_GETTFILTER, netlink.Dump, link, 0, at.parent(), 0, func(*netlink.AttributeEncoder) {})
		if err != nil {
			return nil, err
		}
		m.Header.Flags &^= netlink.Acknowledge
		answers, err := c.conn.Execute(m)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // no clsact there, or no traffic control in this kernel
		}
		if err != nil {
			return nil, fmt.Errorf("list the filters of link %d: %w", link, err)
		}
		for _, m := range answers {
			if len(m.Data) >= trafficMessage && (name == "" || filterName(m.Data[trafficMessage:]) == name) {
				found = append(found, at)
				break
			}
		}
	}
	return found, nil
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

// Sweep takes away the filters that a process left behind which was killed, and returns how many there were. It must not
// be called while a process is at work.
func Sweep() (n int, err error) {
	links, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("list devices: %w", err)
	}
	conn, err := dialTraffic()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	c := &clsact{conn: conn, made: map[int]bool{}}
	for _, link := range links {
		left, err := c.filters(link.Index, FilterName)
		if err != nil {
			return n, err
		}
		for _, at := range left {
			if err := c.detach(at); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}
