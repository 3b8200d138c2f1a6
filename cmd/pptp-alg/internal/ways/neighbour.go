package ways

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A hop is a next hop on a link. The kernel looks its Ethernet address up for every packet, however the packet is forwarded, and tells
// its sender of one that doesn't answer only on the ordinary way.
type hop struct {
	link    int
	gateway netip.Addr
}

const sizeofNdMsg = 12

// failures is a socket filter that lets only news of neighbours through that failed: others come all the time.
// The messages begin with an nlmsghdr of 16 bytes and an ndmsg (family at 0, state at 8), in host byte order.
func failures() ([]bpf.RawInstruction, error) {
	state := uint32(24) // its low byte
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		state++
	}
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 16, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_BRIDGE, SkipTrue: 2},
		bpf.LoadAbsolute{Off: state, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.NUD_FAILED, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 16},
	})
}

// neighbours opens a socket to which news of neighbours come that a filter lets through.
func neighbours(filter func() ([]bpf.RawInstruction, error)) (*netlink.Conn, error) {
	instructions, err := filter()
	if err != nil {
		return nil, err
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	if err = conn.SetBPF(instructions); err == nil {
		err = conn.JoinGroup(unix.RTNLGRP_NEIGH)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// parseNeighbour reads an RTM_NEWNEIGH or RTM_DELNEIGH.
func parseNeighbour(m netlink.Message) (hop, bool) {
	if m.Header.Type != unix.RTM_NEWNEIGH && m.Header.Type != unix.RTM_DELNEIGH || len(m.Data) < sizeofNdMsg {
		return hop{}, false
	}
	h := hop{link: int(int32(binary.NativeEndian.Uint32(m.Data[4:8])))}
	d, err := netlink.NewAttributeDecoder(m.Data[sizeofNdMsg:])
	if err != nil {
		return hop{}, false
	}
	for d.Next() {
		if d.Type() == unix.NDA_DST {
			h.gateway, _ = netip.AddrFromSlice(d.Bytes())
		}
	}
	return h, d.Err() == nil && h.gateway.IsValid()
}

// Neighbour returns the Ethernet address of a next hop; zeros where it is not known.
func (w *Ways) Neighbour(link int, hop netip.Addr) (ethernet [6]byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.NDA_DST, hop.AsSlice())
	attributes, err := e.Encode()
	if err != nil {
		return ethernet, err
	}
	data := make([]byte, sizeofNdMsg, sizeofNdMsg+len(attributes))
	if data[0] = unix.AF_INET; hop.Is6() {
		data[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(data[4:8], uint32(link))
	replies, err := w.asks.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request}, Data: append(data, attributes...),
	})
	if errors.Is(err, unix.ENOENT) {
		return ethernet, nil
	}
	if err != nil {
		return ethernet, fmt.Errorf("ask for the neighbour %v: %w", hop, err)
	}
	for _, m := range replies {
		if m.Header.Type != unix.RTM_NEWNEIGH || len(m.Data) < sizeofNdMsg {
			continue
		}
		d, err := netlink.NewAttributeDecoder(m.Data[sizeofNdMsg:])
		if err != nil {
			return ethernet, fmt.Errorf("ask for the neighbour %v: %w", hop, err)
		}
		for d.Next() {
			if b := d.Bytes(); d.Type() == unix.NDA_LLADDR && len(b) == len(ethernet) {
				ethernet = [6]byte(b)
			}
		}
	}
	return ethernet, nil
}

// neighbour says whether a message is of a next hop that an answer named.
func (w *Ways) neighbour(m netlink.Message) bool {
	h, ok := parseNeighbour(m)
	w.mu.Lock()
	defer w.mu.Unlock()
	if ok = ok && w.hops[h]; ok {
		w.forget()
	}
	return ok
}
