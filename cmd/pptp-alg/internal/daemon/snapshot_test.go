package daemon

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// yes is a data plane that opens everything.
type yes struct{}

func (yes) Open(*nat.Mapping) error  { return nil }
func (yes) Renew(*nat.Mapping) error { return nil }
func (yes) Close(*nat.Mapping)       {}
func (yes) Free(*nat.Mapping)        {}

// crowd makes an owner's state with so many calls, each on a connection of its own;
// every tenth one half open.
func crowd(tb testing.TB, calls int) *daemon {
	tb.Helper()
	c := config.Default()
	d := &daemon{config: c}
	d.table = nat.NewTable(tableConfig(c, nil), yes{}, rand.New(rand.NewPCG(1, 2)))
	d.alg = alg.New(alg.Config{Decide: func(*alg.Segment, alg.Verdict) {}}, d.table)
	now := time.Now()
	server := netip.MustParseAddr("203.0.113.9")
	for n := range calls {
		client := netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
		f := alg.Flow{Client: netip.AddrPortFrom(client, 40000), Server: netip.AddrPortFrom(server, 1723)}
		conn, err := d.alg.Open(now, f, nat.Path{Hosts: [2]nat.Host{{Real: client, Told: netip.MustParseAddr("192.0.2.1")}, {Real: server, Told: server}}})
		if err != nil {
			tb.Fatal(err)
		}
		conn.Note = &note{ends: [2]end{{f.Client, f.Client}, {f.Server, f.Server}}}
		call := conn.Calls().Request(now, nat.Client, nat.Outgoing, 7, nil)
		if n%10 == 0 {
			continue
		}
		m, err := conn.Calls().Announce(now, nat.Server, uint16(n), nil)
		if err != nil {
			tb.Fatal(err)
		}
		conn.Calls().Answer(now, call, m)
	}
	return d
}

// What is made of a snapshot is what would be made of the calls themselves, also
// when they have changed since.
func TestSnapshot(t *testing.T) {
	d := crowd(t, 50)
	var flows = map[conntrack.GRE]conntrack.Stored{}
	d.table.Mappings(func(m *nat.Mapping) {
		flows[gre(m.Arrives())] = conntrack.Stored{Accounted: true, Counters: conntrack.Counters{Packets: uint64(m.Told), Bytes: 100}}
	})
	s := d.snapshotCalls()
	direct := map[uint64]any{}
	d.table.Calls(func(c *nat.Call) {
		direct[c.ID] = d.call(s.taken, c, func(m *nat.Mapping) (_, _ *uint64) { return traffic(m, flows) })
	})
	d.alg.Connections(func(c *alg.Connection) { c.Close(time.Now(), "over") })
	d.table.Expire(time.Now().Add(time.Hour))
	got := s.describe(flows)
	if len(got.Calls) != 50 || len(got.Connections) != 50 {
		t.Fatalf("%d calls, %d connections", len(got.Calls), len(got.Connections))
	}
	counted := 0
	for _, c := range got.Calls {
		if !reflect.DeepEqual(any(c), direct[c.ID]) {
			t.Errorf("call %d:\n%+v\nwant\n%+v", c.ID, c, direct[c.ID])
		}
		if c.PacketsFromServer != nil && *c.PacketsFromServer > 0 {
			counted++
		}
	}
	if counted != 50 {
		t.Errorf("%d of 50 calls have counters", counted)
	}
}

// BenchmarkOwner is how long the owner is away for a status of 20,000 calls.
func BenchmarkOwner(b *testing.B) {
	d := crowd(b, 20000)
	for b.Loop() {
		d.snapshotCalls()
	}
}

// BenchmarkDescribe is what happens then elsewhere, without the kernel's part.
func BenchmarkDescribe(b *testing.B) {
	d := crowd(b, 20000)
	for b.Loop() {
		s := d.snapshotCalls()
		if _, err := json.Marshal(s.describe(nil)); err != nil {
			b.Fatal(err)
		}
	}
}
