package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"pptp-alg/e2e/lab"
)

// fastKinds says who takes part in the comparison of the fast path: all of them with a bridge at the router's inside, as
// routers have one.
func fastKinds(calls int, in inside) []entrant {
	return []entrant{{Plain, calls, in}, {ALG, calls, in}, {Fast, calls, in}}
}

// fastPath measures pptp-alg with its fast path, and beside it without, and plain forwarding.
func (r *run) fastPath(ctx context.Context) (*Data, error) {
	d := &Data{Machine: r.machine(), Payload: r.plan.Payload, Large: r.plan.Large}
	for _, calls := range r.plan.Fast {
		if err := r.stage(ctx, d, calls, fastKinds(calls, bridged), true); err != nil {
			return nil, err
		}
	}
	w := &Data{Payload: d.Payload}
	for _, calls := range r.plan.Watched {
		err := r.stage(ctx, w, calls, fastKinds(calls, watched), false)
		if errors.Is(err, errNotWatched) {
			r.say("%v: not measured", err)
			break
		}
		if err != nil {
			return nil, err
		}
	}
	d.Watched = w.Rates
	return d, nil
}

// Names of the router's devices when its inside is a bridge with one port.
const bridge, bridgePort = "lan", "port"

// errNotWatched says that the firewall cannot see packets at bridges' ports.
var errNotWatched = errors.New("this kernel has no br_netfilter")

// bridged puts a bridge between the router and the inside, whose packets the firewall sees at the port, or not.
func (w *world) bridged(watched bool) error {
	if err := w.Link(w.inside, "lan", w.router, bridgePort); err != nil {
		return err
	}
	h := w.router.Netlink()
	port, err := h.LinkByName(bridgePort)
	if err != nil {
		return fmt.Errorf("find the bridge's port: %w", err)
	}
	// With the port's address, like a router's, so that it does not change.
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge, HardwareAddr: port.Attrs().HardwareAddr}}
	if err := h.LinkAdd(b); err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	if err := errors.Join(h.LinkSetMaster(port, b), h.LinkSetUp(b)); err != nil {
		return fmt.Errorf("put the bridge together: %w", err)
	}
	// A kernel with br_netfilter has it switched on in new namespaces. Routers have not, but for those that run containers.
	const filter = "net.bridge.bridge-nf-call-iptables"
	value := map[bool]string{false: "0", true: "1"}[watched]
	switch err := w.router.Sysctl(filter, value); {
	case !errors.Is(err, os.ErrNotExist):
		return err
	case watched:
		return errNotWatched
	}
	return nil
}

// fastPatience is how long it may take until all calls are on the fast path.
const fastPatience = 2 * time.Minute

// quicken sends packets until all calls are on the fast path in both directions: they enter it when conntrack has carried some.
func (w *world) quicken(ctx context.Context, flows []flow) error {
	end := time.Now().Add(fastPatience)
	for {
		for _, d := range directions {
			if _, err := w.check(d, flows); err != nil {
				return err
			}
		}
		s, err := w.daemon.Status(ctx)
		if err != nil {
			return err
		}
		slow := slowly(s)
		if len(slow) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d calls are not on the fast path, one because: %s", len(slow), len(s.Up()), slow[0])
		}
	}
}

// slowly names why calls are not on the fast path.
func slowly(s *lab.Status) (reasons []string) {
	for _, c := range s.Up() {
		switch f := c.FastPath; {
		case f == nil:
			reasons = append(reasons, "it is off")
		case !f.ToServer || !f.ToClient:
			reasons = append(reasons, f.Reason)
		}
	}
	return reasons
}
