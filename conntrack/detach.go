package conntrack

import (
	"fmt"

	"github.com/mdlayher/netlink"
)

// Detach takes the conntrack helper of a TCP connection away, and what the helper has expected. The connection stays one
// that no flow table takes: the kernel looks whether there ever was a helper. ErrNotFound: it is gone.
func (c *Client) Detach(conn Connection) error {
	if !conn.Original.valid() {
		return errTuple
	}
	data := encode(func(m *encoder) {
		putTuple(m, ctaTupleOrig, protocolTCP, conn.Original, conn.Zone)
		putZone(m, conn.Zone)
		m.nested(ctaHelp, func() {
			m.text(ctaHelpName, "") // ctnetlink_change_helper: the empty name is none
		})
	})
	answers, err := c.transact(request(msgNew, netlink.Acknowledge, data)) // without Create it changes what is there
	if err == nil {
		err = answers[0].err
	}
	if err != nil {
		return fmt.Errorf("detach the helper of connection %v: %w", conn.Original, explain(err))
	}
	return nil
}
