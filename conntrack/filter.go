package conntrack

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
)

// MaxPorts is how many ports Listen takes. It keeps the filter below what a socket may hold in its options
// (net.core.optmem_max): before Linux 6.9 10 KB where words have 32 bits, 20 KB where they have 64. The kernel translates
// the program; a port then takes 32 bytes, all else less than 4 KB.
const MaxPorts = 128

// eventFilter returns the classic BPF program that the kernel runs over each message to an event socket.
// It lets through, for IPv4,
//
//	GRE   if CTA_STATUS has IPS_FIXED_TIMEOUT: ours
//	TCP   if one of the four ports of the two tuples is one of ports
//
// The tuples are nested attributes, and the kernel has instructions for finding these: A is the offset to
// start from, X the attribute's type, the result its offset, or 0 if there is none. Loads are
// big-endian, as the values of attributes are; so the program is the same on every machine.
//
// What comes of requests through a socket with one of the port IDs in but does not pass.
func eventFilter(ports []uint16, but ...uint32) ([]bpf.RawInstruction, error) {
	if len(ports) > MaxPorts {
		return nil, fmt.Errorf("%d ports, not more than %d are possible", len(ports), MaxPorts)
	}
	const (
		attrHeader = 4 // struct nlattr
		accept     = 1 << 18
	)
	var p []bpf.Instruction
	add := func(in ...bpf.Instruction) { p = append(p, in...) }
	// Jumps only reach over the two instructions after them, so the program may be of any length.
	rejectUnless := func(v uint32) {
		add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: 1}, bpf.RetConstant{Val: 0})
	}
	rejectZero := func() {
		add(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1}, bpf.RetConstant{Val: 0})
	}
	// find: A = offset of the attribute among those of the message.
	find := func(attr uint32) {
		add(bpf.LoadConstant{Dst: bpf.RegX, Val: attr},
			bpf.LoadConstant{Dst: bpf.RegA, Val: nlmsghdrLen + nfgenLen},
			bpf.LoadExtension{Num: bpf.ExtNetlinkAttr})
		rejectZero()
	}
	// within: A = offset of the attribute inside the one at A.
	within := func(attr uint32) {
		add(bpf.LoadConstant{Dst: bpf.RegX, Val: attr}, bpf.LoadExtension{Num: bpf.ExtNetlinkAttrNested})
		rejectZero()
	}
	// load: A = value of the attribute at A.
	load := func(size int) {
		add(bpf.TAX{}, bpf.LoadIndirect{Off: attrHeader, Size: size})
	}

	if len(but) > 0 {
		add(bpf.LoadAbsolute{Off: nlmsghdrPID, Size: 4})
	}
	for _, id := range but { // nlmsg_pid is in the machine's byte order
		add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, id)), SkipFalse: 1},
			bpf.RetConstant{Val: 0})
	}
	add(bpf.LoadAbsolute{Off: nlmsghdrLen + nfgenFamily, Size: 1})
	rejectUnless(familyIPv4)
	find(ctaTupleOrig)
	within(ctaTupleProto)
	within(ctaProtoNum)
	load(1)

	gre := []bpf.Instruction{}
	p, gre = gre, p // build the part for GRE apart: the jump needs its length
	find(ctaStatus)
	load(4)
	add(bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: uint32(StatusFixedTimeout), SkipFalse: 1},
		bpf.RetConstant{Val: accept}, bpf.RetConstant{Val: 0})
	p, gre = gre, p
	add(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolGRE, SkipTrue: uint8(len(gre))})
	add(gre...)

	rejectUnless(protocolTCP)
	for _, tuple := range [...]uint32{ctaTupleOrig, ctaTupleReply} {
		for _, port := range [...]uint32{ctaProtoSrcPort, ctaProtoDstPort} {
			find(tuple)
			within(ctaTupleProto)
			within(port)
			load(2)
			for i, want := range ports {
				add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(want), SkipTrue: uint8(len(ports) - i)})
			}
			add(bpf.Jump{Skip: 1}, bpf.RetConstant{Val: accept})
		}
	}
	add(bpf.RetConstant{Val: 0})
	return bpf.Assemble(p)
}
