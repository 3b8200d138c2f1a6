package examine

import (
	"encoding/binary"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file knows which devices clients' packets come and leave by.

// uplink is the device of the default route, or "".
func uplink() string {
	b, _ := os.ReadFile("/proc/thread-self/net/route")
	for line := range strings.Lines(string(b)) {
		// The device, the destination, six more fields, and its mask.
		if f := strings.Fields(line); len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			return f[0]
		}
	}
	return ""
}

// ways are the devices that clients' packets come and leave by: from each network inside to
// the uplink. Without a default route nobody knows. Networks of containers are left out where there
// are others: docker lets its own out and drops what it knows nothing of.
func ways() [][2]device {
	out := uplink()
	all, err := net.Interfaces()
	if out == "" || err != nil {
		return [][2]device{{}}
	}
	var to device
	var found, others [][2]device
	for _, i := range all {
		if i.Name == out {
			to = device{i.Name, i.Index}
		}
	}
	inside := containers(links())
	for _, i := range all {
		addresses, err := i.Addrs()
		has4 := slices.ContainsFunc(addresses, func(a net.Addr) bool {
			n, is := a.(*net.IPNet)
			return is && n.IP.To4() != nil
		})
		switch {
		case err != nil || !has4 || i.Name == out || i.Flags&net.FlagLoopback != 0:
		case inside[i.Index]:
			others = append(others, [2]device{{i.Name, i.Index}, to})
		default:
			found = append(found, [2]device{{i.Name, i.Index}, to})
		}
	}
	switch {
	case len(found) > 0:
		return found
	case len(others) > 0:
		return others
	}
	return [][2]device{{{}, to}}
}

// A link is what of a network device says whether it is one of containers.
type link struct {
	index, master int
	kind          string // IFLA_INFO_KIND
}

// containers are the bridges all of whose ports lead to other network namespaces (veth), by their index; one without
// ports waits for containers.
func containers(all []link) map[int]bool {
	found := map[int]bool{}
	for _, l := range all {
		if l.kind == "bridge" {
			found[l.index] = true
		}
	}
	for _, l := range all {
		if l.kind != "veth" {
			delete(found, l.master)
		}
	}
	return found
}

// links asks the kernel for all network devices of this namespace; none where it does not answer.
func links() (all []link) {
	answer, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return nil
	}
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		l := link{index: int(int32(binary.NativeEndian.Uint32(m.Data[4:])))} // struct ifinfomsg
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			continue
		}
		for _, a := range attributes {
			switch {
			case a.Attr.Type == unix.IFLA_MASTER && len(a.Value) >= 4:
				l.master = int(binary.NativeEndian.Uint32(a.Value))
			case a.Attr.Type == unix.IFLA_LINKINFO:
				l.kind = linkKind(a.Value)
			}
		}
		all = append(all, l)
	}
	return all
}

// linkKind finds IFLA_INFO_KIND among the attributes of IFLA_LINKINFO.
func linkKind(info []byte) string {
	for len(info) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(info))
		if size < unix.SizeofRtAttr || size > len(info) {
			return ""
		}
		if binary.NativeEndian.Uint16(info[2:]) == unix.IFLA_INFO_KIND {
			return unix.ByteSliceToString(info[unix.SizeofRtAttr:size])
		}
		info = info[min((size+3)&^3, len(info)):]
	}
	return ""
}
