package e2e

import (
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pptp-alg/e2e/lab"
	"pptp-alg/e2e/peer"
)

// checkReport is what `check --json` promises.
type checkReport struct {
	Level    string    `json:"level"`
	Findings []finding `json:"findings"`
}

type finding struct {
	Name  string `json:"name"`
	Level string `json:"level"`
	Text  string `json:"text"`
	Fix   *struct {
		Debian  string `json:"debian"`
		OpenWrt string `json:"openwrt"`
	} `json:"fix"`
}

func (r checkReport) find(name string) finding {
	for _, f := range r.Findings {
		if f.Name == name {
			return f
		}
	}
	return finding{}
}

// report runs `pptp-alg check` on the router.
func (w *world) report(args ...string) (r checkReport, code int) {
	w.Helper()
	out, errs, code, err := w.Router.Program(w.ctx, program(w), append([]string{"check", "--json"}, args...)...)
	w.must(err)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		w.Fatalf("check --json: %v\n%s%s", err, out, errs)
	}
	return r, code
}

// findings are the levels and texts of that report.
func (w *world) findings(args ...string) (levels, texts map[string]string, code int) {
	w.Helper()
	r, code := w.report(args...)
	levels, texts = map[string]string{}, map[string]string{}
	for _, f := range r.Findings {
		levels[f.Name], texts[f.Name] = f.Level, f.Text
		if f.Level == "fail" && (f.Fix == nil || f.Fix.Debian == "" || f.Fix.OpenWrt == "") {
			w.Errorf("%s fails, and no command is said to mend it", f.Name)
		}
	}
	return levels, texts, code
}

// Each condition is made bad once and is seen as such; nothing else is.
func TestCheck(t *testing.T) {
	const (
		gre        = "GRE of a call"
		fresh      = "a new control connection"
		control    = "a control packet"
		answer     = "an answer to a control packet"
		masquerade = "masquerading"
	)
	nat := lab.Masquerade("wan")
	for name, c := range map[string]struct {
		firewall []lab.Piece
		setUp    func(w *world)
		bad      map[string]string // level by name
		words    string            // in one of them
	}{
		"good":             {firewall: []lab.Piece{nat}},
		"strict":           {firewall: []lab.Piece{nat, lab.StrictForward("lan", peer.Port)}},
		"OpenWrt's way":    {firewall: []lab.Piece{nat, lab.ForwardDrop(), lab.AcceptStates(), lab.AcceptFrom("lan")}},
		"no masquerading":  {firewall: []lab.Piece{lab.AcceptEstablished()}, bad: map[string]string{masquerade: "warning"}},
		"GRE dropped":      {firewall: []lab.Piece{nat, lab.DropProtocol(47)}, bad: map[string]string{gre: "fail"}, words: "rule 1 of chain ip lab forward"},
		"GRE dropped late": {firewall: []lab.Piece{nat, lab.AcceptEstablished(), lab.DropProtocol(47)}},
		"GRE dropped from somewhere": {firewall: []lab.Piece{nat, lab.DropProtocolFrom("wan", 47)},
			bad: map[string]string{gre: "warning"}, words: "not sure"},
		"ports rejected": {firewall: []lab.Piece{nat, lab.AcceptEstablished(), lab.RejectPorts(1700, 1800)},
			bad: map[string]string{fresh: "fail"}, words: "chain ip lab away"},
		"other ports rejected": {firewall: []lab.Piece{nat, lab.AcceptEstablished(), lab.RejectPorts(1724, 1800)}},
		"no established": {firewall: []lab.Piece{nat, lab.ForwardDrop(), lab.AcceptTCP("lan", peer.Port)},
			bad: map[string]string{gre: "fail", control: "warning", answer: "warning"}, words: "the policy of chain ip lab forward"},
		"nothing forwarded": {firewall: []lab.Piece{nat, lab.ForwardDrop()},
			bad: map[string]string{gre: "fail", control: "fail", answer: "fail", fresh: "fail"}},
		"forwarding off": {firewall: []lab.Piece{nat}, bad: map[string]string{"forwarding": "fail"}, words: "ip_forward is 0",
			setUp: func(w *world) { w.must(w.Router.Sysctl("net.ipv4.ip_forward", "0")) }},
		"kernel's helper": {words: "takes it away again",
			setUp: func(w *world) {
				err := w.Router.Firewall(lab.KernelHelper(peer.Port), nat)
				if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
					w.Skipf("this kernel has no PPTP helper: %v", err)
				}
				w.must(err)
			}},
		"somebody's queue": {firewall: []lab.Piece{nat}, bad: map[string]string{"queue": "fail"}, words: "queue 1723",
			setUp: func(w *world) { w.start(quickConfig) }}, // and no daemon at the default socket
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, lab.Plan{Clients: 1, Servers: 1, Firewall: c.firewall})
			if c.setUp != nil {
				c.setUp(w)
			}
			before := w.structure()
			nobody := filepath.Join(w.Dir(), "nobody.sock")
			levels, texts, code := w.findings("--socket", nobody)
			want := map[string]string{"daemon": "warning"} // none answers
			maps.Copy(want, c.bad)
			// What this kernel lacks is not this test's business.
			for _, n := range []string{"limits", "other PPTP ALG", "flow offload", "user-space helpers"} {
				delete(levels, n)
			}
			if !strings.Contains(texts["user-space helpers"], "conntrack helper") {
				t.Errorf("of helpers it says %q", texts["user-space helpers"])
			}
			for n, level := range levels {
				expected := want[n]
				if expected == "" {
					expected = "ok"
				}
				if level != expected {
					t.Errorf("%s is %s instead of %s: %s", n, level, expected, texts[n])
				}
				delete(want, n)
			}
			for n := range want {
				t.Errorf("nothing is said about %s", n)
			}
			if !strings.Contains(strings.Join(slices.Collect(maps.Values(texts)), "\n"), c.words) {
				t.Errorf("nothing says %q: %v", c.words, texts)
			}
			fails := slices.Contains(slices.Collect(maps.Values(c.bad)), "fail")
			if (code == exitFailure) != fails {
				t.Errorf("exit code %d", code)
			}
			if _, _, code := w.findings("--socket", nobody, "--strict"); code != exitFailure {
				t.Errorf("--strict: exit code %d in spite of a warning", code)
			}
			if after := w.structure(); after != before {
				t.Errorf("check changed the rules from\n%s\nto\n%s", before, after)
			}
		})
	}
}

// Beside a running daemon all is well, for people too, and the daemon is none the
// worse. That the kernel stopped counting is seen.
func TestCheckBesideDaemon(t *testing.T) {
	w := withDaemon(t, lab.Plan{Clients: 1, Servers: 1, Firewall: strict()})
	server := w.server(0, peer.Config{})
	call := w.dialAndCall(w.client(0, peer.Config{}), server)
	out, errs, code, err := w.Router.Program(w.ctx, program(w), "check", "--socket", w.daemon.Socket())
	if err != nil || code != 0 || errs != "" || !strings.Contains(out, "ok       daemon: it is running") {
		t.Errorf("code %d, %v\n%s%s", code, err, out, errs)
	}
	w.must(w.Router.Sysctl("net.netfilter.nf_conntrack_acct", "0"))
	if levels, _, code := w.findings("--socket", w.daemon.Socket()); levels["accounting"] != "warning" || code != 0 {
		t.Errorf("accounting is %s, exit code %d", levels["accounting"], code)
	}
	w.talk(call, server)
	w.status(1)
	w.check(call.HangUp(w.ctx))
	w.finish()
}
