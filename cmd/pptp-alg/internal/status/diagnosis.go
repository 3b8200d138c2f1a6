package status

import (
	"fmt"
	"time"
)

// A call that ended sooner proves nothing by its silence.
const leastLife = 3 * time.Second

// A call that ended this soon although GRE came from both sides most likely failed
// inside PPP.
const shortLife = 20 * time.Second

// negotiation is how many packets of each side PPP needs at most before it is up or has
// failed, repetitions included: LCP, authentication, CCP and IPCP. A call that carried
// more carried a user's data.
const negotiation = 50

// DroppedByAdministrator is the reason of calls that pptp-alg drop ended.
const DroppedByAdministrator = "dropped by the administrator"

// Diagnose says which side sent GRE and which did not, and what that may mean. It
// returns "" where there is nothing to say: GRE came from both sides, or the call
// was never established, or is not up for longer than patience, or the kernel does
// not count.
//
// The kernel counts what reaches the router, before its firewall: GRE that this
// router itself drops on its way out counts as sent.
func (c *Call) Diagnose(now time.Time, patience time.Duration) string {
	if c.Established.IsZero() || c.PacketsFromClient == nil || c.PacketsFromServer == nil {
		return ""
	}
	over := !c.Ended.IsZero()
	client, server := *c.PacketsFromClient, *c.PacketsFromServer
	if over {
		patience, now = leastLife, c.Ended
	}
	life := now.Sub(c.Established)
	if client > 0 && server > 0 {
		if over && life < shortLife && min(client, server) <= negotiation && c.Reason != DroppedByAdministrator {
			return fmt.Sprintf("GRE came from both sides (client %d, server %d packets): "+
				"if the call failed, it failed inside PPP (password, encryption), not on the way", client, server)
		}
		return ""
	}
	if life < patience {
		return ""
	}
	lasted := "for " + duration(life)
	switch {
	case client == 0 && server == 0:
		return "no GRE from either side " + lasted + ": both may filter protocol 47, or it takes another way than through this router"
	case server == 0:
		return fmt.Sprintf("no GRE from the server %s, %s from the client: a firewall between may block protocol 47",
			lasted, count64(client, "packet"))
	}
	return fmt.Sprintf("no GRE from the client %s, %s from the server: the client's firewall may block protocol 47, "+
		"or its GRE does not come through this router", lasted, count64(server, "packet"))
}

// duration writes a duration as words have it: whole seconds, then age.
func duration(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return age(d)
}

func count64(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
