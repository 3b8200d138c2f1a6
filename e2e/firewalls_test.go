package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pptp-alg/e2e/firewall"
	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// Beside other people's firewalls, the real programs: set up as their manuals have it for a router with two networks, the
// control port closed at first. `pptp-alg check` says so, and with which command of that firewall to open it. Then
// two clients with one Call ID are at one server, and a client from outside at a server inside, through reload, restart and
// stop of the firewall.
func TestFirewalls(t *testing.T) {
	for _, f := range []struct {
		name string
		fix  string // what the command of check begins with
		// The kernel's own PPTP helper is attached, which can do one call by itself.
		helper bool
	}{
		{"iptables", "iptables -I FORWARD -o wan ", false},
		{"iptables-legacy", "iptables-legacy -I FORWARD -o wan ", false},
		{"fw4", "", false},
		{"ufw", "ufw route allow out on wan ", false},
		{"firewalld", "firewall-cmd ", false},
		{"shorewall", "", true},
		{"docker", "iptables -I DOCKER-USER -o wan ", false},
	} {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t, lab.Plan{Clients: 3, Servers: 2, Firewall: []lab.Piece{}})
			w.must(w.Router.Route(netip.Prefix{}, w.Servers[0].Address)) // check finds the uplink by it
			inside := w.room()
			w.firewall(inside, f.name, "start")
			server := w.server(0, peer.Config{CallID: peer.Counting(0)})
			insider := w.listen(w.Clients[2], peer.Config{CallID: peer.Counting(0)})
			w.start(quickConfig)

			if f.fix != "" { // nothing is let out yet
				w.opens(inside, f.fix)
			}
			w.well()
			w.firewall(inside, f.name, "forward", insider.Address().String())
			clients := []*peer.Node{w.client(0, peer.Config{CallID: peer.Counting(crowdedID)}), w.client(1, peer.Config{CallID: peer.Counting(crowdedID)})}
			outsider := w.node(w.Servers[1], peer.Config{CallID: peer.Counting(crowdedID)})
			dial := func() (legs []leg) {
				w.guarded()
				for _, c := range clients {
					legs = append(legs, w.up(w.dialAndCall(c, server), server))
				}
				legs = append(legs, w.up(w.call(w.dialTo(outsider, public(lab.WANRouter))), insider))
				w.talkLeg(legs...)
				w.listed(legs...)
				return legs
			}
			if !f.helper {
				w.aloneInVain(server)
			}
			actions := []string{"reload", "restart"}
			if testing.Short() {
				actions = actions[1:]
			}
			for _, action := range actions {
				legs := dial()
				w.firewall(inside, f.name, action)
				w.guarded()
				w.talkLeg(legs...)
				w.hangUp(legs...)
				w.hangUp(dial()...)
			}
			legs := dial()
			w.firewall(inside, f.name, "stop")
			w.guarded()
			w.talkLeg(legs...)
			w.firewall(inside, f.name, "start")
			w.guarded()
			w.talkLeg(legs...)
			w.hangUp(legs...)
			w.hangUp(dial()...)
			w.drain()
			ctx, cancel := context.WithTimeout(w.ctx, patience)
			defer cancel()
			w.must(w.daemon.Stop(ctx))
			if tables, err := w.Router.Tables(); err != nil || slices.Contains(tables, "ip "+table) {
				w.Errorf("the daemon's table should go with it: %q, %v", tables, err)
			}
		})
	}
}

// room makes the file system in which the firewalls' programs run on the router.
func (w *world) room() *firewall.Room {
	w.Helper()
	r, err := firewall.Open(w.Router)
	if err != nil && os.Getenv("CI") == "" {
		w.Skip(err)
	}
	w.must(err)
	return r
}

func (w *world) firewall(r *firewall.Room, name, action string, args ...string) {
	w.Helper()
	w.must(r.Do(w.ctx, name, action, args...))
}

// guarded waits until the daemon's table is there, which a firewall may have taken away.
func (w *world) guarded() {
	w.Helper()
	w.eventually("the daemon's table should be back", func() error {
		tables, err := w.Router.Tables()
		if err == nil && !slices.Contains(tables, "ip "+table) {
			err = fmt.Errorf("there are %q", tables)
		}
		return err
	})
}

// opens has check find that the control port is closed, and does what it says. It says the same of what is established where
// the firewall accepts that for containers alone, say.
func (w *world) opens(r *firewall.Room, command string) {
	w.Helper()
	const name = "a new control connection"
	report, _ := w.report("--socket", w.daemon.Socket())
	f := report.find(name)
	if f.Level != "fail" || f.Fix == nil || !strings.HasPrefix(f.Fix.Debian, command) {
		w.Fatalf("check says of %s: %+v, fix %+v; want a failure and %q", name, f, f.Fix, command)
	}
	done := map[string]bool{}
	for _, f := range report.Findings {
		if f.Level != "fail" || f.Fix == nil || done[f.Fix.Debian] {
			continue
		}
		done[f.Fix.Debian] = true
		said, err := r.Shell(w.ctx, f.Fix.Debian)
		if err != nil {
			w.Fatalf("the command of check for %s: %v", f.Name, err)
		}
		w.Logf("%s: %s\n%s", f.Name, f.Fix.Debian, said)
	}
}

// well wants check to find nothing wrong with the firewall.
func (w *world) well() {
	w.Helper()
	report, _ := w.report("--socket", w.daemon.Socket())
	for _, name := range []string{"a new control connection", "a control packet", "an answer to a control packet", "GRE of a call",
		"masquerading", "flow offload", "kernel's PPTP helper"} {
		if f := report.find(name); f.Level != "ok" {
			w.Errorf("check says of %s: %+v, fix %+v", name, f, f.Fix)
		}
	}
}

// aloneInVain proves that nothing but the daemon lets calls through: without it one client gets no answer.
func (w *world) aloneInVain(server *peer.Node) {
	w.Helper()
	w.check(w.daemon.Stop(w.ctx))
	client := w.client(0, peer.Config{CallID: peer.Fixed(7)})
	call := w.dialAndCall(client, server)
	if err := call.EchoWithin(w.ctx, time.Second, 1, 100); !errors.Is(err, peer.ErrNoAnswer) {
		w.Errorf("GRE of a client got through without the daemon: %v", err)
	}
	w.check(call.Session().Stop(w.ctx), client.Close())
	w.start(quickConfig)
}
