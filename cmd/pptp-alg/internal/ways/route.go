package ways

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A route is the kernel's answer to RTM_GETROUTE.
type route struct {
	kind      uint8 // RTN_*
	service   uint8 // type of service that it is for; 0: any
	link      int
	gateway   netip.Addr // not valid: on the link
	mtu       int        // 0: the device's
	several   bool       // next hops
	encloses  bool       // in a tunnel's header
	translate bool       // RTA_NEWDST: to another address (MPLS labels)
}

// lookup does for q what the kernel does for a packet that comes in: rules, routes, forwarding being allowed, the check of
// the source address. It asks twice: for the result, and for the route that led to it.
func (w *Ways) lookup(q Question, protocol uint8) (route, error) {
	result, err := w.ask(q, protocol, 0)
	if err != nil {
		return route{}, err
	}
	switch result.kind {
	case unix.RTN_UNICAST:
	case unix.RTN_LOCAL:
		return route{}, refuse("%v is the router itself", q.Dst)
	default:
		return route{}, refuse("%v is not the address of one host", q.Dst)
	}
	matched, err := w.ask(q, protocol, unix.RTM_F_FIB_MATCH)
	if err != nil {
		return route{}, err
	}
	if matched.service == 0 {
		if err := w.listServices(); err != nil {
			return route{}, err
		}
	}
	switch {
	case matched.service != 0 || w.services:
		return route{}, refuse("there are routes for one type of service (tos) only")
	case result.encloses || matched.encloses || result.translate || matched.translate:
		return route{}, refuse("the route to %v puts packets into a tunnel", q.Dst)
	case matched.several:
		return route{}, refuse("the route to %v has several next hops", q.Dst)
	case result.link == 0:
		return route{}, refuse("the route to %v names no device", q.Dst)
	}
	return result, nil
}

// ask sends an RTM_GETROUTE. The rtmsg and most attributes are in host byte order, addresses in network byte order.
func (w *Ways) ask(q Question, protocol uint8, flags uint32) (route, error) {
	src, dst := q.Src.As4(), q.Dst.As4()
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.RTA_SRC, src[:])
	e.Bytes(unix.RTA_DST, dst[:])
	e.Uint32(unix.RTA_IIF, uint32(q.Link))
	if q.Mark != 0 {
		e.Uint32(unix.RTA_MARK, q.Mark)
	}
	if protocol != unix.IPPROTO_UDP { // the kernel's default, and all that it knew before 4.17
		e.Uint8(unix.RTA_IP_PROTO, protocol)
	}
	attributes, err := e.Encode()
	if err != nil {
		return route{}, err
	}
	data := make([]byte, unix.SizeofRtMsg, unix.SizeofRtMsg+len(attributes))
	data[0], data[1], data[2] = unix.AF_INET, 32, 32
	binary.NativeEndian.PutUint32(data[8:12], flags)
	replies, err := w.asks.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request},
		Data:   append(data, attributes...),
	})
	if err != nil {
		return route{}, refused(q, err)
	}
	for _, m := range replies {
		if r, ok := parseRoute(m); ok {
			return r, nil
		}
	}
	return route{}, errors.New("the kernel's answer is no route")
}

// refused puts the errors with which the kernel refuses to forward into words.
func refused(q Question, err error) error {
	for _, known := range []struct {
		is   error
		text string
	}{
		{unix.ENETUNREACH, "there is no route to %v"},
		{unix.EHOSTUNREACH, "the router does not forward to %v (an unreachable route, or net.ipv4.ip_forward is off)"},
		{unix.EACCES, "the route to %v prohibits it"},
		{unix.EINVAL, "the kernel drops packets to %v (a blackhole route, rp_filter, or an address that can't be)"},
		{unix.EXDEV, "the source address of packets to %v is not one of the device that they come in by (rp_filter)"},
		{unix.ENODEV, "a device of the route to %v is gone"},
	} {
		if errors.Is(err, known.is) {
			return refuse(known.text, q.Dst)
		}
	}
	return err
}

// parseRoute reads an RTM_NEWROUTE of IPv4.
func parseRoute(m netlink.Message) (route, bool) {
	if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg || m.Data[0] != unix.AF_INET {
		return route{}, false
	}
	r := route{service: m.Data[3], kind: m.Data[7]}
	d, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofRtMsg:])
	if err != nil {
		return route{}, false
	}
	ok := true
	address := func(b []byte) {
		r.gateway, _ = netip.AddrFromSlice(b)
		ok = ok && r.gateway.IsValid()
	}
	for d.Next() {
		switch d.Type() {
		case unix.RTA_OIF:
			r.link = int(d.Uint32())
		case unix.RTA_GATEWAY:
			address(d.Bytes())
		case unix.RTA_VIA: // rtvia: family in host byte order, address
			if b := d.Bytes(); len(b) > 2 {
				address(b[2:])
			} else {
				ok = false
			}
		case unix.RTA_MULTIPATH:
			r.several = true
		case unix.RTA_ENCAP, unix.RTA_ENCAP_TYPE:
			r.encloses = true
		case unix.RTA_NEWDST:
			r.translate = true
		case unix.RTA_METRICS:
			d.Nested(func(n *netlink.AttributeDecoder) error {
				for n.Next() {
					if n.Type() == unix.RTAX_MTU {
						r.mtu = int(n.Uint32())
					}
				}
				return nil
			})
		}
	}
	return r, ok && d.Err() == nil
}

// listServices looks once through all routes, and again when news were lost, for one that is for a type of service only:
// the question is asked for none. That is a feature that hardly anyone uses, so it is not followed further.
func (w *Ways) listServices() error {
	if w.listed {
		return nil
	}
	request := make([]byte, unix.SizeofRtMsg)
	request[0] = unix.AF_INET
	sent, err := w.asks.Send(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request | netlink.Dump}, Data: request})
	if err != nil {
		return err
	}
	w.listed = true
	for m, err := range w.asks.ReceiveIter() {
		if err != nil {
			w.listed = false
			return err
		}
		if m.Header.Sequence == sent.Header.Sequence && m.Header.Type == unix.RTM_NEWROUTE && len(m.Data) >= unix.SizeofRtMsg {
			w.services = w.services || m.Data[3] != 0
		}
	}
	return nil
}
