//go:build !nofastpath

package fastpath

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"testing"
)

// Both objects have the programs, and each program the maps that it uses; but for the byte order they are the same.
func TestObjects(t *testing.T) {
	native := "bpf/fastpath_bpfel.o"
	if bigEndian {
		native = "bpf/fastpath_bpfeb.o"
	}
	if b, err := os.ReadFile(native); err != nil || !bytes.Equal(b, objectFile) {
		t.Fatalf("the object that is embedded is not %s, %v", native, err)
	}
	o, err := parseObject(objectFile)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"ethernet": {"calls", "places", "state"}, "bare": {"calls", "places", "state"}, "watch": {"sights", "state", "watched"}, "port": {"calls", "places", "ports", "state"},
		"ethernet_stub": {"programs"}, "bare_stub": {"programs"}, "watch_stub": {"programs"}, "port_stub": {"programs"},
	}
	for name, maps := range want {
		var got []string
		for _, m := range o.programs[name].maps {
			got = append(got, m)
		}
		slices.Sort(got)
		if !slices.Equal(got, maps) || len(o.programs[name].instructions) < 2*instructionSize {
			t.Errorf("%s has %d bytes and the maps %q", name, len(o.programs[name].instructions), got)
		}
	}
	if len(o.programs) != len(want) {
		t.Errorf("%d programs", len(o.programs))
	}
	if _, err := o.link("ethernet", map[string]int{"calls": 3}); err == nil {
		t.Error("a map is missing, and nobody complains")
	}
	if _, err := o.link("nobody", nil); err == nil {
		t.Error("a program is missing, and nobody complains")
	}
	linked, err := o.link("watch_stub", map[string]int{"programs": 0x123456})
	if err != nil || !slices.ContainsFunc(slices.Collect(slices.Chunk(linked, instructionSize)), func(i []byte) bool {
		return i[0] == 0x18 && ne.Uint32(i[4:]) == 0x123456 && (i[1]&0xf0 == 0x10 || i[1]&0x0f == 1)
	}) {
		t.Errorf("no instruction loads the map: %x, %v", linked, err)
	}
}

// What calls another program has all of the stack that there may be, see fastpath.c.
func TestStubsHaveAllStack(t *testing.T) {
	o, err := parseObject(objectFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range placed {
		stub := o.programs[label+"_stub"].instructions
		if !slices.ContainsFunc(slices.Collect(slices.Chunk(stub, instructionSize)), func(i []byte) bool {
			return i[0] == 0x7b && (i[1] == 0x0a || bigEndian && i[1] == 0xa0) && int16(ne.Uint16(i[2:])) == -512 // *(u64 *)(r10 - 512) = r0
		}) {
			t.Errorf("%s_stub does not reach down to the end of the stack:\n%x", label, stub)
		}
	}
}

// An object that is cut off or damaged gives an error, or another object; nothing worse.
func TestDamagedObject(t *testing.T) {
	if _, err := parseObject(nil); err == nil {
		t.Error("nothing was taken for an object")
	}
	for n := range len(objectFile) {
		parseObject(objectFile[:n])
	}
	for i := range len(objectFile) {
		b := bytes.Clone(objectFile)
		b[i] ^= 0xff
		parseObject(b)
	}
	// The kernel's own order only.
	b := bytes.Clone(objectFile)
	var other binary.ByteOrder = binary.BigEndian
	if bigEndian {
		other = binary.LittleEndian
	}
	other.PutUint64(b[40:], ne.Uint64(b[40:]))
	if _, err := parseObject(b); err == nil {
		t.Error("an object of the other byte order was taken")
	}
}
