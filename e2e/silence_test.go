package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// mute makes a node's calls send no GRE but what the scenario sends.
func mute(calls chan<- *peer.Call, cfg peer.Config) peer.Config {
	cfg.Carry = func(c *peer.Call) func(wire.GRE) {
		calls <- c
		return func(wire.GRE) {}
	}
	return cfg
}

// warned waits until the only call has this warning, "" for none.
func (w *world) warned(words string) {
	w.Helper()
	w.eventually("warning "+words, func() error {
		s, err := w.daemon.Status(w.ctx)
		if err != nil {
			return err
		}
		if len(s.Calls) != 1 || (s.Calls[0].Warning == "") != (words == "") || !strings.Contains(s.Calls[0].Warning, words) {
			return fmt.Errorf("status lists %+v", s.Calls)
		}
		return nil
	})
}

// Which side sends GRE and which does not is told while the call is up, and when it
// has ended.
func TestSilence(t *testing.T) {
	for name, c := range map[string]struct {
		client, server bool // sends
		warning        string
		diagnosis      string
	}{
		"nobody":     {false, false, "no GRE from either side for ", "no GRE from either side for "},
		"the client": {true, false, "no GRE from the server for ", "a firewall between may block protocol 47"},
		"the server": {false, true, "no GRE from the client for ", "the client's firewall may block protocol 47"},
		"both":       {true, true, "", "GRE came from both sides (client 1, server 1 packets): if the call failed, it failed inside PPP"},
	} {
		t.Run(name+" sends", func(t *testing.T) {
			w := newWorld(t, lab.Plan{Clients: 1, Servers: 1})
			w.start(quickConfig + "silence = \"1s\"\n")
			servers, clients := make(chan *peer.Call, 1), make(chan *peer.Call, 1)
			server := w.server(0, mute(servers, peer.Config{}))
			call := w.dialAndCall(w.client(0, mute(clients, peer.Config{CallID: peer.Fixed(5)})), server)
			far := <-servers
			<-far.Up()
			packet := wire.GRE{HasSeq: true, Payload: []byte{0xff, 3, 0xc0, 0x21}}
			if c.client {
				w.check(call.SendGRE(packet))
			}
			if c.server {
				w.check(far.SendGRE(packet))
			}
			if c.warning != "" {
				w.warned(c.warning)
			}
			// A shorter life would prove nothing by its silence.
			time.Sleep(3 * time.Second)
			w.warned(c.warning)
			w.check(call.HangUp(w.ctx))
			got := w.ended("cleared by the client", from(w.Clients[0].Address, 5))
			if !strings.Contains(got.Diagnosis, c.diagnosis) || got.Warning != "" {
				t.Errorf("diagnosis %q, warning %q", got.Diagnosis, got.Warning)
			}
			if text, _, code, err := w.daemon.Command(w.ctx, "status", "--ended", "--socket", w.daemon.Socket()); err != nil || code != 0 ||
				!strings.Contains(text, "cleared by the client") || !strings.Contains(text, c.diagnosis) {
				t.Errorf("status --ended: %d, %v\n%s", code, err, text)
			}
			log := w.daemon.Log()
			if strings.Contains(log, "call without GRE") != (c.warning != "") || !strings.Contains(log, c.diagnosis) {
				t.Errorf("the log says\n%s", log)
			}
			w.finish()
		})
	}
}

// A warning goes when GRE comes, and does not come back.
func TestSilenceBroken(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 1})
	w.start(quickConfig + "silence = \"1s\"\n")
	server := w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(0, peer.Config{CallID: peer.Fixed(5)}), server)
	w.warned("no GRE from either side")
	w.talk(call, server)
	w.warned("")
	w.eventually("the log should say so", func() error {
		if !strings.Contains(w.daemon.Log(), "GRE flows both ways now") {
			return fmt.Errorf("it says\n%s", w.daemon.Log())
		}
		return nil
	})
	w.check(call.HangUp(w.ctx))
	w.finish()
}

// Where the kernel does not count, nothing is said about what was not counted.
func TestSilenceUncounted(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 1, Servers: 1})
	w.start(quickConfig + "silence = \"1s\"\n")
	w.must(w.Router.Sysctl("net.netfilter.nf_conntrack_acct", "0"))
	server := w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(0, peer.Config{CallID: peer.Fixed(5)}), server)
	time.Sleep(4 * time.Second) // longer than it takes with counters
	w.warned("")
	w.check(call.HangUp(w.ctx))
	got := w.ended("cleared by the client", from(w.Clients[0].Address, 5))
	raw, err := w.daemon.StatusJSON(w.ctx)
	w.must(err)
	if got.Diagnosis != "" || !strings.Contains(string(raw), `"packets_from_client": null`) {
		t.Errorf("diagnosis %q in\n%s", got.Diagnosis, raw)
	}
	w.finish()
}
