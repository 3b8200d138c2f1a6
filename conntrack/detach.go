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
	data, err := encode(func(ae *netlink.AttributeEncoder) {
		putTuple(ae, ctaTupleOrig, protocolTCP, conn.Original, conn.Zone)
		putZone(ae, conn.Zone)
		ae.Nested(ctaHelp, func(ae *netlink.AttributeEncoder) error {
			ae.String(ctaHelpName, "") // ctnetlink_change_helper: the empty name is none
			return nil
		})
	})
	if err != nil {
		return err
	}
	answers, err := c.transact(request(msgNew, netlink.Acknowledge, data)) // without Create it changes what is there
	if err == nil {
		err = answers[0].err
	}
	if err != nil {
		return fmt.Errorf("detach the helper of connection %v: %w", conn.Original, explain(err))
	}
	return nil
}
