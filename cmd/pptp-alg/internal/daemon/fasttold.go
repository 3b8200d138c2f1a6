package daemon

import (
	"slices"
	"strings"

	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/cmd/pptp-alg/internal/status"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// traffic is what was carried of a mapping since it was taken up.
func (f *fastPath) traffic(m *nat.Mapping) conntrack.Counters {
	if f == nil || f.lanes[m] == nil || !f.lanes[m].put {
		return conntrack.Counters{}
	}
	return conntrack.Counters(f.path.Traffic(f.lanes[m].arrives))
}

// addCarried adds what was carried to what conntrack has counted.
func addCarried(path *fastpath.Path, flows map[conntrack.GRE]conntrack.Stored) error {
	carried, err := path.All()
	for t, n := range carried {
		g := conntrack.GRE{Src: t.Src, Dst: t.Dst, CallID: t.CallID}
		if e, ok := flows[g]; ok {
			e.Counters.Packets += n.Packets
			e.Counters.Bytes += n.Bytes
			flows[g] = e
		}
	}
	return err
}

// fastNumbers are what status and metrics say of the fast path.
type fastNumbers struct {
	fastCounters
	calls uint64 // that are carried both ways now
}

func (f *fastPath) count() (n fastNumbers) {
	n.fastCounters = f.counters
	f.daemon.table.Calls(func(c *nat.Call) {
		if f.carriesTo(c, nat.Client) && f.carriesTo(c, nat.Server) {
			n.calls++
		}
	})
	return n
}

// describe says for the status which path a call takes.
func (f *fastPath) describe(c *nat.Call) *status.FastPath {
	if f == nil {
		return nil
	}
	s := &status.FastPath{ToClient: f.carriesTo(c, nat.Client), ToServer: f.carriesTo(c, nat.Server)}
	var why []string
	for _, m := range c.Ends {
		if m != nil && !f.takes(f.lanes[m]) {
			why = append(why, f.why(f.lanes[m]))
		}
	}
	s.Reason = strings.Join(slices.Compact(why), "; ")
	return s
}

func (f *fastPath) why(l *lane) string {
	switch {
	case l == nil:
		return "it is over"
	case !l.awaited:
		return l.why
	case f.over != "":
		return f.over
	case f.generation == 0 && f.trouble != "":
		return f.trouble
	case f.generation == 0:
		return "the firewall, routes or devices have just changed"
	case f.around != "":
		return f.around
	case f.carries(l):
		return hasMoved
	case !f.hasSeen(l) && f.blind != "":
		return f.blind
	case !f.hasSeen(l) || l.why == "":
		return "no GRE of it has passed both ways yet"
	}
	return l.why
}
