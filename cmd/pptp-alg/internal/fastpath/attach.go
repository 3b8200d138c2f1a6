//go:build !nofastpath

package fastpath

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// attached is a program at a point.
type attached struct {
	label string
	fd    int // of the bpf_link; -1 where the point is a clsact queueing discipline
}

// Carry attaches the program that carries packets which arrive by a link; bare says that they have no Ethernet header.
func (p *Path) Carry(link int, bare bool) error {
	label := "ethernet"
	if bare {
		label = "bare"
	}
	return p.attach(point{link, false}, label)
}

// mostPorts is of how many ports the addresses of bridges are known. With more of them Carry at one fails, as when memory is short.
const mostPorts = 4096

// CarryAtPort attaches the program that carries packets which arrive by a bridge's port and are for the bridge, whose Ethernet address
// is given.
func (p *Path) CarryAtPort(port int, bridge [6]byte) error {
	if err := p.attach(point{port, false}, "port"); err != nil {
		return err
	}
	k, v := uint32(port), bridgeValue{Address: bridge}
	if err := element(unix.BPF_MAP_UPDATE_ELEM, p.ports, &k, &v); err != nil {
		return fmt.Errorf("note whose port link %d is: %w", port, err)
	}
	return nil
}

// Others reports whether programs of others are at a link's ingress by tcx, which see packets only that come there.
func (p *Path) Others(link int) bool {
	n := programsAt(link)
	if a, there := p.attached[point{link, false}]; there && a.fd >= 0 && linkedTo(a.fd) == link {
		n--
	}
	return n > 0
}

// Keep takes away what Carry and CarryAtPort attached to other links than these.
func (p *Path) Keep(links []int) error { return p.keep(links, false) }

// Watch has packets seen that leave by these links, and by no others. It is no error that one is gone by now.
func (p *Path) Watch(links []int) error {
	err := p.keep(links, true)
	for _, l := range links {
		if e := p.attach(point{l, true}, "watch"); !errors.Is(e, unix.ENODEV) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (p *Path) keep(links []int, egress bool) (err error) {
	for at := range p.attached {
		if at.egress == egress && !slices.Contains(links, at.link) {
			err = errors.Join(err, p.detach(at))
		}
	}
	return err
}

// attach attaches a program where it is not attached already, and in the place of another one of ours.
func (p *Path) attach(at point, label string) error {
	if a, there := p.attached[at]; there {
		if a.label == label && p.lives(at, a) {
			return nil
		}
		if err := p.detach(at); err != nil {
			return err
		}
	}
	a := attached{label: label, fd: -1}
	var err error
	if p.old != nil {
		err = p.old.attach(at, p.code[label+"_stub"])
	} else {
		a.fd, err = makeLink(p.code[label], at)
	}
	if err != nil {
		return fmt.Errorf("attach the eBPF program %s to link %d: %w", label, at.link, err)
	}
	p.attached[at] = a
	return nil
}

// detach is no error for a device that is gone.
func (p *Path) detach(at point) error {
	a, there := p.attached[at]
	if !there {
		return nil
	}
	delete(p.attached, at)
	if a.label == "port" {
		k := uint32(at.link)
		element[uint32, bridgeValue](unix.BPF_MAP_DELETE_ELEM, p.ports, &k, nil) // without its program it does nothing
	}
	if a.fd >= 0 {
		return unix.Close(a.fd)
	}
	if err := p.old.detach(at); err != nil {
		return fmt.Errorf("take the eBPF program %s from link %d: %w", a.label, at.link, err)
	}
	return nil
}

// lives reports whether the program is still there: its device may be gone, and another one have its number.
func (p *Path) lives(at point, a attached) bool {
	if a.fd < 0 {
		return p.old.has(at)
	}
	return linkedTo(a.fd) == at.link
}

// hasTCX asks for a link to a device that cannot be: the kernel answers that it does not know the device, or that it
// does not know what was asked for.
func hasTCX(program int) bool {
	const nobody = 1<<31 - 1
	fd, err := makeLink(program, point{nobody, true})
	if err == nil {
		unix.Close(fd)
	}
	return err == nil || errors.Is(err, unix.ENODEV)
}
