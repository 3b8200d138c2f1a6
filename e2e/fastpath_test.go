package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/raw"
	"pptp-alg/e2e/wire"
)

// The fast path: programs at the devices carry packets of calls. These scenarios need to know whether they do, and have
// it on; with PPTP_ALG_FAST_PATH=on all the others have it on, too.

// fastPathOn says that all scenarios run with the fast path on.
var fastPathOn = os.Getenv(lab.FastPathVariable) == "on"

var fastPathFlags = []string{"--fast-path", "on"}

// withFastPath is withDaemon with the fast path on.
func withFastPath(t *testing.T, p lab.Plan) *world {
	t.Helper()
	return withDaemon(t, p, fastPathFlags...)
}

// paths counts the calls that take the fast path both ways, and says why another one does not.
func (w *world) paths() (fast int, why string) {
	w.Helper()
	for _, c := range w.daemonStatus().Calls {
		if f := c.FastPath; f != nil && f.ToServer && f.ToClient {
			fast++
		} else {
			why = fmt.Sprintf("%+v", f)
		}
	}
	return fast, why
}

// fast talks on all calls that are up until the daemon says that they are carried both ways.
func (w *world) fast(legs ...leg) {
	w.Helper()
	w.carriedAtDevices(len(legs), func() { w.talkLeg(legs...) })
}

// carriedAtDevices does something until so many calls take the fast path.
func (w *world) carriedAtDevices(calls int, do func()) {
	w.Helper()
	w.eventually("calls should take the fast path", func() error {
		do()
		if n, why := w.paths(); n < calls {
			return fmt.Errorf("%d of %d do, another %s", n, calls, why)
		}
		return nil
	})
}

// ordinary waits until no call takes the fast path.
func (w *world) ordinary() {
	w.Helper()
	w.eventually("calls should take the ordinary path", func() error {
		if n, _ := w.paths(); n > 0 {
			return fmt.Errorf("%d take the fast path", n)
		}
		return nil
	})
}

// conntracked sums up what conntrack has counted of GRE.
func (w *world) conntracked() (packets uint64) {
	w.Helper()
	flows, err := w.Router.GRE()
	w.must(err)
	for _, f := range flows {
		packets += f.Packets
	}
	return packets
}

// streams begins to send on calls, both ways.
func streams(legs ...leg) (all []*peer.Traffic) {
	for _, l := range legs {
		all = append(all, l.client.Traffic(2*time.Millisecond, 200), l.server.Traffic(2*time.Millisecond, 200))
	}
	return all
}

// noneLost ends streams of which no packet may have been lost.
func (w *world) noneLost(all []*peer.Traffic) {
	w.Helper()
	for _, s := range all {
		if sent, lost, err := s.Stop(w.ctx); lost != 0 || err != nil || sent == 0 {
			w.Errorf("%d of %d packets lost, %v", lost, sent, err)
		}
	}
}

// fastCalls is withFastPath with a server and a call of each client with the same Call ID, so that all but one are translated.
func fastCalls(t *testing.T, clients int) (w *world, legs []leg) {
	t.Helper()
	w = withFastPath(t, lab.Plan{Clients: clients, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{})
	for i := range clients {
		legs = append(legs, w.up(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(5)}), server), server))
	}
	return w, legs
}

// Calls enter the fast path when GRE of them has passed both ways, conntrack sees no packet of them then, and what both
// paths have carried is what the ends sent.
func TestFastPath(t *testing.T) {
	w, legs := fastCalls(t, 2)
	for _, c := range w.status(2).Calls {
		if f := c.FastPath; f == nil || f.ToServer || f.ToClient || f.Reason == "" {
			t.Errorf("before any GRE: %+v", f)
		}
	}
	// One way is not enough.
	const alone = 3
	for n := range uint64(alone) {
		w.check(legs[0].client.SendGRE(wire.GRE{}), legs[1].client.SendGRE(wire.GRE{}))
		w.eventually("GRE should be counted", func() error {
			for _, c := range w.daemonStatus().Calls {
				if c.PacketsFromClient != n+1 {
					return fmt.Errorf("%d packets", c.PacketsFromClient)
				}
			}
			return nil
		})
		for _, c := range w.daemonStatus().Calls {
			if c.FastPath.ToServer || c.FastPath.ToClient {
				t.Errorf("a call takes the fast path of which one side has sent nothing: %+v", c.FastPath)
			}
		}
	}
	w.fast(legs...)
	before := w.conntracked()
	w.talkLeg(legs...)
	w.check(legs[0].client.Echo(w.ctx, 50, 1400), legs[0].server.Echo(w.ctx, 50, 0))
	if after := w.conntracked(); after != before {
		t.Errorf("conntrack has seen %d packets of calls that take the fast path", after-before)
	}
	w.eventually("status should count what the ends sent", func() error {
		for _, c := range w.daemonStatus().Calls {
			i := 0
			if c.Client.Address == w.Clients[1].Address {
				i = 1
			}
			out, in := legs[i].client.Stats().Sent+alone, legs[i].server.Stats().Sent
			if int(c.PacketsFromClient) != out || int(c.PacketsFromServer) != in {
				return fmt.Errorf("client %d: status counts %d and %d packets, the ends sent %d and %d", i+1, c.PacketsFromClient, c.PacketsFromServer, out, in)
			}
		}
		return nil
	})
	w.hangUp(legs...)
	w.finish()
}

// An orderly restart keeps the count and puts calls back onto the fast path; a kill loses no packet of those that were
// there, and no packet comes twice.
func TestFastPathRestart(t *testing.T) {
	w, legs := fastCalls(t, 2)
	w.fast(legs...)
	w.check(legs[0].client.Echo(w.ctx, 100, 300), legs[1].client.Echo(w.ctx, 100, 300)) // more than conntrack will have counted
	before := w.daemonStatus().Calls
	w.stop()
	w.talkLeg(legs...)
	w.again(quickConfig, fastPathFlags...)
	for _, c := range w.daemonStatus().Calls {
		for _, old := range before {
			if identity(c) == identity(old) && (c.PacketsFromClient < old.PacketsFromClient || c.BytesFromServer < old.BytesFromServer) {
				t.Errorf("%+v was %+v before the restart", c, old)
			}
		}
	}
	w.fast(legs...)
	all := streams(legs...)
	for range 5 {
		w.must(w.daemon.Kill())
		w.again(quickConfig, fastPathFlags...)
		w.carriedAtDevices(len(legs), func() {})
	}
	w.noneLost(all)
	w.hangUp(legs...)
	w.finish()
}

// Calls enter and leave the fast path under traffic, of which nothing is lost.
func TestFastPathInAndOut(t *testing.T) {
	w, legs := fastCalls(t, 2)
	all := streams(legs...)
	for i := range 5 {
		w.carriedAtDevices(len(legs), func() {})
		// Somebody changes something that does not concern the calls.
		name := fmt.Sprintf("other%d", i)
		w.must(w.Router.AddDevice(name), w.Router.AddAddress(name, netip.MustParsePrefix("192.0.2.1/24")))
	}
	w.noneLost(all)
	w.hangUp(legs...)
	w.finish()
}

// A rule that forbids GRE holds at once for calls that passed all rules by, and when it is gone they are back.
func TestFastPathFirewall(t *testing.T) {
	w, legs := fastCalls(t, 2)
	w.fast(legs...)
	w.must(w.forbid())
	w.ordinary()
	for _, l := range legs {
		if l.client.EchoWithin(w.ctx, 300*time.Millisecond, 1, 100) == nil || l.server.EchoWithin(w.ctx, 300*time.Millisecond, 1, 100) == nil {
			t.Error("GRE passes, which the firewall forbids")
		}
	}
	time.Sleep(300 * time.Millisecond) // a generation has begun: what arrives is not what leaves
	if n, _ := w.paths(); n != 0 {
		t.Errorf("%d calls take the fast path past the firewall", n)
	}
	w.must(w.Router.DeleteTable("forbid"))
	w.fast(legs...)
	w.hangUp(legs...)
	w.finish()
}

// forbid adds a table that lets nothing pass through the router.
func (w *world) forbid() error {
	conn, err := w.Router.Nftables()
	if err != nil {
		return err
	}
	policy := nftables.ChainPolicyDrop
	conn.AddChain(&nftables.Chain{Table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "forbid"}), Name: "forward",
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy})
	return conn.Flush()
}

// A route that changes is followed at once, although the old one still exists.
func TestFastPathRoute(t *testing.T) {
	w, station := twoUplinks(t)
	w.start(quickConfig, fastPathFlags...)
	server := w.listen(station, peer.Config{})
	l := w.up(w.dialAndCall(w.client(0, peer.Config{}), server), server)
	w.fast(l)
	for i, c := range []struct{ device, gateway string }{{"two", ispTwo}, {"one", ispOne}} {
		w.must(w.replaceRoute(netip.MustParsePrefix("203.0.113.0/24"), at(c.gateway)))
		w.ordinary()
		other := [...]string{"one", "two"}[i]
		wrong, err := w.Router.CaptureIf(func(p *lab.Packet) bool { return p.Out && p.GRE != nil && p.Src == at(routerOne) }, other)
		w.must(err)
		w.talkLeg(l)
		w.fast(l)
		for _, p := range wrong.Packets() {
			t.Errorf("after the route is by %s: %v", c.device, p)
		}
		w.must(wrong.Close())
	}
	w.hangUp(l)
	w.finish()
}

// replaceRoute has packets to a network go by another next hop.
func (w *world) replaceRoute(to netip.Prefix, via netip.Addr) error {
	return w.Router.Netlink().RouteReplace(&netlink.Route{
		Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)}, Gw: via.AsSlice(),
	})
}

// The Ethernet address of a next hop changes: packets go to the new one, without a detour.
func TestFastPathNeighbour(t *testing.T) {
	w, legs := fastCalls(t, 1)
	w.fast(legs...)
	mac := net.HardwareAddr{2, 0, 0, 0x17, 0x23, 1}
	link, err := w.Servers[0].Netlink().LinkByName("wan")
	w.must(err, w.Servers[0].Netlink().LinkSetHardwareAddr(link, mac))
	wan, err := w.Router.Netlink().LinkByName("wan")
	w.must(err, w.Router.Netlink().NeighSet(&netlink.Neigh{LinkIndex: wan.Attrs().Index, Family: netlink.FAMILY_V4,
		State: netlink.NUD_REACHABLE, IP: w.Servers[0].Address.AsSlice(), HardwareAddr: mac}))
	before := w.conntracked()
	w.talkLeg(legs...)
	if n, why := w.paths(); n != 1 || w.conntracked() != before {
		t.Errorf("the call left the fast path: %s, %d packets by the ordinary one", why, w.conntracked()-before)
	}
	w.hangUp(legs...)
	w.finish()
}

// A device that goes down takes its calls from the fast path, and up again they come back.
func TestFastPathDeviceDown(t *testing.T) {
	w, legs := fastCalls(t, 2)
	w.fast(legs...)
	w.must(w.Router.SetLink("wan", false))
	w.ordinary()
	w.eventually("the fast path should be open for others", func() error {
		if _, why := w.paths(); strings.Contains(why, "have just changed") {
			return errors.New(why)
		}
		return nil
	})
	w.must(w.Router.SetLink("wan", true))
	w.eventually("calls should work again", func() error {
		return errors.Join(legs[0].client.EchoWithin(w.ctx, time.Second, 1, 100), legs[1].server.EchoWithin(w.ctx, time.Second, 1, 100))
	})
	w.fast(legs...)
	w.hangUp(legs...)
	w.finish()
}

// Packets that are not as usual are treated as without the fast path: the sender hears what it is to hear, and those
// that can go on do, translated.
func TestFastPathOddPackets(t *testing.T) {
	var off, on []string
	t.Run("paths", func(t *testing.T) {
		t.Run("off", func(t *testing.T) { off = oddPackets(t, "off") })
		t.Run("on", func(t *testing.T) { on = oddPackets(t, "on") })
	})
	if len(off) == 0 || !slices.Equal(off, on) {
		t.Errorf("without the fast path\n%s\nand with it\n%s", strings.Join(off, "\n"), strings.Join(on, "\n"))
	}
}

// oddPackets says what becomes of odd packets from a client.
func oddPackets(t *testing.T, path string) (became []string) {
	p := rawWorld(t, raw.Options{}, "--fast-path", path)
	w := p.world
	wan, err := w.Router.Netlink().LinkByName("wan")
	w.must(err, w.Router.Netlink().LinkSetMTU(wan, 1400))
	const serverID = 9
	told, serverTold := p.call(crowdedID, serverID)
	carried := func() error {
		p.gre(crowdedID, told, serverID, serverTold)
		if n, why := w.paths(); path == "on" && n != 1 {
			return errors.New(why)
		}
		return nil
	}
	w.eventually("the call should take the fast path", carried)
	arrived, err := w.RawServers[0].CaptureIf(func(p *lab.Packet) bool { return p.Protocol == wire.ProtocolGRE && !p.Out }, "wan")
	w.must(err)
	usual := func(n int) []byte {
		return wire.EncodeGRE(wire.GRE{CallID: serverTold, HasSeq: true, Payload: bytes.Repeat([]byte{0xa5}, n)})
	}
	bits := func(at int, or byte) []byte {
		b := usual(100)
		b[at] |= or
		return b
	}
	nothing := func(*layers.IPv4) {}
	for i, c := range []struct {
		name   string
		gre    []byte
		change func(*layers.IPv4)
		news   bool // by ICMP
	}{
		{"usual", usual(100), nothing, false},
		{"the last hop", usual(100), func(ip *layers.IPv4) { ip.TTL = 1 }, true},
		{"options", usual(100), func(ip *layers.IPv4) {
			ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 1}}
		}, false},
		{"as large as fits", usual(1368), nothing, false},
		{"larger than fits", usual(1369), nothing, true},
		{"larger than fits, and may be fragmented", usual(1369), func(ip *layers.IPv4) { ip.Flags = 0 }, false},
		{"a GRE checksum", bits(0, 0x80), nothing, false},
		{"GRE routing", bits(0, 0x40), nothing, false},
		{"another GRE version", bits(1, 2), nothing, false},
		{"another class of service", usual(100), func(ip *layers.IPv4) { ip.TOS = 0xb9 }, false},
	} {
		heard, before := len(p.client.ICMP()), len(arrived.Packets())
		w.must(p.client.SendOdd(p.server.Address(), c.gre, c.change))
		if c.news {
			w.eventually(c.name+": the client should hear of it", func() error {
				if len(p.client.ICMP()) == heard {
					return errors.New("it does not")
				}
				return nil
			})
		}
		// What is sent last arrives last.
		marker := fmt.Appendf(nil, "marker %d", i)
		w.must(p.client.SendGRE(p.server.Address(), wire.GRE{CallID: serverTold, HasSeq: true, Payload: marker}))
		_, err := arrived.Wait(w.ctx, func(p *lab.Packet) bool { return p.GRE != nil && bytes.Equal(p.GRE.Payload, marker) })
		w.must(err)
		said := c.name
		for _, icmp := range p.client.ICMP()[heard:] {
			said += fmt.Sprintf(", ICMP %v %x", icmp.TypeCode, icmp.Payload[20:28])
		}
		for _, g := range arrived.Packets()[before:] {
			if g.GRE == nil || !bytes.Equal(g.GRE.Payload, marker) {
				said += fmt.Sprintf(", %v > %v %d bytes, fragment %v, %x", g.Src, g.Dst, g.Length, g.Fragment, g.Payload[:min(8, len(g.Payload))])
			}
		}
		became = append(became, said)
	}
	w.eventually("the call should still take the fast path", carried)
	w.must(p.up.from.Reset())
	return became
}
