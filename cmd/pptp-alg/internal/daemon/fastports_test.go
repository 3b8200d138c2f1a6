//go:build !nofastpath

package daemon

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/cmd/pptp-alg/internal/ways"
	"pptp-alg/nat"
)

// behindBridge gives the router's namespace a bridge "inside" with a port, where station is, and an uplink, and begins a generation.
func behindBridge(t *testing.T, f *fastPath) (station ways.Station, wan int) {
	t.Helper()
	for _, c := range []string{
		"ip link add inside type bridge", "ip link add port type veth peer name client", "ip link set port master inside",
		"ip link add wan type veth peer name isp", "ip link set inside up", "ip link set port up", "ip link set client up", "ip link set wan up",
		"ip link set isp up", "ip addr add 10.77.0.1/16 dev inside", "ip addr add 198.18.1.1/24 dev wan", "ip route add default via 198.18.1.254",
		"ip neigh replace 198.18.1.254 lladdr 02:00:00:00:01:01 dev wan", "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0",
		"sysctl -qw net.ipv4.conf.inside.rp_filter=0", "sysctl -qw net.ipv4.conf.wan.rp_filter=0",
	} {
		command(t, c)
	}
	if out, err := exec.Command("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0").CombinedOutput(); err != nil {
		t.Logf("no br_netfilter: %s", out)
	}
	station = ways.Station{Bridge: deviceIndex(t, "inside"), Address: [6]byte{2, 0, 0, 0, 0, 0x99}}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a bridge gets its carrier a moment after its port
		if err := exec.Command("bridge", "fdb", "replace", "02:00:00:00:00:99", "dev", "port", "master", "dynamic").Run(); err == nil && f.ways.Arrives(station.Bridge) == nil {
			break
		}
		f.halt(time.Now(), "the test's devices")
		settled(f.ways.Changes())
		if time.Now().After(end) {
			t.Fatalf("the bridge does not come up: %v", f.ways.Arrives(station.Bridge))
		}
	}
	settled(f.ways.Changes())
	settled(f.ways.Moved())
	f.halt(time.Now(), "the test's devices")
	f.begin(time.Now())
	f.counters.halts = 0
	return station, deviceIndex(t, "wan")
}

// settled waits until no news come any more.
func settled(news <-chan struct{}) {
	for {
		select {
		case <-news:
		case <-time.After(200 * time.Millisecond):
			return
		}
	}
}

func command(t *testing.T, c string) {
	t.Helper()
	words := strings.Fields(c)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", c, err, out)
	}
}

func deviceIndex(t *testing.T, name string) int {
	t.Helper()
	device, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return device.Index
}

// lanesOf are so many directions that a station sends, which were seen.
func lanesOf(f *fastPath, s ways.Station, wan, n int) (all []*lane) {
	var other lane
	other.sight = fastpath.Sight{Generation: f.generation, Link: s.Bridge, Next: s.Address}
	for i := range n {
		l := &lane{
			arrives: fastpath.Tuple{Src: netip.AddrFrom4([4]byte{10, 77, byte(1 + i>>8), byte(i)}), Dst: netip.MustParseAddr("203.0.113.1"), CallID: uint16(i)},
			leaves:  fastpath.Tuple{Src: netip.MustParseAddr("198.18.1.1"), Dst: netip.MustParseAddr("203.0.113.1"), CallID: uint16(i)},
			sight:   fastpath.Sight{Generation: f.generation, Arrived: s.Bridge, Link: wan, Next: [6]byte{2, 0, 0, 0, 1, 1}},
			awaited: true,
		}
		f.stationOf(l, &other)
		l.why = f.carry(l, true)
		all = append(all, l)
	}
	return all
}

// carriedAt counts the directions that are taken at a port, and behind the bridge only.
func carriedAt(t *testing.T, f *fastPath, all []*lane, port int) (there, behind int) {
	t.Helper()
	for _, l := range all {
		switch {
		case !f.carries(l):
			t.Fatalf("%v is not carried: %s", l.arrives, l.why)
		case l.taken == entrance{l.station.Bridge, port}:
			there++
		case l.taken == entrance{l.station.Bridge, 0}:
			behind++
		}
	}
	return there, behind
}

// All calls of a station that moved are taken behind the bridge at once, and at ports again after a rest, some at a time. Who moves
// again soon has to rest for longer.
func TestStationMoves(t *testing.T) {
	withFastPath(t, func(f *fastPath, _ *nat.Mapping) {
		s, wan := behindBridge(t, f)
		port := deviceIndex(t, "port")
		const n = 2*lanesAtOnce + 10
		all := lanesOf(f, s, wan, n)
		if there, _ := carriedAt(t, f, all, port); there != n {
			t.Fatalf("%d of %d are taken at the port: %s", there, n, all[0].why)
		}
		now := time.Now()
		for i, rest := range []time.Duration{portRest, 2 * portRest, 4 * portRest} {
			command(t, "bridge fdb del 02:00:00:00:00:99 dev port master")
			command(t, "bridge fdb replace 02:00:00:00:00:99 dev port master dynamic")
			settled(f.ways.Moved()) // the loop has heard of it
			// As if the loop had not been told yet: the news were read above.
			f.stationsMoved(now)
			if there, behind := carriedAt(t, f, all, port); there != 0 || behind != n {
				t.Errorf("move %d: at once %d are taken at the port still, %d behind the bridge", i+1, there, behind)
			}
			if m := f.movers[s]; m == nil || m.rest != rest || !m.due.Equal(now.Add(rest)) {
				t.Errorf("move %d: it rests %+v, not %v", i+1, m, rest)
			}
			f.backToPorts(now.Add(rest - time.Millisecond))
			if there, _ := carriedAt(t, f, all, port); there != 0 {
				t.Errorf("move %d: %d are taken at the port before the rest is over", i+1, there)
			}
			for turn := 1; turn <= 3; turn++ {
				f.backToPorts(now.Add(rest))
				if there, _ := carriedAt(t, f, all, port); there != min(turn*lanesAtOnce, n) {
					t.Errorf("move %d, turn %d: %d are taken at the port", i+1, turn, there)
				}
			}
			now = now.Add(rest + time.Second)
		}
		if f.counters.halts != 0 {
			t.Errorf("closed %d times", f.counters.halts)
		}
	})
}

// A direction that is closed is nobody's any more, whoever its station was meanwhile.
func TestClosedHasNoStation(t *testing.T) {
	withFastPath(t, func(f *fastPath, m *nat.Mapping) {
		s, wan := behindBridge(t, f)
		l := f.lanes[m]
		l.sight = fastpath.Sight{Generation: f.generation, Arrived: s.Bridge, Link: wan}
		var other lane
		for last := range byte(3) {
			other.sight = fastpath.Sight{Link: s.Bridge, Next: [6]byte{2, 0, 0, 0, 0, last}}
			f.stationOf(l, &other)
			if len(f.stations) != 1 || !f.stations[l.station][l] {
				t.Errorf("%d stations: %v", len(f.stations), f.stations)
			}
		}
		other.sight.Link = wan // it comes from elsewhere than the other direction goes to
		f.stationOf(l, &other)
		if len(f.stations) != 0 || l.station != (ways.Station{}) {
			t.Errorf("%v is the station", l.station)
		}
		other.sight.Link = s.Bridge
		f.stationOf(l, &other)
		f.closed(m)
		if len(f.stations) != 0 || !l.gone {
			t.Errorf("closed, it is one of %v", f.stations)
		}
	})
}

// With ebtables in the kernel nothing is taken at ports, and nothing else comes of it. Where they come later, everything is closed once.
func TestEbtablesInTheKernel(t *testing.T) {
	defer func(was func() error) { ebtables = was }(ebtables)
	for _, later := range []bool{false, true} {
		has := !later
		ebtables = func() error {
			if has {
				return &ways.Unsafe{Reason: "ebtables"}
			}
			return nil
		}
		withFastPath(t, func(f *fastPath, m *nat.Mapping) {
			s, wan := behindBridge(t, f)
			l := lanesOf(f, s, wan, 1)[0]
			f.lanes[m].carried = f.generation // a direction is carried, so that there is a look
			if there, behind := carriedAt(t, f, []*lane{l}, deviceIndex(t, "port")); there+behind != 1 || (there == 1) != later {
				t.Errorf("later %v: %d at the port, %d behind the bridge", later, there, behind)
			}
			has = true
			for range 3 {
				f.secondLook(time.Now().Add(-2 * unannounced))
				f.daemon.table.ExpireSome(time.Now(), 10)
			}
			if want := map[bool]uint64{true: 1}[later]; f.counters.halts != want {
				t.Errorf("later %v: closed %d times", later, f.counters.halts)
			}
		})
	}
}

// Where the firewall looks at the ports of a bridge, a call that comes by another one is seen anew before it is carried there.
func TestAnotherPortPastTheFirewall(t *testing.T) {
	withFastPath(t, func(f *fastPath, m *nat.Mapping) {
		s, wan := behindBridge(t, f)
		l := lanesOf(f, s, wan, 1)[0]
		awaited := f.awaited
		for _, c := range []struct {
			was, is entrance
			fresh   bool
			differs bool
		}{
			{entrance{s.Bridge, 5}, entrance{s.Bridge, 6}, false, false}, // the firewall is behind the bridge
			{entrance{0, 5}, entrance{0, 5}, false, false},
			{entrance{}, entrance{0, 5}, false, true}, // by which it came is not known
			{entrance{}, entrance{0, 5}, true, false}, // by this one, a moment ago
			{entrance{0, 5}, entrance{0, 6}, false, true},
			{entrance{0, 5}, entrance{0, 6}, true, true},
		} {
			l.passed = 0
			if l.comes(c.was); f.elsewhere(l, c.is, c.fresh) != c.differs {
				t.Errorf("from %+v to %+v: not %v", c.was, c.is, c.differs)
			}
		}
		why := f.seeAgain(l)
		if f.carries(l) || f.hasSeen(l) || l.passed != 0 || f.awaited != awaited+1 || why == "" {
			t.Errorf("carried %v, seen %v, %d awaited, %q", f.carries(l), f.hasSeen(l), f.awaited, why)
		}
	})
}

// Where the firewall looks at the ports of a bridge, calls of a station that the bridge has forgotten take the ordinary path until it
// knows again where that is.
func TestForgottenStationPastTheFirewall(t *testing.T) {
	withFastPath(t, func(f *fastPath, m *nat.Mapping) {
		s, wan := behindBridge(t, f)
		if out, err := exec.Command("ip", "link", "set", "inside", "type", "bridge", "nf_call_iptables", "1").CombinedOutput(); err != nil {
			t.Logf("this kernel has no br_netfilter: %s", out)
			return
		}
		settled(f.ways.Changes())
		f.halt(time.Now(), "the test's devices")
		f.begin(time.Now())
		l, port, now := lanesOf(f, s, wan, 1)[0], deviceIndex(t, "port"), time.Now()
		if want := (entrance{0, port}); !f.carries(l) || l.taken != want {
			t.Fatalf("taken at %+v, not at the port alone: %s", l.taken, l.why)
		}
		moves := func(what, c string) {
			command(t, c)
			settled(f.ways.Moved())
			f.stationsMoved(now)
			if l.taken != (entrance{}) {
				t.Errorf("%s: taken at %+v", what, l.taken)
			}
			now = now.Add(f.movers[s].rest)
			f.backToPorts(now)
		}
		moves("forgotten", "bridge fdb del 02:00:00:00:00:99 dev port master")
		if f.carries(l) || !strings.Contains(l.why, "does not know at which port") || !strings.Contains(l.why, "bridge-nf-call-iptables") {
			t.Errorf("carried %v, %q", f.carries(l), l.why)
		}
		moves("learned", "bridge fdb replace 02:00:00:00:00:99 dev port master dynamic")
		if want := (entrance{0, port}); !f.carries(l) || l.taken != want || l.why != "" {
			t.Errorf("taken at %+v, %q", l.taken, l.why)
		}
	})
}
