package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// watcher is a `pptp-alg watch` that runs.
type watcher struct {
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	all  []string
}

func (w *world) watch(args ...string) *watcher {
	w.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	v := &watcher{done: make(chan struct{})}
	v.cmd = exec.CommandContext(ctx, program(w), append([]string{"watch", "--socket", w.daemon.Socket()}, args...)...)
	out, err := v.cmd.StdoutPipe()
	w.must(err)
	w.must(v.cmd.Start())
	go func() {
		defer close(v.done)
		for in := bufio.NewScanner(out); in.Scan(); {
			v.mu.Lock()
			v.all = append(v.all, in.Text())
			v.mu.Unlock()
		}
	}()
	w.Cleanup(func() { cancel(); <-v.done; _ = v.cmd.Wait() })
	return v
}

func (v *watcher) lines() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.all)
}

// await waits for a line with these words.
func (w *world) await(v *watcher, words string) {
	w.Helper()
	w.eventually("watch should say "+words, func() error {
		for _, l := range v.lines() {
			if strings.Contains(l, words) {
				return nil
			}
		}
		return fmt.Errorf("it says\n%s", strings.Join(v.lines(), "\n"))
	})
}

// Those who watch see a call's whole life as it happens, as lines and as JSON, and
// only what they asked for.
func TestWatch(t *testing.T) {
	w := newWorld(t, lab.Plan{Clients: 2, Servers: 1})
	w.start(quickConfig + "silence = \"1s\"\n")
	all, other := w.watch(), w.watch("--json", "--client", w.Clients[1].Address.String())
	// A watcher is there when it has seen something happen; what others do is nothing to
	// the second one.
	server := w.server(0, peer.Config{})
	clients := []*peer.Node{w.client(0, peer.Config{CallID: peer.Fixed(77)}), w.client(1, peer.Config{CallID: peer.Fixed(78)})}
	w.eventually("both should listen", func() error {
		s := w.dial(clients[0], server)
		o := w.dial(clients[1], server)
		w.check(s.Stop(w.ctx), o.Stop(w.ctx))
		if len(all.lines()) == 0 || len(other.lines()) == 0 {
			return fmt.Errorf("they said %q and %q", all.lines(), other.lines())
		}
		return nil
	})
	call := w.dialAndCall(clients[0], server)
	w.await(all, "call warning")
	w.talk(call, server)
	w.await(all, "call recovered")
	w.check(call.HangUp(w.ctx), call.Session().Stop(w.ctx))
	w.await(all, "cleared by the client; GRE came from both sides")
	second := w.dialAndCall(clients[1], server)
	w.check(second.HangUp(w.ctx))
	w.await(other, `"event":"call_ended"`)
	for _, words := range []string{"connection opened", "call requested", "call established", "call ended", "connection closed"} {
		w.await(all, words)
	}
	for _, l := range other.lines() {
		var e struct {
			Event string `json:"event"`
			Call  *struct {
				Client struct {
					CallID int `json:"call_id"`
				} `json:"client"`
			} `json:"call"`
			Connection *struct {
				Client struct {
					Address string `json:"address"`
				} `json:"client"`
			} `json:"connection"`
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Errorf("%v: %s", err, l)
		}
		if e.Call != nil && e.Call.Client.CallID != 78 ||
			e.Connection != nil && !strings.HasPrefix(e.Connection.Client.Address, w.Clients[1].Address.String()+":") {
			t.Errorf("the one who watches the second client sees %s", l)
		}
	}
	w.must(other.cmd.Process.Signal(unix.SIGINT))
	<-other.done
	w.finish()
	<-all.done
	_ = all.cmd.Wait()
	if code := all.cmd.ProcessState.ExitCode(); code != exitNoDaemon {
		t.Errorf("the end of the daemon is exit code %d", code)
	}
}
