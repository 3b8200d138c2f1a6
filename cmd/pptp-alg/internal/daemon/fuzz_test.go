package daemon

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/config"
	"pptp-alg/nat"
)

// A journal's records one behind the other: length of the key, key, length of the value (big-endian), value.

func appendRecord(b, key, value []byte) []byte {
	b = append(append(b, byte(len(key))), key...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(value))), value...)
}

func eachRecord(b []byte, each func(key, value []byte)) {
	for len(b) > 0 {
		n := int(b[0])
		if len(b) < 1+n+2 {
			return
		}
		key, rest := b[1:1+n], b[1+n:]
		size := int(binary.BigEndian.Uint16(rest))
		if len(rest) < 2+size {
			return
		}
		each(key, rest[2:2+size:2+size])
		b = rest[2+size:]
	}
}

// reader is a daemon at its start, which reads a journal.
func reader(now, boot time.Time) *takeover {
	c := config.Default()
	d := &daemon{config: c, log: slog.New(slog.DiscardHandler), volumes: map[string]*volume{}}
	d.journal = newJournal(d.log)
	d.table = nat.NewTable(tableConfig(c, nil), yes{}, rand.New(rand.NewPCG(1, 2)))
	d.alg = alg.New(alg.Config{Decide: func(*alg.Segment, alg.Verdict) {}}, d.table)
	d.journal.table, d.journal.alg, d.journal.ours = d.table, d.alg, func(netip.Addr) bool { return true }
	return &takeover{
		daemon: d, now: now, boot: boot,
		entries: map[place]found{}, known: map[uint64]*nat.Connection{},
	}
}

// written is a record of each kind, with everything in it.
func written(boot time.Time) (b []byte) {
	client, public, server := netip.MustParseAddr("192.168.1.2"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.9")
	path := nat.Path{Hosts: [2]nat.Host{{Real: client, Told: public}, {Real: server, Told: server}}, Zone: nat.Zone{ID: 3}, Mark: 7}
	due := boot.Add(time.Hour)
	put := func(key []byte, encode func(*coder)) {
		c := &coder{boot: boot}
		encode(c)
		b = appendRecord(b, key, c.b)
	}
	put([]byte{keyNumbers}, func(c *coder) { c.numbers(&numbers{9, 5}) })
	for side, ids := range [...][2]uint16{nat.Client: {7, 1007}, nat.Server: {8, 1008}} {
		m := nat.MappingRecord{Path: path, Side: nat.Side(side), Real: ids[0], Told: ids[1], Twin: ids[1], Due: due}
		put(placeAt(arrives(m), zoneOf(m)).key(), func(c *coder) { c.mapping(&m) })
	}
	up := callState{connection: 5}
	up.ID, up.State, up.Since, up.Up = 4, nat.Established, boot.Add(time.Minute), boot.Add(2*time.Minute)
	up.Ends[nat.Client] = nat.EndRecord{There: true, HeldRecord: nat.HeldRecord{Real: 7, Told: 1007}}
	up.Ends[nat.Server] = nat.EndRecord{There: true, HeldRecord: nat.HeldRecord{Real: 8, Told: 1008}}
	put(numberKey(keyCall, 4), func(c *coder) { c.call(&up) })
	refused := callState{connection: 5}
	refused.ID, refused.Refused, refused.Since, refused.Reason = 6, true, boot.Add(time.Minute), "limit reached"
	refused.Ends[nat.Client] = nat.EndRecord{There: true, HeldRecord: nat.HeldRecord{Real: 9, Told: 77, Spare: true}}
	put(numberKey(keyCall, 6), func(c *coder) { c.call(&refused) })
	conn := connectionState{local: 2}
	conn.ID, conn.Path, conn.State, conn.Since = 5, path, alg.Established, boot.Add(time.Second)
	conn.Flow = alg.Flow{Client: netip.AddrPortFrom(client, 40000), Server: netip.AddrPortFrom(server, 1723), Zone: path.Zone}
	conn.told = [2]netip.AddrPort{netip.AddrPortFrom(public, 50000), conn.Flow.Server}
	conn.Opened, conn.Known = [2]uint32{100, 200}, [2]bool{true, true}
	conn.Streams = [2]alg.StreamRecord{
		{Started: true, Next: 500, Edge: 480, Marks: []alg.Mark{{Seq: 490, Byte: 3}}, Fin: true, FinSeq: 600},
		{Started: true, Next: 700, Edge: 700, Forgot: true, Floor: 650, Partial: &alg.PartialRecord{
			Head: []byte{0, 168, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 7, 0, 0, 0, 9}, N: 14, Size: 168, Typed: true,
			Own: alg.FieldRecord{Value: 9, High: 1, Held: &nat.HeldRecord{Real: 9, Told: 99}},
		}},
	}
	put(numberKey(keyConnection, 5), func(c *coder) { c.connection(&conn) })
	return b
}

// Records of any kind, as a journal would have them: what is taken from one is written
// the same again; what a restart makes of them, the next one makes of its journal; and
// when all connections have ended nothing is left of them, and every Call ID is free.
func FuzzRecords(f *testing.F) {
	boot := time.Unix(1e9, 0)
	now := boot.Add(10 * time.Minute)
	all := written(boot)
	f.Add(all)
	f.Add(append(bytes.Clone(all), all...))
	eachRecord(all, func(key, value []byte) { f.Add(appendRecord(nil, key, value)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		first := reader(now, boot)
		eachRecord(b, first.take)
		if !bytes.Equal(b, before) {
			t.Fatal("the records were changed")
		}
		sameAgain(t, first)
		first.fill()
		first.restoreStreams()
		first.table.Sweep()

		second := reader(now, boot)
		first.journal.all(boot, func(key, value []byte) { second.take(key, bytes.Clone(value)) })
		if second.refused > 0 {
			t.Fatalf("%d records of a daemon cannot be read by the next", second.refused)
		}
		second.fill()
		second.restoreStreams()
		second.table.Sweep()
		if second.refused > 0 {
			t.Fatalf("%d records of a daemon are impossible to the next", second.refused)
		}
		// What was passed over took others with it, which end: a connection that has no
		// record any more is not restored for the sake of the calls that it had.
		if first.refused == 0 && count(first) != count(second) {
			t.Fatalf("the second restart has %+v, after %+v", count(second), count(first))
		}
		for _, d := range []*takeover{first, second} {
			s := d.snapshotCalls()
			s.describe(nil)
			d.alg.Connections(func(c *alg.Connection) { c.Close(now, "over") })
			// What is left is renewed for ever.
			for range 1000 {
				if at, more := d.table.Next(); more {
					d.table.Expire(at)
				}
			}
			if left := count(d); left != (held{}) {
				t.Fatalf("left at the end: %+v", left)
			}
		}
	})
}

// held is what a daemon has.
type held struct{ live, kept, mappings, connections, open, clients int }

func count(t *takeover) held {
	table := reflect.ValueOf(t.table).Elem()
	h := held{live: t.table.Len(), connections: t.alg.Len(), open: table.FieldByName("connections").Len(), clients: table.FieldByName("perClient").Len()}
	t.table.Kept(func(*nat.Call) { h.kept++ })
	t.table.Mappings(func(*nat.Mapping) { h.mappings++ })
	return h
}

// sameAgain checks that what was read is read again when it is written.
func sameAgain(t *testing.T, from *takeover) {
	again := reader(from.now, from.boot)
	c := &coder{boot: from.boot}
	put := func(kind byte) {
		again.take([]byte{kind}, c.b)
		c.b = nil
	}
	c.numbers(&from.last)
	put(keyNumbers)
	for i := range from.mappings {
		c.mapping(&from.mappings[i])
		put(keyMapping)
	}
	for i := range from.calls {
		c.call(&from.calls[i])
		put(keyCall)
	}
	for i := range from.connections {
		c.connection(&from.connections[i])
		put(keyConnection)
	}
	if again.last != from.last || !reflect.DeepEqual(again.mappings, from.mappings) ||
		!reflect.DeepEqual(again.calls, from.calls) || !reflect.DeepEqual(again.connections, from.connections) {
		t.Fatalf("read %+v\n%+v\n%+v\nthen %+v\n%+v\n%+v", from.mappings, from.calls, from.connections, again.mappings, again.calls, again.connections)
	}
}
