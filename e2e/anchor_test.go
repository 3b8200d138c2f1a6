package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// The anchor: a conntrack helper that does nothing keeps control connections
// out of flow tables, and away from the kernel's own PPTP helper. (Flow tables
// themselves need a kernel that has them.)

// helpers gives the conntrack helpers of the router's control connections, in
// the order of their clients' addresses.
func (w *world) helpers() []string {
	w.Helper()
	flows, err := w.Router.Conntrack()
	w.must(err)
	var names []string
	for _, c := range w.Clients {
		for _, f := range flows {
			if f.Protocol == unix.IPPROTO_TCP && f.Original.Src == c.Address && f.Original.DstPort == peer.Port {
				names = append(names, f.Helper)
			}
		}
	}
	return names
}

// anchored wants every control connection to have the helper that the status
// names, and says which.
func (w *world) anchored(connections int) string {
	w.Helper()
	anchor := w.daemonStatus().Anchor
	names := w.helpers()
	if len(names) != connections {
		w.Errorf("%d control connections instead of %d: %q", len(names), connections, names)
	}
	for _, name := range names {
		if name != anchor {
			w.Errorf("a control connection has the helper %q, the status says %q", name, anchor)
		}
	}
	return anchor
}

// Two clients with one Call ID, behind masquerading, as usual.
func TestAnchor(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 2, Servers: 1})
	// One that was killed leaves table and helper; the next takes them over.
	before := w.structure()
	w.must(w.daemon.Kill())
	w.start(quickConfig)
	if after := w.structure(); after != before {
		t.Errorf("starting again changed the rules from\n%s\nto\n%s", before, after)
	}
	server := w.server(0, peer.Config{})
	for i := range 2 {
		w.talk(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server), server)
	}
	w.status(2)
	anchor := w.anchored(2)
	if anchor != "pptp-alg" && (anchor != "ftp" || os.Getenv(fullKernel) != "") {
		t.Errorf("the anchor is %q", anchor)
	}
	if !strings.Contains(w.daemon.Log(), "anchor="+anchor) {
		t.Errorf("the log does not say so:\n%s", w.daemon.Log())
	}
	w.finish()
}

// The configuration says which, also while the daemon runs; connections keep
// what they began with.
func TestAnchorReloaded(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 3, Servers: 1})
	w.start(quickConfig, "--log-level", "debug")
	server := w.server(0, peer.Config{})
	want := []string{w.daemonStatus().Anchor}
	for i, anchor := range []string{"", "off", "ftp"} {
		if anchor != "" {
			w.must(w.daemon.WriteConfig("anchor = \""+anchor+"\"\n"+quickConfig), w.daemon.Signal(syscall.SIGHUP))
			said, helper := anchor, anchor
			if anchor == "off" {
				said, helper = "none", ""
			}
			ctx, cancel := context.WithTimeout(w.ctx, patience)
			_, err := w.daemon.WaitStatus(ctx, func(s *lab.Status) error {
				if s.Anchor != said {
					return errors.New("the anchor is still " + s.Anchor)
				}
				return nil
			})
			cancel()
			w.must(err)
			want = append(want, helper)
		}
		w.talk(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server), server)
	}
	got := w.helpers()
	if len(got) > 0 && got[0] == "" && want[0] == "pptp-alg" {
		// The registry of helpers is the machine's. Another scenario's daemon has
		// removed what nobody's rules use any more; the connection still counts as
		// one with a helper.
		got[0] = want[0]
	}
	if strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("helpers %q, want %q", got, want)
	}
	w.status(3)
	w.finish()
}

// Another program gets the first packets of all connections from a queue of its
// own, since before the daemon or after it. A connection with the daemon's own
// helper would lose its masquerading there, so the daemon takes another one.
func TestAnchorBesidesAnotherQueue(t *testing.T) {
	for _, since := range []string{"before", "after"} {
		t.Run(since, func(t *testing.T) {
			w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{lab.QueueNew(7), lab.Masquerade("wan")}})
			if since == "before" {
				w.watchNew(7)
			}
			w.start(quickConfig)
			if since == "after" {
				w.watchNew(7)
				// It looks when rules have changed.
				conn, err := w.Router.Nftables()
				w.must(err)
				other := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "other"})
				w.must(conn.Flush())
				conn.DelTable(other)
				w.must(conn.Flush(), conn.CloseLasting())
			}
			ctx, cancel := context.WithTimeout(w.ctx, 4*patience)
			defer cancel()
			_, err := w.daemon.WaitStatus(ctx, func(s *lab.Status) error {
				if s.Anchor != "ftp" {
					return errors.New("the anchor is " + s.Anchor)
				}
				return nil
			})
			w.must(err)
			server := w.server(0, peer.Config{})
			for i := range 2 {
				w.talk(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server), server)
			}
			w.status(2)
			w.anchored(2)
			w.finish()
		})
	}
}

// watchNew is a program that lets everything pass that comes from a queue.
func (w *world) watchNew(queue uint16) {
	w.Helper()
	watcher, err := nfqueue.Open(&nfqueue.Config{
		NetNS: w.Router.Namespace(), NfQueue: queue, MaxPacketLen: 0xffff, MaxQueueLen: 100, Copymode: nfqueue.NfQnlCopyPacket,
	})
	w.must(err)
	ctx, cancel := context.WithCancel(w.ctx)
	w.Cleanup(func() {
		cancel() // first: closing waits for the listener's goroutine
		_ = watcher.Close()
	})
	w.must(watcher.RegisterWithErrorFunc(ctx, func(a nfqueue.Attribute) int {
		_ = watcher.SetVerdict(*a.PacketID, nfqueue.NfAccept)
		return 0
	}, func(error) int { return 1 }))
}

// lateHelper makes a router whose firewall attaches the kernel's own PPTP helper
// as OpenWrt's does.
func lateHelper(t *testing.T) *world {
	t.Helper()
	w := pairOfClients(t)
	err := w.Router.Firewall(lab.LateKernelHelper(peer.Port), lab.Masquerade("wan"))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		// Also under CI: that it is missing is no fault of ours.
		w.Skipf("this kernel has no PPTP helper (CONFIG_NF_CONNTRACK_PPTP, CONFIG_NF_NAT_PPTP): %v", err)
	}
	w.must(err)
	w.before = w.structure()
	return w
}

// ours counts the router's GRE entries by who made them.
func (w *world) ours() (ours, others int) {
	w.Helper()
	for _, f := range w.gre() {
		if f.Ours() {
			ours++
		} else {
			others++
		}
	}
	return ours, others
}

// With the anchor the kernel's helper gets hold of nothing: calls are
// translated once, by the daemon.
func TestAnchorAgainstKernelHelper(t *testing.T) {
	w := lateHelper(t)
	w.start(quickConfig)
	server := w.server(0, peer.Config{CallID: peer.Counting(50)})
	for i := range 2 {
		w.talk(w.dialAndCall(w.client(i, peer.Config{CallID: peer.Fixed(3)}), server), server)
	}
	if s := w.status(2); s.Counter("connections_pptp_helper") != 0 {
		t.Error("the daemon says that the kernel's helper is attached")
	}
	w.anchored(2)
	if ours, others := w.ours(); ours != 4 || others != 0 {
		t.Errorf("%d entries of ours and %d others for two calls, want 4 and none", ours, others)
	}
	w.finish()
}

// left wants the status to say of this many connections that they are left to
// the kernel, and the log what to do.
func (w *world) left(connections int, fix string) {
	w.Helper()
	s := w.daemonStatus()
	if n := s.Counter("connections_pptp_helper"); n != uint64(connections) {
		w.Errorf("the status counts %d connections with the kernel's helper, want %d", n, connections)
	}
	said := 0
	for _, raw := range s.Connections {
		var c struct{ Unparsed string }
		w.must(json.Unmarshal(raw, &c))
		if strings.Contains(c.Unparsed, "PPTP helper") {
			said++
		}
	}
	if said != connections {
		w.Errorf("the status says of %d connections that they are left to the kernel, want %d", said, connections)
	}
	for _, words := range []string{"kernel's own PPTP helper", "ct helper set", "auto_helper", fix} {
		if !strings.Contains(w.daemon.Log(), words) {
			w.Errorf("the log does not say %q:\n%s", words, w.daemon.Log())
		}
	}
}

// Without the anchor the daemon notices, leaves the connection to the kernel,
// and says what to do. Nothing is translated twice: the call works, as far as
// the kernel's helper can.
func TestKernelHelperWithoutAnchor(t *testing.T) {
	w := lateHelper(t)
	w.start(quickConfig, "--anchor", "off")
	server := w.server(0, peer.Config{CallID: peer.Counting(50)})
	session := w.dial(w.client(0, peer.Config{CallID: peer.Fixed(3)}), server)
	accepted, err := server.Accept(w.ctx)
	w.must(err)
	call := w.call(session)
	w.talk(call, server)
	if got := w.helpers(); len(got) != 1 || got[0] != "pptp" {
		t.Fatalf("helpers %q", got)
	}
	w.left(1, "--anchor auto")
	if ours, others := w.ours(); ours != 0 || others == 0 {
		t.Errorf("%d entries of ours and %d others", ours, others)
	}
	if s := w.status(0); s.Anchor != "none" || len(s.Calls) != 0 {
		t.Errorf("the anchor is %q, and %d calls are listed", s.Anchor, len(s.Calls))
	}
	// Only Call IDs may change between the two ends.
	w.check(call.HangUp(w.ctx), session.Stop(w.ctx))
	<-accepted.Done()
	w.check(peer.CompareStreams(session.Sent(), accepted.Read(), false))
	w.stop()
}

// A connection that began with the kernel's helper, before the daemon came,
// stays with that; a later one is the daemon's.
func TestKernelHelperBefore(t *testing.T) {
	w := lateHelper(t)
	server := w.server(0, peer.Config{CallID: peer.Counting(50)})
	session := w.dial(w.client(0, peer.Config{CallID: peer.Fixed(3)}), server)
	w.start(quickConfig)
	w.talk(w.call(session), server)
	w.left(1, "let the client connect again")
	call := w.dialAndCall(w.client(1, peer.Config{CallID: peer.Fixed(4)}), server)
	w.talk(call, server)
	w.status(1)
	if got := w.helpers(); len(got) != 2 || got[0] != "pptp" || got[1] != w.daemonStatus().Anchor {
		t.Errorf("helpers %q", got)
	}
	w.left(1, "let the client connect again")
	w.stop()
}
