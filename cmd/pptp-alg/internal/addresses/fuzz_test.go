package addresses

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What the kernel lists as an address, of any kind: what is taken from it is an IPv4
// address whose bytes are the message's IFA_LOCAL.
func FuzzLocal(f *testing.F) {
	attributes := func(list ...netlink.Attribute) []byte {
		b, err := netlink.MarshalAttributes(list)
		if err != nil {
			f.Fatal(err)
		}
		return append([]byte{unix.AF_INET, 24, 0, 0, 1, 0, 0, 0}, b...)
	}
	local, other := []byte{192, 0, 2, 1}, []byte{192, 0, 2, 2}
	f.Add(uint16(unix.RTM_NEWADDR), attributes(netlink.Attribute{Type: unix.IFA_ADDRESS, Data: other}, netlink.Attribute{Type: unix.IFA_LOCAL, Data: local}))
	f.Add(uint16(unix.RTM_NEWADDR), attributes(netlink.Attribute{Type: unix.IFA_LOCAL, Data: make([]byte, 16)}))
	f.Add(uint16(unix.RTM_DELADDR), attributes(netlink.Attribute{Type: unix.IFA_LOCAL, Data: local}))
	f.Add(uint16(unix.RTM_NEWADDR), []byte{unix.AF_INET6, 64, 0, 0})
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		before := bytes.Clone(data)
		a, ok := local4(t, netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind)}, Data: data})
		if !bytes.Equal(data, before) {
			t.Error("the message was changed")
		}
		if !ok {
			return
		}
		if kind != unix.RTM_NEWADDR || data[0] != unix.AF_INET {
			t.Errorf("%v out of a message of type %d, family %d", a, kind, data[0])
		}
		// Of what lies behind the header: length and type, then the address.
		four := a.As4()
		if !bytes.Contains(data[unix.SizeofIfAddrmsg:], four[:]) {
			t.Errorf("%v is not in % x", a, data)
		}
	})
}

func local4(t *testing.T, m netlink.Message) (netip.Addr, bool) {
	a, ok := local(m)
	if ok != a.Is4() {
		t.Fatalf("%v, %v out of % x", a, ok, m.Data)
	}
	return a, ok
}
