package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// sysctlEstablished is the life in seconds that the kernel gives an established TCP connection with each packet.
const sysctlEstablished = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"

// defaultEstablished is the kernel's own choice for it.
const defaultEstablished = 5 * 24 * time.Hour

// EstablishedTimeout returns how long the kernel keeps an idle TCP connection in the calling thread's network namespace.
func EstablishedTimeout() time.Duration {
	v, err := readSysctl(sysctlEstablished)
	if err == nil {
		if d, err := time.ParseDuration(v + "s"); err == nil && d >= time.Second {
			return d
		}
	}
	return defaultEstablished
}

// RestoreConnection puts the entry of a TCP connection back that was removed while the connection lived on, with its
// Original, Reply, Zone, Mark, Timeout and Helper. Without it the router would take the next segment for the beginning of
// another connection, translate it anew if it comes from the inside, and answer it with a reset if it comes from the outside.
//
// The kernel may have been faster and have made an entry of a segment that came meanwhile, in either direction. One that
// translates as this one does stays, and RestoreConnection returns false; others give way. It fails as Create does; a
// Helper that the kernel does not know is an [UnsupportedError].
func (c *Client) RestoreConnection(conn Connection) (restored bool, err error) {
	for range 3 { // there can be one in the way of each tuple
		err = c.createConnection(conn)
		if !errors.Is(err, unix.EEXIST) {
			break
		}
		f, there, lookErr := c.blocks(conn)
		switch {
		case lookErr != nil:
			err = lookErr
		case there && conn.translates(f):
			return false, nil
		case there:
			if err = c.remove(f); err == nil || errors.Is(err, ErrNotFound) {
				err = unix.EEXIST // again
				continue
			}
		default:
			continue // gone by itself
		}
		break
	}
	if err != nil {
		return false, fmt.Errorf("restore conntrack entry of connection %v, reply %v: %w", conn.Original, conn.Reply, err)
	}
	return true, nil
}

// createConnection makes the entry, and looks at what the kernel made of it.
func (c *Client) createConnection(conn Connection) error {
	create, err := encodeConnection(conn)
	if err != nil {
		return err
	}
	get, err := encodeGet(ctaTupleOrig, protocolTCP, conn.Original, conn.Zone)
	if err != nil {
		return err
	}
	answers, err := c.transact(request(msgNew, netlink.Acknowledge|netlink.Create|netlink.Excl, create), request(msgGet, 0, get))
	if err != nil {
		return err
	}
	switch err := answers[0].err; {
	case errors.Is(err, unix.EOPNOTSUPP) && conn.Helper != "":
		return helperSupport.because(err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return natSupport.because(err)
	case err != nil:
		return explain(err)
	}
	f := answers[1].flow
	if err := answers[1].err; err != nil {
		return fmt.Errorf("read back: %w", explain(err))
	}
	if f.Original != conn.Original || f.Reply != conn.Reply {
		_ = c.remove(f)
		return fmt.Errorf("the kernel made %v instead", f)
	}
	return nil
}

// blocks returns a flow that has one of the connection's tuples.
func (c *Client) blocks(conn Connection) (Flow, bool, error) {
	for _, q := range [...]struct {
		attr  uint16
		tuple Tuple
	}{{ctaTupleOrig, conn.Original}, {ctaTupleReply, conn.Reply}} {
		f, err := c.get(q.attr, protocolTCP, q.tuple, conn.Zone)
		if err == nil {
			return f, true, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return Flow{}, false, err
		}
	}
	return Flow{}, false, nil
}

// translates reports whether f does with the connection's segments what the connection's own entry does, whichever end
// the kernel takes for the opener.
func (c Connection) translates(f Flow) bool {
	return f.Original == c.Original && f.Reply == c.Reply || f.Original == c.Reply && f.Reply == c.Original
}

// HasConnection reports whether the table has an entry that translates as c does, in either direction.
func (c *Client) HasConnection(conn Connection) (bool, error) {
	_, err := c.StateOf(conn)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// StateOf returns the state of the entry that translates as c does, in either direction. ErrNotFound: there is none.
func (c *Client) StateOf(conn Connection) (TCPState, error) {
	f, err := c.get(ctaTupleOrig, protocolTCP, conn.Original, conn.Zone)
	if err == nil && !conn.translates(f) {
		err = ErrNotFound
	}
	if err != nil {
		return TCPNone, fmt.Errorf("look for connection %v: %w", conn.Original, err)
	}
	return f.TCPState, nil
}

// DeleteConnection removes the entry that has the connection's original tuple if it translates as conn does.
// ErrNotFound: there is none.
func (c *Client) DeleteConnection(conn Connection) error {
	f, err := c.get(ctaTupleOrig, protocolTCP, conn.Original, conn.Zone)
	if err == nil && !conn.translates(f) {
		err = ErrNotFound
	}
	if err == nil {
		err = c.remove(f)
	}
	if err != nil {
		return fmt.Errorf("delete conntrack entry of connection %v: %w", conn.Original, err)
	}
	return nil
}

// encodeConnection builds IPCTNL_MSG_CT_NEW for a TCP connection that is established.
//
// The reply tuple has the untranslated addresses and ports, CTA_NAT_SRC and CTA_NAT_DST say what to translate them to, as in
// encodeEntry. The ports are given even where they stay, for the kernel would choose others if it liked.
//
// The kernel begins to follow the sequence numbers with the next segment of each side, but does not know the windows' scales:
// both sides are marked as it marks them itself when it picks a connection up in the middle (tcp_new).
func encodeConnection(c Connection) ([]byte, error) {
	if !c.Original.valid() || !c.Reply.valid() {
		return nil, errTuple
	}
	if c.Timeout < time.Second || c.Timeout > MaxTimeout {
		return nil, errTimeout
	}
	const (
		seenAssuredConfirmed = StatusSeenReply | StatusAssured | StatusConfirmed

		sackPermitted = 0x02                     // IP_CT_TCP_FLAG_SACK_PERM
		liberal       = 0x08                     // IP_CT_TCP_FLAG_BE_LIBERAL
		flags         = sackPermitted | liberal  // of the kernel's own pick-up
		flagsMask     = uint16(flags)<<8 | flags // struct nf_ct_tcp_flags: flags, mask; both are bytes
	)
	return encode(func(m *encoder) {
		putTuple(m, ctaTupleOrig, protocolTCP, c.Original, c.Zone)
		putTuple(m, ctaTupleReply, protocolTCP, c.Original.Inverse(), c.Zone)
		putZone(m, c.Zone)
		if c.Reply.Dst != c.Original.Src {
			putNATPort(m, ctaNATSrc, c.Reply.Dst)
		}
		if c.Reply.Src != c.Original.Dst {
			putNATPort(m, ctaNATDst, c.Reply.Src)
		}
		m.uint32(ctaTimeout, uint32((c.Timeout+time.Second-1)/time.Second))
		m.uint32(ctaStatus, uint32(seenAssuredConfirmed))
		if c.Mark != 0 {
			m.uint32(ctaMark, c.Mark)
		}
		m.nested(ctaProtoinfo, func() {
			m.nested(ctaProtoinfoTCP, func() {
				m.uint8(ctaProtoinfoTCPState, uint8(TCPEstablished))
				m.uint16(ctaProtoinfoTCPFlagsOriginal, flagsMask)
				m.uint16(ctaProtoinfoTCPFlagsReply, flagsMask)
			})
		})
		if c.Helper != "" {
			m.nested(ctaHelp, func() {
				m.text(ctaHelpName, c.Helper)
			})
		}
	}), nil
}

// putNATPort is putNAT with a port: the range of ports has one, as that of addresses.
func putNATPort(m *encoder, attr uint16, to netip.AddrPort) {
	m.nested(attr, func() {
		m.bytes(ctaNATv4MinIP, to.Addr().AsSlice())
		m.bytes(ctaNATv4MaxIP, to.Addr().AsSlice())
		m.nested(ctaNATProto, func() {
			m.uint16(ctaProtoNATPortMin, to.Port())
			m.uint16(ctaProtoNATPortMax, to.Port())
		})
	})
}
