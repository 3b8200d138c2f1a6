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

// spot is where a station is, as far as it is known.
type spot struct {
	port int // index; 0: the bridge does not know it
	is   Port
	err  error
}

// Port says at which port of a bridge a station is, as the bridge has learned it. The error is an *Unsafe where its packets must go the
// bridge's way: where the bridge does more with them than to look whom they are for, or does not know the station. Moved tells when
// that may have changed, and until then the answer is the same.
func (w *Ways) Port(s Station) (Port, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deaf != nil {
		return Port{}, w.deaf
	}
	if at := w.stations[s]; at != nil {
		return at.is, at.err
	}
	at, err := w.spot(s)
	if reason := (*Unsafe)(nil); err != nil && !errors.As(err, &reason) {
		w.stations[s] = nil // news of it count nevertheless
		return Port{}, err
	}
	if at.err = err; err != nil {
		at.is = Port{}
	}
	w.stations[s] = &at
	return at.is, err
}

func (w *Ways) spot(s Station) (at spot, err error) {
	bridge, err := w.link(s.Bridge)
	if err == nil && bridge.kind != "bridge" {
		err = refuse("%s is no bridge", bridge.name)
	}
	if err == nil {
		err = w.arrive(s.Bridge) // packets would pass by what is there
	}
	if err == nil && bridge.vlans {
		err = refuse("%s filters VLANs", bridge.name)
	}
	if err != nil {
		return at, err
	}
	if at.port, err = w.station(s); err != nil {
		return at, err
	}
	if at.port == 0 {
		return at, refuse("%s does not know at which port %v is", bridge.name, net.HardwareAddr(s.Address[:]))
	}
	port, known := w.ports[at.port]
	if !known {
		if port, err = w.askLink(at.port); err != nil {
			return at, err
		}
		w.ports[at.port] = port
	}
	at.is = Port{at.port, port.name, bridge.address}
	err = port.works()
	switch {
	case err != nil:
		return at, err
	case port.master != s.Bridge || !port.ethernet():
		return at, refuse("%s is no port of %s", port.name, bridge.name)
	case port.state != forwarding:
		return at, refuse("%s is a port of %s that does not forward (spanning tree)", port.name, bridge.name)
	case port.locked:
		return at, refuse("%s is a port of %s for certain stations only (locked)", port.name, bridge.name)
	}
	return at, w.ingress(port)
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

// move is news of a station.
func (w *Ways) move(m netlink.Message) {
	s, _, ok := parseStation(m)
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, asked := w.stations[s]; ok && asked {
		w.movedNow(s)
	}
}

// allMoved is for news that were lost.
func (w *Ways) allMoved() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moveAll(func(Station, *spot) bool { return true })
}

// portChanged has everybody at a port asked for again, as if they had moved. The mutex is held.
func (w *Ways) portChanged(index int) {
	delete(w.ports, index)
	w.moveAll(func(_ Station, at *spot) bool { return at != nil && at.port == index })
}

func (w *Ways) moveAll(those func(Station, *spot) bool) {
	for s, at := range w.stations {
		if those(s, at) {
			w.movedNow(s)
		}
	}
}

func (w *Ways) movedNow(s Station) {
	w.stations[s] = nil
	w.gone[s] = true
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

// refusedAt reports whether somebody could not be taken at a port where he is.
func (w *Ways) refusedAt(index int) bool {
	for _, at := range w.stations {
		if at != nil && at.port == index && at.err != nil {
			return true
		}
	}
	return false
}

// isPort reports whether a part of an answer of Port was that the device is as it is.
func (w *Ways) isPort(index int) bool {
	_, ok := w.ports[index]
	return ok
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
