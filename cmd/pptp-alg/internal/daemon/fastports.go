package daemon

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/cmd/pptp-alg/internal/ways"
)

// Packets that arrive by a bridge are taken at its port already, where the bridge would do nothing with them but learn where their
// sender is: that saves more than half of their way. What the port does not take is taken at the bridge.

// An entrance is where packets of a direction are taken: at the link by which they arrive, at a port of it where that is a bridge, or
// at either. 0: not there.
type entrance struct{ link, port int }

// A mover is a station that was at another port a moment ago, or at none, or whose port has changed.
type mover struct {
	rest time.Duration // for how long it is not taken at ports
	due  time.Time     // when that is over
	last time.Time     // when it moved last
}

const (
	portRest = 100 * time.Millisecond // doubled when the station moves again soon, up to lastHalt

	lanesAtOnce = 256 // that are looked at again before control connections have their turn
)

// betweenPorts says what is between bridges and their ports that packets would pass by.
func (f *fastPath) betweenPorts() (why, err error) {
	chains, err := f.daemon.plane.rules.BridgeChains()
	switch {
	case err != nil:
		return nil, err
	case len(chains) > 0:
		return &ways.Unsafe{Reason: "nftables has a chain for what passes bridges: " + chains[0]}, nil
	}
	why = ebtables()
	if unsafe := (*ways.Unsafe)(nil); why != nil && !errors.As(why, &unsafe) {
		return nil, why
	}
	return why, nil
}

// ebtables says whether the kernel has them. Tests have other kernels.
var ebtables = ways.Ebtables

// atPorts reports whether packets may be taken at ports.
func (f *fastPath) atPorts() bool { return f.bridged == nil && len(f.stations) > 0 }

// stationOf notes who sends the packets of a direction to a bridge: who gets those of the other one, from the same bridge.
func (f *fastPath) stationOf(l, other *lane) {
	var s ways.Station
	if in, known := f.links[l.sight.Arrived]; known && in.Bridge && other.sight.Link == l.sight.Arrived {
		s = ways.Station{Bridge: l.sight.Arrived, Address: other.sight.Next}
	}
	if s == l.station && f.stations[s][l] {
		return
	}
	f.forgetStation(l)
	if s != (ways.Station{}) {
		l.station = s
		if f.stations[l.station] == nil {
			f.stations[l.station] = map[*lane]bool{}
		}
		f.stations[l.station][l] = true
	}
}

func (f *fastPath) forgetStation(l *lane) {
	if delete(f.stations[l.station], l); len(f.stations[l.station]) == 0 {
		delete(f.stations, l.station)
		delete(f.movers, l.station)
	}
	l.station = ways.Station{}
}

// entrance says where packets are taken that arrive by a link, and attaches the programs there.
func (f *fastPath) entrance(in ways.Link, station ways.Station) (e entrance, err error) {
	if err := f.ways.Arrives(in.Index); err != nil {
		return e, err
	}
	unsafe := (*ways.Unsafe)(nil)
	filtered := f.ways.Filtered(in.Index)
	switch {
	case filtered == nil:
		if err := f.path.Carry(in.Index, !in.Ethernet); err != nil {
			return e, err
		}
		e.link = in.Index
		f.arrivals[in.Index] = true
	case !errors.As(filtered, &unsafe):
		return e, filtered
	}
	// Before Linux 6.6 a device that gets or loses a queueing discipline drops what leaves by it at that moment. So it is
	// done at no more of them than has to be.
	if !in.Bridge || filtered == nil && f.path.Port() != 0 {
		return e, nil
	}
	port, err := f.port(in, station)
	if err == nil {
		err = f.path.CarryAtPort(port.Index, port.Bridge)
	}
	if err == nil {
		e.port = port.Index
		return e, nil
	}
	if !errors.As(err, &unsafe) {
		f.refused(err)
	}
	if filtered == nil {
		return e, nil
	}
	return e, &ways.Unsafe{Reason: fmt.Sprintf("%v; and it can't be taken there: %v", filtered, err)}
}

// port says at which port a station is, or why it can't be taken there.
func (f *fastPath) port(in ways.Link, s ways.Station) (ways.Port, error) {
	switch {
	case f.bridged != nil:
		return ways.Port{}, f.bridged
	case s == ways.Station{}:
		return ways.Port{}, &ways.Unsafe{Reason: "it does not come from where the other direction goes to"}
	case f.resting(s):
		return ways.Port{}, &ways.Unsafe{Reason: hasMoved}
	case f.path.Others(in.Index):
		return ways.Port{}, &ways.Unsafe{Reason: "programs of others are at " + in.Name + ", which it would pass by"}
	}
	return f.ways.Port(s)
}

// hasMoved is why a call is not taken at a port.
const hasMoved = "its sender has just moved to another port of the bridge, or the bridge has forgotten it"

// resting reports whether a station moved a moment ago.
func (f *fastPath) resting(s ways.Station) bool {
	m := f.movers[s]
	return m != nil && !m.due.IsZero()
}

// stationsMoved has the calls of stations that moved taken behind the bridge, which learns from them where they are; and at their ports
// again after a rest.
func (f *fastPath) stationsMoved(now time.Time) {
	moved := f.ways.Stations()
	if f.generation == 0 {
		return // the next one begins with what is so then
	}
	for _, s := range moved {
		lanes := f.stations[s]
		if len(lanes) == 0 {
			continue
		}
		if f.resting(s) { // forgotten, and learned again
			f.movers[s].last, f.movers[s].due = now, now.Add(f.movers[s].rest)
			continue
		}
		for l := range lanes {
			if f.carries(l) && l.taken.port != 0 {
				f.move(l, entrance{l.taken.link, 0}, now)
			}
		}
		m := f.movers[s]
		if m == nil {
			m = &mover{}
			f.movers[s] = m
		}
		if now.Sub(m.last) > haltPeace {
			m.rest = 0
		}
		m.rest, m.last = longer(m.rest), now
		m.due = now.Add(m.rest)
	}
	f.nextMover(now)
}

// nextMover has the next one that has rested looked at again, and those that wait for their turn soon.
func (f *fastPath) nextMover(now time.Time) {
	var first time.Time
	if len(f.backlog) > 0 {
		if f.turn.IsZero() {
			f.turn = now.Add(time.Millisecond)
		}
		first = f.turn
	}
	for _, m := range f.movers {
		if !m.due.IsZero() && (first.IsZero() || m.due.Before(first)) {
			first = m.due
		}
	}
	if !first.IsZero() {
		f.daemon.table.Schedule(&f.moves, first, f.backToPorts)
	}
}

// backToPorts has calls of stations that moved, and have rested, taken where those are now, some at a time.
func (f *fastPath) backToPorts(now time.Time) {
	if f.generation == 0 {
		return
	}
	for s, m := range f.movers {
		if !m.due.IsZero() && !m.due.After(now) {
			m.due = time.Time{}
			f.backlog = slices.AppendSeq(f.backlog, maps.Keys(f.stations[s]))
		}
	}
	known := map[ways.Station]func() (entrance, error){} // asked for once a turn
	n := min(len(f.backlog), lanesAtOnce)
	for _, l := range f.backlog[:n] {
		m := f.movers[l.station]
		if l.gone || m == nil || !m.due.IsZero() || !f.hasSeen(l) { // or it has moved again
			continue
		}
		if known[l.station] == nil {
			e, err := f.entrance(f.links[l.station.Bridge], l.station)
			known[l.station] = func() (entrance, error) { return e, err }
		}
		e, err := known[l.station]()
		switch {
		case !f.carries(l):
			if err != nil { // it need not be asked for more
				l.why = err.Error()
			} else {
				l.why = f.carry(l, false)
			}
		case err != nil:
			l.why = err.Error()
			f.stop(l, now)
		case f.elsewhere(l, e, false):
			l.why = f.seeAgain(l)
		default:
			f.move(l, e, now)
		}
	}
	f.backlog, f.turn = f.backlog[n:], time.Time{}
	f.nextMover(now)
}

// elsewhere reports whether a direction comes by another port than when the firewall let it through, or by which it was then is not
// known, where the firewall is at the ports and may go by them.
func (f *fastPath) elsewhere(l *lane, e entrance, fresh bool) bool {
	return e.link == 0 && !(fresh && l.passed == 0) && e.port != l.passed
}

// seeAgain has a direction carried only when it was seen again, and says so.
func (f *fastPath) seeAgain(l *lane) string {
	if f.carries(l) {
		f.stop(l, time.Now())
	}
	l.sight, l.taken, l.passed = fastpath.Sight{}, entrance{}, 0
	f.awaited++
	f.failed(f.path.Await(l.leaves))
	f.look()
	return "it came by another port of the bridge"
}

// move has a direction taken elsewhere.
func (f *fastPath) move(l *lane, e entrance, now time.Time) {
	if err := f.path.Move(l.arrives, e.link, e.port); err != nil {
		f.failed(err)
		f.halt(now, "a call could not be taken from a port")
		return
	}
	l.comes(e)
}

// comes notes where a direction is taken from now on.
func (l *lane) comes(e entrance) {
	if l.taken = e; l.passed == 0 {
		l.passed = e.port
	}
}

// stop ends that a direction is carried; what was counted stays.
func (f *fastPath) stop(l *lane, now time.Time) {
	l.carried = 0
	if err := f.path.Put(l.arrives, fastpath.Call{Leaves: l.leaves, Gateway: l.leaves.Dst}); err != nil {
		f.failed(err)
		f.halt(now, "a call could not be taken from it")
	}
}
