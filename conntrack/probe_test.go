package conntrack

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	n, c := table(t)
	n.must(func() error { return c.Probe() })

	// With events switched off.
	n.must(func() error { return os.WriteFile(sysctlEvents, []byte("0"), 0) })
	var err error
	n.must(func() error { err = c.Probe(); return nil })
	var missing *UnsupportedError
	if !errors.As(err, &missing) || missing.Feature != events.Feature {
		t.Errorf("Probe with events off: %v", err)
	}

	// What Probe deduces from: a protocol with keys, one without.
	for protocol, want := range map[uint8]error{protocolGRE: unix.EINVAL, protocolExperimental: unix.ENOENT} {
		if answer, err := c.probe(protocol); err != nil || !errors.Is(answer, want) {
			t.Errorf("probe of protocol %d: %v, %v; want %v", protocol, answer, err, want)
		}
	}
}

func TestDeduce(t *testing.T) {
	for _, c := range []struct {
		name       string
		gre, other error
		want       string
	}{
		{"all there", unix.EINVAL, unix.ENOENT, ""},
		{"no keys", unix.ENOENT, unix.ENOENT, greKeys.Feature},
		{"no ctnetlink", unix.EINVAL, unix.EINVAL, ctNetlink.Feature},
		{"no privilege", unix.EPERM, unix.EPERM, capNetAdmin.Feature},
		{"anything else", unix.EIO, unix.ENOENT, ctNetlink.Feature},
	} {
		err := deduce(c.gre, c.other)
		var missing *UnsupportedError
		if errors.As(err, &missing) != (c.want != "") || missing != nil && missing.Feature != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// A thread that has given up CAP_NET_ADMIN is told so.
func TestMissingPrivilege(t *testing.T) {
	n := newNamespace(t)
	toClient, _ := masquerade(5, 777, 9, 888)
	n.must(func() error {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&hdr, &caps[0]); err != nil {
			return err
		}
		caps[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		return unix.Capset(&hdr, &caps[0]) // of this thread alone, which ends with the namespace
	})
	c := n.client()
	for name, f := range map[string]func() error{
		"Probe":  c.Probe,
		"Create": func() error { return c.Create(toClient) },
		"List":   func() error { _, err := c.List(); return err },
		"Lookup": func() error { _, err := c.Lookup(addrPort("10.0.0.1:1"), addrPort("10.0.0.2:2")); return err },
		"Listen": func() error { _, err := Listen([]uint16{1723}); return err },
	} {
		var err error
		n.must(func() error { err = f(); return nil })
		var missing *UnsupportedError
		if !errors.As(err, &missing) || missing.Feature != capNetAdmin.Feature || !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s without CAP_NET_ADMIN: %v", name, err)
		}
	}
}
