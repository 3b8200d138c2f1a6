package conntrack

import (
	"encoding/binary"
	"fmt"
)

// Connections returns the TCP connections that have one of the ports at either end of either tuple, in every
// zone, and in no order.
//
// The kernel walks its table four times for each port, at some 3 ms per 10,000 entries, but sends only what was asked for.
// Kernels before Linux 5.8 do not compare, but send everything, and what is of no use is left out here.
func (c *Client) Connections(ports []uint16) ([]Connection, error) {
	type key struct {
		original Tuple
		zone     Zone
	}
	var list []Connection
	seen := map[key]bool{}
	for _, port := range ports {
		for _, f := range [...]portFilter{
			{ctaTupleOrig, ctaProtoDstPort, port}, {ctaTupleReply, ctaProtoSrcPort, port},
			{ctaTupleOrig, ctaProtoSrcPort, port}, {ctaTupleReply, ctaProtoDstPort, port},
		} {
			err := c.dumpPort(f, func(f Flow) {
				conn, ok := f.Connection()
				k := key{f.Original, f.Zone}
				if !ok || !f.Original.valid() || seen[k] || !conn.uses(port) {
					return
				}
				seen[k] = true
				list = append(list, conn)
			})
			if err != nil {
				return nil, fmt.Errorf("list connections with port %d: %w", port, err)
			}
		}
	}
	return list, nil
}

// uses reports whether the connection has the port at any end.
func (c Connection) uses(port uint16) bool {
	return c.Original.Dst.Port() == port || c.Reply.Src.Port() == port || c.Original.Src.Port() == port || c.Reply.Dst.Port() == port
}

// portFilter asks for TCP connections by one port of one tuple.
type portFilter struct{ tuple, attr, port uint16 }

// dumpPort calls each for the TCP connections that the filter lets through, and on kernels that do not filter for all.
func (c *Client) dumpPort(f portFilter, each func(Flow)) error {
	data, err := encodeDumpPort(f)
	if err != nil {
		return err
	}
	return c.dumpFiltered(data, each)
}

// encodeDumpPort builds IPCTNL_MSG_CT_GET for a dump of TCP entries by one port.
func encodeDumpPort(f portFilter) ([]byte, error) {
	flagsOf, flag := uint16(ctaFilterOrigFlags), uint32(filterProtoSrcPort)
	if f.tuple == ctaTupleReply {
		flagsOf = ctaFilterReplyFlags
	}
	if f.attr == ctaProtoDstPort {
		flag = filterProtoDstPort
	}
	return encode(func(m *encoder) {
		m.nested(f.tuple, func() {
			m.nested(ctaTupleProto, func() {
				m.uint8(ctaProtoNum, protocolTCP)
				m.uint16(f.attr, f.port)
			})
		})
		m.nested(ctaFilter, func() {
			m.bytes(flagsOf, binary.NativeEndian.AppendUint32(nil, filterProtoNum|flag))
		})
	}), nil
}
