//go:build !nofastpath

package fastpath

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// openClsact puts the programs where the stubs call them.
func (p *Path) openClsact() (err error) {
	for i, label := range placed {
		k, v := uint32(i), uint32(p.code[label])
		if err := element(unix.BPF_MAP_UPDATE_ELEM, p.programs, &k, &v); err != nil {
			return fmt.Errorf("put the eBPF program %s into the array of programs: %w", label, err)
		}
	}
	p.old, err = openTraffic()
	return err
}

// attach makes a clsact queueing discipline where there is none, and a filter in it.
func (c *clsact) attach(at point, stub int) error {
	err := c.do(traffic(unix.RTM_NEWQDISC, netlink.Create|netlink.Excl, at.link, clsactHandle, clsactParent, 0, plain("clsact")))
	if err == nil {
		c.made[at.link] = true
	} else if errors.Is(err, os.ErrExist) {
		err = c.isClsact(at.link)
	}
	if err != nil {
		return fmt.Errorf("add a clsact queueing discipline: %w", err)
	}
	name := FilterName
	if c.made[at.link] {
		name = madeName
	}
	return c.do(traffic(unix.RTM_NEWTFILTER, netlink.Create|netlink.Replace, at.link, filterHandle, at.parent(), filterInfo(), func(e *netlink.AttributeEncoder) {
		e.String(tcaKind, "bpf")
		e.Nested(tcaOptions, func(e *netlink.AttributeEncoder) error {
			e.Uint32(tcaBPFFD, uint32(stub))
			e.String(tcaBPFName, name)
			e.Uint32(tcaBPFFlags, actDirect)
			return nil
		})
	}))
}

// isClsact refuses the queueing discipline ingress, which is in the place of clsact: its filters, and that there is
// one, are somebody else's business.
func (c *clsact) isClsact(link int) error {
	answers, err := c.dump(unix.RTM_GETQDISC, link, 0)
	if err != nil {
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	for _, m := range answers { // of all links
		if len(m.Data) < trafficMessage || int(int32(ne.Uint32(m.Data[4:]))) != link || ne.Uint32(m.Data[12:]) != clsactParent {
			continue
		}
		if kind := trafficKind(m.Data[trafficMessage:]); kind != "clsact" {
			return fmt.Errorf("%w (%s)", ErrTaken, kind)
		}
	}
	return nil
}

// has reports whether our filter is at a point.
func (c *clsact) has(at point) bool {
	names, err := c.filters(at)
	return err == nil && (slices.Contains(names, FilterName) || slices.Contains(names, madeName))
}

// trafficKind is a queueing discipline's name.
func trafficKind(attributes []byte) (kind string) {
	d, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return ""
	}
	for d.Next() {
		if d.Type() == tcaKind {
			kind = d.String()
		}
	}
	return kind
}
