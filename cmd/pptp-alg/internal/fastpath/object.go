//go:build !nofastpath

package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// An object is what clang made of bpf/fastpath.c: an ELF file of 64 bits, of which only the programs, the names of the
// maps in them, and the places of these are wanted (System V ABI, chapters 4 and 5; R_BPF_64_64 in the kernel's
// Documentation/bpf/llvm_reloc.rst). Package debug/elf would be 200 kilobytes.
type object struct {
	programs map[string]code // by the name of the section without its prefix
}

// code is a program's instructions, and the maps' names by the offset of the instructions that load their addresses.
type code struct {
	instructions []byte
	maps         map[uint64]string
}

const (
	sectionPrefix = "pptp/" // of programs' sections

	sectionSymbols     = 2 // SHT_SYMTAB
	sectionRelocations = 9 // SHT_REL

	elfHeaderSize = 64
	symbolSize    = 24
	relocation    = 16
	relocate64    = 1 // R_BPF_64_64: both halves of an instruction that loads 64 bits
)

// section is an Elf64_Shdr.
type section struct {
	Name, Type        uint32
	Flags, Addr       uint64
	Offset, Size      uint64
	Link, Info        uint32
	Align, EntryBytes uint64
}

func parseObject(b []byte) (object, error) {
	o := object{programs: map[string]code{}}
	fail := func(what string) (object, error) { return object{}, fmt.Errorf("the eBPF object is damaged: %s", what) }
	if len(b) < elfHeaderSize || !bytes.HasPrefix(b, []byte("\x7fELF\x02")) {
		return fail("no ELF header")
	}
	table, count, names := ne.Uint64(b[40:]), int(ne.Uint16(b[60:])), int(ne.Uint16(b[62:]))
	sections := make([]section, count)
	if table > uint64(len(b)) || names >= count {
		return fail("no sections")
	}
	if err := binary.Read(bytes.NewReader(b[table:]), ne, sections); err != nil {
		return fail("sections are cut off")
	}
	content := func(i uint32) []byte {
		if i >= uint32(count) || sections[i].Offset > uint64(len(b)) || sections[i].Size > uint64(len(b))-sections[i].Offset {
			return nil
		}
		return b[sections[i].Offset:][:sections[i].Size]
	}
	text := func(table uint32, at uint32) string {
		t := content(table)
		if uint64(at) >= uint64(len(t)) {
			return ""
		}
		s, _, _ := strings.Cut(string(t[at:]), "\x00")
		return s
	}
	for i, s := range sections {
		if name, ours := strings.CutPrefix(text(uint32(names), s.Name), sectionPrefix); ours {
			o.programs[name] = code{bytes.Clone(content(uint32(i))), map[uint64]string{}}
		}
	}
	for i, s := range sections {
		if s.Type != sectionRelocations || s.Info >= uint32(count) || s.Link >= uint32(count) || sections[s.Link].Type != sectionSymbols {
			continue
		}
		name, _ := strings.CutPrefix(text(uint32(names), sections[s.Info].Name), sectionPrefix)
		program, ours := o.programs[name]
		if !ours {
			continue
		}
		symbols := content(s.Link)
		for r := content(uint32(i)); len(r) >= relocation; r = r[relocation:] {
			at, kind, symbol := ne.Uint64(r), uint32(ne.Uint64(r[8:])), ne.Uint64(r[8:])>>32
			if kind != relocate64 || symbol >= uint64(len(symbols)/symbolSize) || at+16 > uint64(len(program.instructions)) {
				return fail("a relocation of " + name)
			}
			program.maps[at] = text(sections[s.Link].Link, ne.Uint32(symbols[symbol*symbolSize:]))
		}
	}
	return o, nil
}

// pseudoMap in the source register of an instruction that loads 64 bits says that they are a map's descriptor
// (BPF_PSEUDO_MAP_FD).
const pseudoMap = 1

// link returns a program's instructions with the descriptors of maps in their places.
func (o object) link(name string, maps map[string]int) ([]byte, error) {
	c, there := o.programs[name]
	if !there {
		return nil, fmt.Errorf("the eBPF object has no program %s", name)
	}
	out := bytes.Clone(c.instructions)
	for at, m := range c.maps {
		fd, there := maps[m]
		if !there {
			return nil, fmt.Errorf("the eBPF program %s wants a map %q", name, m)
		}
		// The registers are bit fields of C: their order depends on the machine's.
		if bigEndian {
			out[at+1] = out[at+1]&0xf0 | pseudoMap
		} else {
			out[at+1] = out[at+1]&0x0f | pseudoMap<<4
		}
		ne.PutUint32(out[at+4:], uint32(fd))
	}
	return out, nil
}
