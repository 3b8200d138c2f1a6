package ways

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// FilterPrefix begins the names of the tc filters of this program.
const FilterPrefix = "pptp-alg"

// From linux/pkt_sched.h, rtnetlink.h and pkt_cls.h.
const (
	tcIngress     = 0xfffffff2 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS): of the qdiscs clsact and ingress alike
	sizeofTcMsg   = 20
	tcSharedBlock = -1 // TCM_IFINDEX_MAGIC_BLOCK
	tcaBPFName    = 7
)

// A filter is a tc filter at a device's ingress.
type filter struct {
	index  int // of the device, or tcSharedBlock
	kind   string
	name   string // of a bpf filter
	head   bool   // only that there are bpf filters of a priority, which are listed behind it
	shared bool   // a qdisc whose filters are those of a block that others have as well
}

// ours reports whether this program, or one before it, has put the filter there.
func (f filter) ours() bool { return f.kind == "bpf" && strings.HasPrefix(f.name, FilterPrefix) }

// ingress says whether somebody else's filter is at the device's ingress. Such a filter sends packets through a shaper (SQM), counts or
// drops them; a program that forwards packets there takes them away from it.
func (w *Ways) ingress(l link) error {
	request := make([]byte, sizeofTcMsg)
	binary.NativeEndian.PutUint32(request[4:8], uint32(l.index))
	binary.NativeEndian.PutUint32(request[12:16], tcIngress)
	replies, err := w.asks.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETTFILTER, Flags: netlink.Request | netlink.Dump}, Data: request})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
		return nil // a kernel without traffic control
	}
	if err != nil {
		return fmt.Errorf("list the filters of %s: %w", l.name, err)
	}
	for _, m := range replies {
		if f, ok := parseFilter(m); ok && !f.head && !f.ours() {
			return refuse("%s has a tc filter (%s) for packets that come in, as for shaping (SQM), which they would miss", l.name, f.kind)
		}
	}
	return nil
}

// parseFilter reads a tcmsg and its attributes: RTM_NEWTFILTER, RTM_DELTFILTER, and qdiscs, which are made up alike.
func parseFilter(m netlink.Message) (filter, bool) {
	if len(m.Data) < sizeofTcMsg {
		return filter{}, false
	}
	f := filter{index: int(int32(binary.NativeEndian.Uint32(m.Data[4:8])))}
	d, err := netlink.NewAttributeDecoder(m.Data[sizeofTcMsg:])
	if err != nil {
		return filter{}, false
	}
	var options []byte
	for d.Next() {
		switch d.Type() {
		case unix.TCA_KIND:
			f.kind = d.String()
		case unix.TCA_OPTIONS:
			options = d.Bytes()
		case unix.TCA_INGRESS_BLOCK:
			f.shared = true
		}
	}
	if f.head = f.kind == "bpf" && options == nil; f.kind == "bpf" {
		n, err := netlink.NewAttributeDecoder(options)
		if err != nil {
			return filter{}, false
		}
		for n.Next() {
			if n.Type() == tcaBPFName {
				f.name = n.String()
			}
		}
	}
	return f, d.Err() == nil
}
