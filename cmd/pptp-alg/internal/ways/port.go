package ways

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Station is who sends frames from beyond a bridge's ports.
type Station struct {
	Bridge  int     // index of the bridge
	Address [6]byte // Ethernet address
}

// A Port is where a bridge's station is.
type Port struct {
	Index  int     // of the device
	Name   string  // its name
	Bridge [6]byte // Ethernet address of the bridge
}

// Port says at which port of a bridge a station is, as the bridge has learned it. The error is an *Unsafe where its packets must go the
// bridge's way: where the bridge does more with them than to look whom they are for, or does not know the station. Moved tells when
// that may have changed.
func (w *Ways) Port(s Station) (Port, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deaf != nil {
		return Port{}, w.deaf
	}
	bridge, err := w.link(s.Bridge)
	switch {
	case err != nil:
		return Port{}, err
	case bridge.kind != "bridge":
		return Port{}, refuse("%s is no bridge", bridge.name)
	case bridge.vlans:
		return Port{}, refuse("%s filters VLANs", bridge.name)
	}
	if err := Ebtables(); err != nil {
		return Port{}, err
	}
	w.stations[s] = true
	index, err := w.station(s)
	if err != nil {
		return Port{}, err
	}
	if index == 0 {
		return Port{}, refuse("%s does not know at which port %v is", bridge.name, net.HardwareAddr(s.Address[:]))
	}
	port, err := w.link(index)
	if err == nil {
		err = port.works()
	}
	switch {
	case err != nil:
		return Port{}, err
	case port.master != s.Bridge || !port.ethernet():
		return Port{}, refuse("%s is no port of %s", port.name, bridge.name)
	case port.state != forwarding:
		return Port{}, refuse("%s is a port of %s that does not forward (spanning tree)", port.name, bridge.name)
	case port.locked:
		return Port{}, refuse("%s is a port of %s for certain stations only (locked)", port.name, bridge.name)
	}
	if err, ok := w.arrives[index]; ok {
		return Port{index, port.name, bridge.address}, err
	}
	var reason *Unsafe
	if err = w.ingress(port); err == nil || errors.As(err, &reason) {
		w.arrives[index] = err
	}
	return Port{index, port.name, bridge.address}, err
}

// forwarding is BR_STATE_FORWARDING of a port.
const forwarding = 3

// station asks a bridge for the port of a station; 0: it knows none.
func (w *Ways) station(s Station) (int, error) {
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.NDA_LLADDR, s.Address[:])
	e.Uint32(unix.NDA_MASTER, uint32(s.Bridge))
	attributes, err := e.Encode()
	if err != nil {
		return 0, err
	}
	data := make([]byte, sizeofNdMsg, sizeofNdMsg+len(attributes))
	data[0] = unix.AF_BRIDGE
	replies, err := w.asks.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request}, Data: append(data, attributes...),
	})
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("ask a bridge for the station %v: %w", net.HardwareAddr(s.Address[:]), err)
	}
	for _, m := range replies {
		if _, index, ok := parseStation(m); ok {
			return index, nil
		}
	}
	return 0, nil
}

// parseStation reads an RTM_NEWNEIGH or RTM_DELNEIGH of a bridge, and the index of the port in it; 0 for an address of the bridge itself.
func parseStation(m netlink.Message) (s Station, port int, ok bool) {
	if m.Header.Type != unix.RTM_NEWNEIGH && m.Header.Type != unix.RTM_DELNEIGH || len(m.Data) < sizeofNdMsg || m.Data[0] != unix.AF_BRIDGE {
		return Station{}, 0, false
	}
	if binary.NativeEndian.Uint16(m.Data[8:10])&unix.NUD_PERMANENT == 0 {
		port = int(int32(binary.NativeEndian.Uint32(m.Data[4:8])))
	}
	d, err := netlink.NewAttributeDecoder(m.Data[sizeofNdMsg:])
	if err != nil {
		return Station{}, 0, false
	}
	for d.Next() {
		switch d.Type() {
		case unix.NDA_LLADDR:
			if b := d.Bytes(); len(b) == len(s.Address) {
				s.Address, ok = [6]byte(b), true
			}
		case unix.NDA_MASTER:
			s.Bridge = int(d.Uint32())
		}
	}
	return s, port, ok && d.Err() == nil
}

// ofBridges is a socket filter that lets only news of bridges' stations through. See failures for the messages.
func ofBridges() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 16, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_BRIDGE, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 16},
	})
}

// moved notes a station that Port was asked for.
func (w *Ways) move(m netlink.Message) {
	s, _, ok := parseStation(m)
	w.mu.Lock()
	defer w.mu.Unlock()
	if ok && w.stations[s] {
		w.movedNow(s)
	}
}

// allMoved is for news that were lost.
func (w *Ways) allMoved() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.stations {
		w.movedNow(s)
	}
}

func (w *Ways) movedNow(s Station) {
	w.gone[s] = true
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

// Moved tells that a bridge has forgotten, or learned anew, at which port a station is that Port was asked for. See Stations.
func (w *Ways) Moved() <-chan struct{} { return w.moved }

// Stations returns the stations that moved since it was called last.
func (w *Ways) Stations() (all []Station) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.gone {
		all = append(all, s)
	}
	clear(w.gone)
	return all
}

// Ebtables says that bridges may have rules of ebtables (the legacy one) in any namespace, an *Unsafe. Which they are could not be asked without
// making them; no news tell of them.
func Ebtables() error {
	const entries = 128 // EBT_SO_GET_INFO of linux/netfilter_bridge/ebtables.h
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("look for ebtables: %w", err)
	}
	defer unix.Close(fd)
	// A kernel with ebtables complains that there is nothing to read at no address, before it looks for any table.
	var length uint32
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, entries, 0, uintptr(unsafe.Pointer(&length)), 0); errno == unix.ENOPROTOOPT {
		return nil
	}
	return refuse("the kernel has ebtables (legacy) for bridges, of whose rules nobody is told")
}
