package e2e

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// What happens while no daemon runs, and what the next one makes of it. Control packets pass untranslated
// meanwhile.

// kill takes the daemon away.
func (w *world) kill() {
	w.Helper()
	w.must(w.daemon.Kill())
}

// stateFile is where the daemon keeps its journal.
func (w *world) stateFile() string { return strings.TrimSuffix(w.daemon.Socket(), ".sock") + ".state" }

// entries counts the conntrack entries of calls that the daemon made.
func (w *world) entries() (n int) {
	w.Helper()
	flows, err := w.Router.GRE()
	w.must(err)
	for _, f := range flows {
		if f.Ours() {
			n++
		}
	}
	return n
}

// The control connection ends while the daemon is away: its calls end, and the other connection's do not.
func TestAwayConnectionEnded(t *testing.T) {
	for name, end := range map[string]func(w *world, l leg){
		"FIN": func(w *world, l leg) {
			l.client.Session().Close()
			<-l.server.Session().Done()
		},
		"RST": func(w *world, l leg) {
			l.client.Session().Abort()
			<-l.server.Session().Done()
		},
		"stopped": func(w *world, l leg) {
			w.check(l.server.Session().Stop(w.ctx))
			<-l.client.Session().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1, Firewall: strict()})
			server, legs := w.pairOfCalls()
			w.kill()
			end(w, legs[0])
			w.again(quickConfig)
			c := w.ended("control connection was closed while the daemon was away", from(w.Clients[0].Address, legs[0].client.ID()))
			// What the fast path had carried of it the killed daemon alone knew.
			if !fastPathOn && (c.PacketsFromClient < 6 || c.PacketsFromServer < 6) {
				t.Errorf("the record counts %d and %d packets", c.PacketsFromClient, c.PacketsFromServer)
			}
			w.eventually("the entries of the call should be gone", func() error {
				if n := w.entries(); n != 2 {
					return fmt.Errorf("there are %d entries of calls instead of 2", n)
				}
				return nil
			})
			w.listed(legs[1])
			w.goOn(server, legs[1:])
		})
	}
}

// One of a connection's calls is hung up while the daemon is away, which has no way to know. It stays until
// the connection ends, and is in nobody's way: not even in that of a call with its Call ID.
func TestAwayCallHungUp(t *testing.T) {
	for name, hangUp := range map[string]func(w *world, l leg){
		"by the client": func(w *world, l leg) { w.check(l.client.HangUp(w.ctx), l.server.WaitEnd(w.ctx)) },
		"by the server": func(w *world, l leg) { w.check(l.server.HangUp(w.ctx), l.client.WaitEnd(w.ctx)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1, Firewall: strict()})
			next := uint16(10)
			server := w.server(0, peer.Config{CallID: peer.Counting(500)})
			client := w.client(0, peer.Config{CallID: func() uint16 { return next }})
			session := w.dial(client, server)
			// The only client keeps its Call IDs: what is said about them is understood untranslated.
			var legs []leg
			for ; next < 13; next++ {
				l := w.up(w.call(session), server)
				if l.server.PeerID() != l.client.ID() {
					t.Fatalf("the Call ID %d became %d", l.client.ID(), l.server.PeerID())
				}
				legs = append(legs, l)
			}
			w.talkLeg(legs...)
			w.kill()
			hangUp(w, legs[0])
			hangUp(w, legs[1])
			w.again(quickConfig)
			w.status(3)
			w.talkLeg(legs[2])
			l := w.up(w.call(session), server)
			w.talkLeg(l, legs[2])
			w.status(4)
			next = 10
			reused := w.up(w.call(session), server)
			w.talkLeg(l, legs[2], reused)
			w.check(session.Stop(w.ctx))
			w.finish()
		})
	}
}

// A connection is opened and a call made while the daemon is away. What works untranslated goes on, and what
// comes later on the connection is translated.
func TestAwayConnectionOpened(t *testing.T) {
	for name, plan := range map[string]lab.Plan{
		"no NAT":     {Clients: 2, Servers: 1, Routed: true, Firewall: []lab.Piece{lab.RestoreMark()}},
		"masquerade": {Clients: 2, Servers: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, plan)
			server := w.server(0, peer.Config{CallID: peer.Counting(500)})
			first := w.up(w.dialAndCall(w.client(0, peer.Config{CallID: peer.Counting(7)}), server), server)
			w.talkLeg(first)
			w.kill()
			client := w.client(1, peer.Config{CallID: peer.Counting(7), Keepalive: 100 * time.Millisecond})
			session := w.dial(client, server)
			untranslated := w.call(session)
			lost := func() (int, int) { return 0, 0 }
			if plan.Routed {
				l := w.up(untranslated, server)
				w.talkLeg(l)
				lost = w.counted(l)
			}
			w.again(quickConfig)
			later := w.up(w.call(session), server)
			w.talkLeg(first, later)
			w.listed(first, later)
			if sent, gone := lost(); gone > 0 {
				t.Errorf("%d of %d packets of the untranslated call were lost", gone, sent)
			}
			w.check(later.client.HangUp(w.ctx), later.server.WaitEnd(w.ctx))
			w.status(1)
			if plan.Routed {
				w.check(untranslated.HangUp(w.ctx)) // what is said about it passes as it is
			}
			w.check(session.Stop(w.ctx))
			w.check(first.client.Session().Stop(w.ctx))
			w.eventually("entries of our calls should be gone", func() error {
				if n := w.entries(); n != 0 {
					return fmt.Errorf("%d are left", n)
				}
				return nil
			})
			w.noFaults()
			w.stop()
		})
	}
}

// Somebody empties conntrack or the rules while the daemon is away.
func TestAwayTakenAway(t *testing.T) {
	for name, take := range map[string]func(w *world) error{
		"conntrack -F":      func(w *world) error { return w.Router.FlushConntrack() },
		"nft flush ruleset": func(w *world) error { return w.Router.FlushRuleset() },
		"both": func(w *world) error {
			if err := w.Router.FlushRuleset(); err != nil {
				return err
			}
			return w.Router.FlushConntrack()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
			server, legs := w.pairOfCalls()
			connections, err := w.connections()
			w.must(err)
			w.daemonStatus() // when it answers, the guard has what the last segment was about
			elements, err := w.Router.Elements(table, guardSet)
			w.must(err)
			w.silent(legs...)
			w.kill()
			w.must(take(w))
			if name != "conntrack -F" {
				w.must(w.Router.Firewall(lab.Masquerade("wan"))) // what is not ours is up to its owner
			}
			w.again(quickConfig)
			w.same(connections, 2*len(legs))
			now, err := w.Router.Elements(table, guardSet)
			w.must(err)
			if len(now) != len(elements) {
				t.Errorf("%d elements of the guard instead of %d", len(now), len(elements))
			}
			_, w.before = split(w.structure())
			w.goOn(server, legs) // the server speaks first
		})
	}
}

// foreign changes the identity in a journal's header, and its checksum.
func foreign(b []byte) []byte {
	const fixed = len("pptp-alg") + 1 + 2
	end := fixed + int(binary.BigEndian.Uint16(b[fixed-2:]))
	b[fixed] ^= 1
	binary.BigEndian.PutUint32(b[end:], crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// The journal is lost in every way. The daemon starts, and says so; calls that are up keep carrying GRE, and
// new calls get none of their Call IDs.
func TestAwayJournalLost(t *testing.T) {
	rewrite := func(path string, edit func([]byte) []byte) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, edit(b), 0o600)
	}
	for name, c := range map[string]struct {
		lose func(path string) error
		says string
		keep bool // it may still know calls
	}{
		"deleted":      {os.Remove, "entries of unknown calls", false},
		"garbage":      {func(p string) error { return rewrite(p, func(b []byte) []byte { clear(b); return b }) }, "the state of the last daemon is damaged", false},
		"empty":        {func(p string) error { return os.Truncate(p, 0) }, "the state of the last daemon is of no use", false},
		"another boot": {func(p string) error { return rewrite(p, foreign) }, "the state of the last daemon is of no use", false},
		"truncated":    {func(p string) error { return rewrite(p, func(b []byte) []byte { return b[:len(b)/2] }) }, "the end of the state file is damaged", true},
		"damaged": {func(p string) error {
			return rewrite(p, func(b []byte) []byte { b[len(b)/2] ^= 0xff; return b })
		}, "the end of the state file is damaged", true},
		"a directory": {func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.MkdirAll(filepath.Join(p, "full"), 0o700)
		}, "not a file", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := withDaemon(t, lab.Plan{Clients: 3, Servers: 1, Firewall: strict()})
			server := w.server(0, peer.Config{CallID: peer.Counting(500)})
			var legs []leg
			for i := range 2 {
				session := w.dial(w.client(i, peer.Config{CallID: peer.Counting(6)}), server)
				legs = append(legs, w.up(w.call(session), server), w.up(w.call(session), server))
			}
			w.talkLeg(legs...)
			lost := w.counted(legs...)
			w.kill()
			w.must(c.lose(w.stateFile()))
			w.again(quickConfig)
			w.waitLog(c.says)
			if _, err := os.Stat(w.stateFile() + ".damaged"); (err == nil) != strings.Contains(c.says, "damaged") {
				t.Errorf("the damaged journal kept: %v", err)
			}
			told := map[uint16]bool{}
			for _, l := range legs {
				told[l.server.PeerID()] = true
			}
			// Both on the old connections and on a new one, with the Call IDs that others have.
			sessions := []*peer.Session{legs[0].client.Session(), legs[2].client.Session(),
				w.dial(w.client(2, peer.Config{CallID: peer.Counting(6)}), server)}
			var fresh []leg
			for _, s := range sessions {
				for range 2 {
					l := w.up(w.call(s), server)
					if told[l.server.PeerID()] {
						t.Errorf("the server was told the Call ID %d again", l.server.PeerID())
					}
					told[l.server.PeerID()] = true
					fresh = append(fresh, l)
				}
			}
			w.talkLeg(fresh...)
			w.talkLeg(legs...)
			if sent, gone := lost(); gone > 0 || sent == 0 {
				t.Errorf("%d of %d packets of the calls were lost", gone, sent)
			}
			if !c.keep {
				w.listed(fresh...)
			}
			for _, l := range fresh {
				w.check(l.client.HangUp(w.ctx), l.server.WaitEnd(w.ctx))
			}
			w.talkLeg(legs...)
			for _, s := range sessions {
				w.check(s.Stop(w.ctx))
			}
			w.noFaults()
			w.status(0)
			if b, err := os.ReadFile(w.stateFile()); name != "a directory" && (err != nil || !strings.HasPrefix(string(b), "pptp-alg")) {
				t.Errorf("no journal is written: %v", err)
			}
			w.stop()
		})
	}
}

// small is the size of a file system that a journal of some calls fits into.
const small = 64 << 10

// smallDisk gives a program that runs the daemon with a small file system of its own at a directory. Mounts
// of others are not touched: the file system is in a mount namespace of the daemon's.
func (w *world) smallDisk(dir string) (wrapper string) {
	w.Helper()
	wrapper = filepath.Join(w.Dir(), "on-a-small-disk")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = run ] || exec %[1]s \"$@\"\n"+
		"exec unshare --mount --propagation private sh -c 'mount -t tmpfs -o size=%d,mode=700 none %s && exec %[1]s \"$@\"' sh \"$@\"\n",
		program(w), small, dir)
	w.must(os.WriteFile(wrapper, []byte(script), 0o700))
	return wrapper
}

// The journal's disk is full, and then read-only, under the running daemon: calls come and go, one warning is
// written, and once there is room again a restart loses nothing.
func TestJournalDiskFull(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Firewall: strict()})
	dir := t.TempDir()
	d, err := w.Router.StartDaemon(lab.DaemonOptions{Program: w.smallDisk(dir), Args: []string{"--state", filepath.Join(dir, "state")}, Config: quickConfig})
	w.must(err)
	w.must(d.Ready(w.ctx))
	w.daemon = d
	server, legs := w.pairOfCalls()
	lost := w.counted(legs...)
	seen := fmt.Sprintf("/proc/%d/root%s/", d.PID(), dir) // the directory as the daemon has it
	if _, err := os.Stat(seen + "state"); err != nil {
		t.Fatal(err)
	}
	const warning, better = "cannot write down the state", "the state is written down again"
	hog, err := os.Create(seen + "hog")
	w.must(err)
	fill := func() {
		for b := make([]byte, 4096); ; {
			if _, err := hog.Write(b); err != nil {
				return
			}
		}
	}
	fill()
	w.eventually("the daemon should notice that the disk is full", func() error {
		for range 20 {
			w.check(legs[0].client.Session().Ping(w.ctx))
		}
		if !strings.Contains(w.daemon.Log(), warning) {
			return fmt.Errorf("it said\n%s", w.daemon.Log())
		}
		return nil
	})
	fill() // with what the journal had
	w.must(hog.Close())
	mount := func(options string) {
		w.Helper()
		out, err := w.Router.Run(w.ctx, "nsenter", "-t", fmt.Sprint(d.PID()), "-m", "mount", "-o", "remount,"+options, dir)
		if err != nil {
			w.Fatal(out, err)
		}
	}
	come := func() {
		w.Helper()
		for range 3 {
			c := w.up(w.call(legs[1].client.Session()), server)
			w.talkLeg(c)
			w.check(c.client.HangUp(w.ctx), c.server.WaitEnd(w.ctx))
			time.Sleep(500 * time.Millisecond) // it tries again after a second
		}
	}
	come()
	w.eventually("the file system should become read-only", func() error {
		out, err := w.Router.Run(w.ctx, "nsenter", "-t", fmt.Sprint(d.PID()), "-m", "mount", "-o", "remount,ro", dir)
		if err != nil {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	})
	come()
	if n, m := strings.Count(d.Log(), warning), strings.Count(d.Log(), better); n > m+1 || n > 3 {
		t.Errorf("%d warnings:\n%s", n, d.Log())
	}
	mount("rw")
	w.must(os.Remove(seen + "hog"))
	w.eventually("the state should be written down again", func() error {
		w.check(legs[0].server.Session().Ping(w.ctx))
		if n, m := strings.Count(d.Log(), warning), strings.Count(d.Log(), better); n != m {
			return fmt.Errorf("%d warnings, and %d times that it is better", n, m)
		}
		return nil
	})
	before := w.status(len(legs))
	// The file system goes with the daemon: its file is for the next one in the ordinary place.
	journal, err := os.ReadFile(seen + "state")
	w.must(err)
	w.kill()
	w.must(os.WriteFile(w.stateFile(), journal, 0o600))
	w.again(quickConfig)
	w.sameCalls(before, w.status(len(legs)))
	if sent, gone := lost(); gone > 0 || sent == 0 {
		t.Errorf("%d of %d packets of the calls were lost", gone, sent)
	}
	w.goOn(server, legs)
}

// The public address is removed while the daemon is away.
func TestAwayAddressRemoved(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	w.must(w.Router.Sysctl("net.ipv4.conf.wan.promote_secondaries", "1"))
	w.must(w.Router.AddAddress("wan", onWAN(wanNew)))
	server, legs := w.pairOfCalls()
	lost := w.counted(legs...)
	w.kill()
	w.must(w.Router.DeleteAddress("wan", onWAN(lab.WANRouter)))
	w.again(quickConfig)
	check := w.nothingFrom(lab.WANRouter, true)
	for _, l := range legs {
		w.ended(fmt.Sprintf("public address %v was removed from this router", lab.WANRouter), from(l.client.Session().Local().Addr(), l.client.ID()))
	}
	check()
	lost()
	for _, l := range legs {
		l.client.Session().Abort()
		l.server.Session().Abort()
	}
	server.Forgive(func(fault string) bool { return strings.HasPrefix(fault, "GRE from ") })
	again := w.up(w.dialAndCall(w.nodes[1], server), server)
	if again.server.Remote() != wanNew {
		t.Errorf("the new call comes from %v", again.server.Remote())
	}
	w.goOn(server, []leg{again})
}

// The public address is removed while the daemon is away, and comes back after it: the calls go on.
func TestAwayAddressComesBack(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	server, legs := w.pairOfCalls()
	connections, err := w.connections()
	w.must(err)
	w.kill()
	w.must(w.Router.DeleteAddress("wan", onWAN(lab.WANRouter)))
	w.again(quickConfig)
	w.waitLog("an address was removed from this router")
	w.must(w.Router.AddAddress("wan", onWAN(lab.WANRouter)))
	w.same(connections, 2*len(legs))
	w.goOn(server, legs)
}

// Calls are translated to an address that no interface has. That it is not there means nothing.
func TestAwayAddressOfAPool(t *testing.T) {
	pool := netip.MustParseAddr("198.18.7.7")
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{lab.SNAT("wan", pool, pool)}})
	w.must(w.Servers[0].Route(netip.PrefixFrom(pool, 32), lab.WANRouter))
	w.start(quickConfig)
	server, legs := w.pairOfCalls()
	if legs[0].server.Remote() != pool {
		t.Fatalf("the calls come from %v", legs[0].server.Remote())
	}
	lost := w.counted(legs...)
	w.kill()
	w.again(quickConfig)
	time.Sleep(2500 * time.Millisecond) // more than an address is waited for
	if sent, gone := lost(); gone > 0 || sent == 0 {
		t.Errorf("%d of %d packets were lost", gone, sent)
	}
	w.goOn(server, legs)
}
