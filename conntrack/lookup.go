package conntrack

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Lookup finds the TCP connection of a packet, given the packet's addresses on the forward hook: after
// destination and before source translation, so the true ones of both ends.
//
// Those are the sources of the connection's two tuples, while the kernel finds entries by a whole
// tuple. A whole tuple is known when at most one of the two ends is translated:
//
//	no NAT, or the source is translated    the original tuple is src > dst (or dst > src)
//	the destination is translated          the reply tuple is dst > src (or src > dst)
//
// Two questions cover these, at a few microseconds together. When both ends are translated (hairpin), or
// the connection is in a zone, Lookup has the kernel walk its table, which is one for all namespaces: that
// takes milliseconds where it is large. Kernels before Linux 5.8 do not compare, but send everything.
//
// ErrNotFound: no such connection. ErrAmbiguous: several, in different zones.
func (c *Client) Lookup(src, dst netip.AddrPort) (Connection, error) {
	f, err := c.lookup(src, dst)
	if err != nil {
		return Connection{}, fmt.Errorf("look up connection %v > %v: %w", src, dst, err)
	}
	conn, _ := f.Connection()
	return conn, nil
}

func (c *Client) lookup(src, dst netip.AddrPort) (Flow, error) {
	packet := Tuple{Src: src, Dst: dst}
	var questions [2]netlink.Message
	for i, t := range [...]Tuple{packet, packet.Inverse()} {
		data, err := encodeGet(ctaTupleOrig, protocolTCP, t, Zone{})
		if err != nil {
			return Flow{}, err
		}
		questions[i] = request(msgGet, 0, data)
	}
	answers, err := c.transact(questions[:]...)
	if err != nil {
		return Flow{}, err
	}
	for _, a := range answers {
		switch err := explain(a.err); {
		case err == nil && a.flow.carries(packet):
			return a.flow, nil
		case err != nil && !errors.Is(err, ErrNotFound):
			return Flow{}, err
		}
	}

	m := matches{packet: packet}
	for _, t := range [...]Tuple{packet, packet.Inverse()} {
		if err := c.dumpEnds(t, m.add); err != nil {
			return Flow{}, err
		}
		if len(m.found) > 0 {
			break // the other direction would only tell of twins opened from opposite ends
		}
	}
	return m.one()
}

// matches collects the connections that a packet may belong to.
type matches struct {
	packet Tuple
	found  []Flow
}

// add takes a flow of a dump, which may hold others, and the same twice.
func (m *matches) add(f Flow) {
	if !f.carries(m.packet) {
		return
	}
	for _, o := range m.found {
		if o.Original == f.Original && o.Zone == f.Zone {
			return
		}
	}
	m.found = append(m.found, f)
}

func (m *matches) one() (Flow, error) {
	switch len(m.found) {
	case 0:
		return Flow{}, ErrNotFound
	case 1:
		return m.found[0], nil
	}
	return Flow{}, fmt.Errorf("%w: %v; %v", ErrAmbiguous, m.found[0], m.found[1])
}

// dumpEnds calls each for the TCP connections whose original packets look like t on the forward hook, and
// on kernels that do not filter for others too.
func (c *Client) dumpEnds(t Tuple, each func(Flow)) error {
	data, err := encodeDumpEnds(protocolTCP, t.Src, t.Dst)
	if err != nil {
		return err
	}
	return c.dumpFiltered(data, each)
}

// dumpFiltered dumps with a filter, and without it where that is refused, which no kernel is known to do.
func (c *Client) dumpFiltered(data []byte, each func(Flow)) error {
	err := c.dump(data, each)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		if data, err = encodeDump(); err != nil {
			return err
		}
		err = c.dump(data, each)
	}
	return explain(err)
}

// carries reports whether f is the connection of a packet that looks like p on the forward hook.
func (f Flow) carries(p Tuple) bool {
	conn, ok := f.Connection()
	return ok && (conn.Forward() == p || conn.Forward() == p.Inverse())
}
