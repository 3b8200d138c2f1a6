package rules

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func benchmarkKernel(b *testing.B) *Kernel {
	inNewNamespace(b)
	k := dial(b)
	must(b, k.Apply(installable(b, k, Config{Queue: 1723, Ports: []uint16{1723}})))
	return k
}

// BenchmarkAdd is the part that the guard has in the setting up of a call: one tuple, in the path of a control message.
func BenchmarkAdd(b *testing.B) {
	k := benchmarkKernel(b)
	i := 0
	for b.Loop() {
		must(b, k.Add(numbered(i)))
		i++
	}
}

func BenchmarkAddAndDelete(b *testing.B) {
	k := benchmarkKernel(b)
	for b.Loop() {
		must(b, k.Add(numbered(1), numbered(2)))
		must(b, k.Delete(numbered(1), numbered(2)))
	}
}

func BenchmarkAdd10000(b *testing.B) {
	k := benchmarkKernel(b)
	var calls []Call
	for i := range 10000 {
		calls = append(calls, numbered(i))
	}
	for b.Loop() {
		must(b, k.Add(calls...))
		b.StopTimer()
		must(b, k.Delete(calls...))
		b.StartTimer()
	}
}

func BenchmarkPresent(b *testing.B) {
	k := benchmarkKernel(b)
	for b.Loop() {
		if ok, err := k.Present(); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkPresentAfterAChange(b *testing.B) {
	k := benchmarkKernel(b)
	for b.Loop() {
		k.verified = 0
		if ok, err := k.Present(); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkApplyUnchanged(b *testing.B) {
	k := benchmarkKernel(b)
	r := *k.applied
	for b.Loop() {
		must(b, k.Apply(r))
	}
}

func BenchmarkCounters(b *testing.B) {
	k := benchmarkKernel(b)
	for b.Loop() {
		_, err := k.Counters()
		must(b, err)
	}
}

// What the table costs a packet: from the wire through conntrack and prerouting, where it ends. Each benchmark has a
// namespace, so none can have parts.
func benchmarkPacket(b *testing.B, table, call bool, packet []byte) {
	r := newRouter(b, Config{Queue: 1723, Ports: []uint16{1723}})
	// Conntrack is on without our table, too: by a rule that sees no packet.
	nft(b, "table ip end { chain end { type filter hook prerouting priority -149; drop; }; chain out { type filter hook output priority filter; ct state invalid drop; }; }", "-f", "-")
	if !table {
		must(b, r.kernel.Remove())
	}
	if call {
		r.track(client, server, 5, netip.Addr{}, established|statusFixedTimeout)
	}
	fd := int(r.inside.Fd())
	for b.Loop() {
		if _, err := unix.Write(fd, packet); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCallPacket(b *testing.B) {
	benchmarkPacket(b, true, true, enhanced(client, server, 5, "x"))
}

func BenchmarkCallPacketWithoutTable(b *testing.B) {
	benchmarkPacket(b, false, true, enhanced(client, server, 5, "x"))
}

func BenchmarkOtherPacket(b *testing.B) {
	benchmarkPacket(b, true, false, segment{src: clientPort, dst: serverPort, flags: "S"}.packet())
}

func BenchmarkOtherPacketWithoutTable(b *testing.B) {
	benchmarkPacket(b, false, false, segment{src: clientPort, dst: serverPort, flags: "S"}.packet())
}
