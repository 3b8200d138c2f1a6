package examine

import (
	"encoding/binary"
	"maps"
	"net"
	"os"
	"testing"
)

func TestContainers(t *testing.T) {
	got := containers([]link{
		{index: 1, kind: ""}, {index: 2, kind: ""}, // lo, a network card
		{index: 3, kind: "bridge"}, {index: 4, master: 3, kind: "veth"}, {index: 5, master: 3, kind: "veth"},
		{index: 6, kind: "bridge"},                                                                       // waits for containers
		{index: 7, kind: "bridge"}, {index: 8, master: 7, kind: ""}, {index: 9, master: 7, kind: "veth"}, // LAN, with a container in it
		{index: 10, kind: "bridge"}, {index: 11, master: 10, kind: "tun"},
		{index: 12, kind: "veth"},
	})
	if want := map[int]bool{3: true, 6: true}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// The kernel's list has every device that Go's has.
func TestLinks(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("the kernel does not list its devices, as in an emulator of a processor: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	listed := map[int]bool{}
	for _, l := range links() {
		listed[l.index] = true
	}
	for _, i := range all {
		if !listed[i.Index] {
			t.Errorf("%s is not listed among %v", i.Name, listed)
		}
	}
}

func TestLinkKind(t *testing.T) {
	attribute := func(kind uint16, value string) []byte {
		b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
		b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	for _, c := range []struct {
		info []byte
		want string
	}{
		{attribute(1, "veth\x00"), "veth"},
		{append(attribute(3, "12345"), attribute(1, "bridge\x00")...), "bridge"},
		{attribute(3, "12345"), ""},
		{attribute(1, "bridge\x00")[:8], ""},
		{[]byte{0, 0, 1, 0}, ""},
		{nil, ""},
	} {
		if got := linkKind(c.info); got != c.want {
			t.Errorf("%x: %q, want %q", c.info, got, c.want)
		}
	}
}
