package replay

import (
	"fmt"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// diagnosis says what is wrong with a call, in words, or that nothing is.
func (r *Replay) diagnosis(c *call) string {
	client, server := c.sent[nat.Client].Packets, c.sent[nat.Server].Packets
	switch {
	case c.nat.Refused:
		return c.nat.Reason
	case c.nat.Up.IsZero() && c.nat.State == nat.Ended:
		return "never came up: " + c.nat.Reason
	case c.nat.Up.IsZero():
		what := "Outgoing-Call-Request"
		if c.nat.Direction == nat.Incoming {
			what = "Incoming-Call-Request"
		}
		return fmt.Sprintf("no answer to %s from the %v in the %s until the capture ends",
			what, c.nat.Initiator.Other(), r.now.Sub(c.nat.Since).Round(time.Second))
	case client > 0 && server > 0:
		return "GRE was seen in both directions"
	case c.icmp != "":
		return c.icmp
	case client+server == 0 && r.counts.GRE+r.counts.StrayGRE == 0:
		return "no GRE in the whole capture: capture it too, with the filter 'tcp port 1723 or ip proto 47 or icmp'; " +
			"if it was, a firewall blocks protocol 47 before this point"
	case client > 0 || server > 0:
		from := nat.Client
		if server > 0 {
			from = nat.Server
		}
		if s := r.strayOf(c, from.Other()); s != nil {
			return fmt.Sprintf("the %v's GRE was seen, and GRE of the %v with Call ID %d, which is no call's: something between translates Call IDs wrongly",
				from, from.Other(), s.key.callID)
		}
		return fmt.Sprintf("the %v's GRE was seen, none from the %v: a firewall between this point and the %v may block protocol 47",
			from, from.Other(), from.Other())
	}
	for side := nat.Client; side <= nat.Server; side++ {
		if s := r.strayOf(c, side); s != nil {
			return fmt.Sprintf("none of its GRE was seen, but GRE of the %v with Call ID %d, which is no call's: something between translates Call IDs wrongly",
				side, s.key.callID)
		}
	}
	return "no GRE was seen from either end: a firewall may block protocol 47 on both sides, or the ends did not begin"
}

// strayOf finds GRE of no call that a side of a call sent to the other one.
func (r *Replay) strayOf(c *call, from nat.Side) *stray {
	h := c.nat.Connection.Path.Hosts
	for _, s := range r.sortedStrays() {
		if s.key.src == h[from].Real && s.key.dst == h[from.Other()].Real && !s.seen.Last.Before(c.nat.Since) {
			return s
		}
	}
	return nil
}

// connectionState says where a control connection was when the capture ended, or
// why it came to nothing.
func (c *conn) state() string {
	switch {
	case c.refused != nil:
		return fmt.Sprintf("refused by the router: %v", c.refused)
	case c.reset:
		return "refused: reset before it began"
	case c.alg == nil && c.syns > 0 && !c.answered:
		return fmt.Sprintf("no answer from the server to %d SYN: a firewall between may block TCP, or no server is there", c.syns)
	case c.alg == nil:
		return "nothing of it is in the capture but empty segments"
	}
	s := c.alg.State.String()
	if c.alg.Reason != "" {
		s += ": " + c.alg.Reason
	}
	if c.alg.State == alg.Starting && c.alg.Unparsed == "" {
		s += ": no Start-Control-Connection-Reply"
	}
	return s
}
