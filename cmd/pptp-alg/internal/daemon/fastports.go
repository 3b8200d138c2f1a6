package daemon

import (
	"errors"
	"fmt"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/cmd/pptp-alg/internal/ways"
)

// Packets that arrive by a bridge are taken at its port already, where the bridge would do nothing with them but learn where their
// sender is: that saves more than half of their way. What the port does not take is taken at the bridge.

// portRest is for how long calls of a station that moved are not taken at ports, at most.
const portRest = 100 * time.Millisecond

// betweenPorts says what is between bridges and their ports that packets would pass by.
func (f *fastPath) betweenPorts() (why, err error) {
	chains, err := f.daemon.plane.rules.BridgeChains()
	if err == nil && len(chains) > 0 {
		why = &ways.Unsafe{Reason: "nftables has a chain for what passes bridges: " + chains[0]}
	}
	return why, err
}

// stationOf notes who sends the packets of a direction to a bridge: who gets those of the other one, from the same bridge.
func (f *fastPath) stationOf(l, other *lane) {
	l.station = ways.Station{}
	if in, known := f.links[l.sight.Arrived]; known && in.Bridge && other.sight.Link == l.sight.Arrived {
		l.station = ways.Station{Bridge: l.sight.Arrived, Address: other.sight.Next}
		if f.stations[l.station] == nil {
			f.stations[l.station] = map[*lane]bool{}
		}
		f.stations[l.station][l] = true
	}
}

// entrances says where a call's packets are taken that arrive by a link, and attaches the programs there.
func (f *fastPath) entrances(c *fastpath.Call, in ways.Link, station ways.Station) error {
	refused := f.ways.Arrives(in.Index)
	if unsafe := (*ways.Unsafe)(nil); refused != nil && !errors.As(refused, &unsafe) {
		return refused
	}
	if refused == nil {
		if err := f.path.Carry(in.Index, !in.Ethernet); err != nil {
			return err
		}
		c.Arrives = in.Index
		f.arrivals[in.Index] = true
	}
	if !in.Bridge {
		return refused
	}
	port, err := f.port(station)
	if err == nil {
		err = f.path.CarryAtPort(port.Index, port.Bridge)
	}
	if err == nil {
		c.Port = port.Index
		return nil
	}
	if unsafe := (*ways.Unsafe)(nil); !errors.As(err, &unsafe) {
		f.refused(err)
	}
	if refused == nil {
		return nil
	}
	return &ways.Unsafe{Reason: fmt.Sprintf("%v; and it can't be taken there: %v", refused, err)}
}

// port says at which port a station is, or why it can't be taken there.
func (f *fastPath) port(s ways.Station) (ways.Port, error) {
	switch {
	case f.bridged != nil:
		return ways.Port{}, f.bridged
	case s == ways.Station{}:
		return ways.Port{}, &ways.Unsafe{Reason: "it does not come from where the other direction goes to"}
	}
	return f.ways.Port(s)
}

// atPorts reports whether packets of any call may be taken at a port.
func (f *fastPath) atPorts() bool { return f.bridged == nil && len(f.stations) > 0 }

// stationsMoved has the calls of stations that moved taken behind the bridge, which learns from them where they are; and at their ports
// again after a while.
func (f *fastPath) stationsMoved(now time.Time) {
	if f.generation == 0 {
		return // the next one begins with what is so then
	}
	for _, s := range f.ways.Stations() {
		for l := range f.stations[s] {
			f.failed(f.path.LeavePort(l.arrives))
		}
		if len(f.movers) == 0 {
			f.daemon.table.Schedule(&f.moves, now.Add(portRest), f.backToPorts)
		}
		f.movers[s] = true
	}
}

// backToPorts has calls of stations that moved taken where those are now.
func (f *fastPath) backToPorts(time.Time) {
	for s := range f.movers {
		for l := range f.stations[s] { // of this generation
			if l.why = f.carry(l); l.why != "" && f.carries(l) {
				f.stop(l)
			}
		}
	}
	clear(f.movers)
}

// stop ends that a direction is carried; what was counted stays.
func (f *fastPath) stop(l *lane) {
	l.carried = 0
	if err := f.path.Put(l.arrives, fastpath.Call{Leaves: l.leaves, Gateway: l.leaves.Dst}); err != nil {
		f.failed(err)
		f.halt(time.Now(), "a call could not be taken from it")
	}
}
