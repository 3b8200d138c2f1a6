//go:build !nofastpath

package fastpath

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What others have at a clsact queueing discipline stays, and the queueing discipline with it.
func TestOthersFilters(t *testing.T) {
	l := newLab(t)
	p := l.carry(Options{Clsact: true})
	l.router.do(func() error {
		link, err := netlink.LinkByIndex(l.in)
		if err != nil {
			return err
		}
		theirs := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: l.in, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 7, Protocol: unix.ETH_P_ALL},
			Fd:          p.code["watch"], Name: "theirs", DirectAction: true,
		}
		if err := errors.Join(netlink.FilterAdd(theirs), p.Keep(nil)); err != nil {
			return err
		}
		filters, err := netlink.FilterList(link, netlink.HANDLE_MIN_INGRESS)
		if err != nil || len(filters) != 1 || filters[0].Attrs().Priority != 7 {
			t.Errorf("left are %v, %v", filters, err)
		}
		if err := netlink.FilterDel(filters[0]); err != nil {
			return err
		}
		return errors.Join(p.Carry(l.in, false), p.Keep(nil))
	})
	l.router.do(func() error {
		link, err := netlink.LinkByIndex(l.in)
		if err != nil {
			return err
		}
		filters, err := netlink.FilterList(link, netlink.HANDLE_MIN_INGRESS)
		if err != nil || len(filters) != 0 {
			t.Errorf("left are %v, %v", filters, err)
		}
		return nil
	})
}

// disciplines lists the queueing disciplines for packets that arrive at a link of the router. It is called there.
func (l *lab) disciplines(link int) (kinds []string) {
	device, err := netlink.LinkByIndex(link)
	if err != nil {
		l.router.t.Fatal(err)
	}
	all, err := netlink.QdiscList(device)
	if err != nil {
		l.router.t.Fatal(err)
	}
	for _, d := range all {
		if d.Attrs().Parent == netlink.HANDLE_INGRESS {
			kinds = append(kinds, d.Type())
		}
	}
	return kinds
}

// A clsact that somebody else has made stays when what a killed process left in it is swept away.
func TestSweepLeavesOthers(t *testing.T) {
	l := newLab(t)
	l.router.do(func() error {
		theirs := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.in, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
		return netlink.QdiscAdd(theirs)
	})
	p := l.carry(Options{Clsact: true})
	l.router.do(func() error {
		p.attached = nil // as if it had been killed
		if n, err := Sweep(); err != nil || n != 1 {
			t.Errorf("swept %d filters away, %v", n, err)
		}
		if d := l.disciplines(l.in); len(d) != 1 {
			t.Errorf("left are %v", d)
		}
		return nil
	})
}

// The queueing discipline ingress has the place of clsact: nothing is attached beside what somebody else has there.
func TestIngressTaken(t *testing.T) {
	l := newLab(t)
	l.router.do(func() error {
		return netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.in, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}})
	})
	p := l.open(Options{Clsact: true})
	l.router.do(func() error {
		if err := p.Carry(l.in, false); !errors.Is(err, ErrTaken) {
			t.Errorf("attached to it: %v", err)
		}
		if err := p.Watch([]int{l.in, l.out}); !errors.Is(err, ErrTaken) {
			t.Errorf("watches it: %v", err)
		}
		if !p.lives(point{l.out, true}, p.attached[point{l.out, true}]) {
			t.Error("one link that is taken keeps another one from being watched")
		}
		if d := l.disciplines(l.in); len(d) != 1 || d[0] != "ingress" {
			t.Errorf("left are %v", d)
		}
		return nil
	})
}

// Others have taken our filter away, but not the queueing discipline that we made for it: it goes with the next one, or without.
func TestOnlyFilterGone(t *testing.T) {
	for _, again := range []bool{true, false} {
		l := newLab(t)
		p := l.carry(Options{Clsact: true})
		l.router.do(func() error {
			link, err := netlink.LinkByIndex(l.in)
			if err != nil {
				return err
			}
			filters, err := netlink.FilterList(link, netlink.HANDLE_MIN_INGRESS)
			if err != nil || len(filters) != 1 {
				return fmt.Errorf("there are %v, %v", filters, err)
			}
			if err := netlink.FilterDel(filters[0]); err != nil {
				return err
			}
			if again {
				if err := p.Carry(l.in, false); err != nil || !p.old.has(point{l.in, false}) {
					t.Errorf("not attached again: %v", err)
				}
			}
			if err := p.Keep(nil); err != nil {
				return err
			}
			if d := l.disciplines(l.in); len(d) != 0 || len(p.old.made) != 0 {
				t.Errorf("attached again %v: left are %v", again, d)
			}
			return nil
		})
	}
}
