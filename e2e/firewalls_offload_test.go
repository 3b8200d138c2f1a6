package e2e

import (
	"net/netip"
	"os"
	"slices"
	"testing"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// Flow offloading in fw4's and in firewalld's way. With the anchor no control connection comes into the flow
// table; without it, all do, until the commands of `pptp-alg check` for kernels that have no anchor are given.
func TestFirewallsOffload(t *testing.T) {
	for _, f := range []struct{ name, fix, chain string }{
		{"fw4", "", "inet fw4 forward"},
		{"firewalld", "firewall-cmd ", "inet firewalld filter_FORWARD"},
	} {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t, lab.Plan{Clients: 2, Servers: 1, Firewall: []lab.Piece{}})
			w.must(w.Router.Route(netip.Prefix{}, w.Servers[0].Address))
			inside := w.room()
			w.firewall(inside, f.name, "start")
			if err := inside.Do(w.ctx, f.name, "offload"); err != nil {
				if os.Getenv(fullKernel) == "" {
					// Also under CI: that it is missing is no fault of ours.
					t.Skipf("this kernel has no flow tables (CONFIG_NFT_FLOW_OFFLOAD): %v", err)
				}
				t.Fatal(err)
			}
			w.start("anchor = \"off\"\n" + quickConfig)
			if f.fix != "" {
				w.opens(inside, f.fix)
				w.firewall(inside, f.name, "offload") // its reload took that away
			}
			server := w.server(0, peer.Config{CallID: peer.Counting(0)})
			var clients [2]*peer.Node
			for i := range clients {
				clients[i] = w.client(i, peer.Config{CallID: peer.Counting(crowdedID)})
			}
			dial := func() (calls []*peer.Call) {
				for _, c := range clients {
					calls = append(calls, w.dialAndCall(c, server))
				}
				return calls
			}
			hangUp := func(calls []*peer.Call) {
				for _, c := range calls {
					w.check(c.HangUp(w.ctx), c.Session().Stop(w.ctx))
				}
				w.must(w.Router.FlushConntrack())
			}
			calls := dial()
			if n := w.inFlowTable(calls); n != 2 {
				t.Errorf("%d of 2 control connections are in the flow table without the anchor: this proves nothing", n)
			}
			hangUp(calls)

			for _, end := range []string{"sport", "dport"} {
				_, err := inside.Shell(w.ctx, "nft insert rule "+f.chain+" tcp "+end+" 1723 ct state established,related accept")
				w.must(err)
			}
			calls = dial()
			for _, c := range calls {
				w.talk(c, server)
			}
			if n := w.inFlowTable(calls); n != 0 {
				t.Errorf("%d control connections are in the flow table in spite of the rules", n)
			}
			hangUp(calls)
			w.firewall(inside, f.name, "restart")
			w.firewall(inside, f.name, "offload")

			w.check(w.daemon.Stop(w.ctx))
			w.start(quickConfig)
			calls = dial()
			for _, c := range calls {
				w.talk(c, server)
				w.talk(w.call(c.Session()), server) // the connections go on being seen
			}
			w.status(4)
			if n := w.inFlowTable(calls); n != 0 {
				t.Errorf("%d control connections are in the flow table in spite of the anchor", n)
			}
			report, _ := w.report("--socket", w.daemon.Socket())
			if found := report.find("flow offload"); found.Level != "ok" {
				t.Errorf("check says of flow offload: %+v", found)
			}
			for _, c := range calls {
				w.check(c.Session().Stop(w.ctx))
			}
			w.drain()
			w.check(w.daemon.Stop(w.ctx))
		})
	}
}

// inFlowTable counts the control connections of calls that are in a flow table.
func (w *world) inFlowTable(calls []*peer.Call) (n int) {
	w.Helper()
	flows, err := w.Router.Control(peer.Port)
	w.must(err)
	for _, c := range calls {
		local := c.Session().Local()
		i := slices.IndexFunc(flows, func(f lab.Flow) bool {
			return f.Original.Src == local.Addr() && f.Original.SrcPort == local.Port()
		})
		if i < 0 {
			w.Fatalf("%v has no control connection among\n%s", c, lab.FlowsText(flows))
		}
		if flows[i].Status&lab.Offloaded != 0 {
			n++
		}
	}
	return n
}
