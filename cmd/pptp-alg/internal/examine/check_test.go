package examine

import (
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The report as people read it, and as scripts do.
func TestReport(t *testing.T) {
	r := Report{Level: Fail, Findings: []Finding{
		ok("queue", "queue %d is free", 1723),
		warning("masquerading", nil, "no rule"),
		fail("forwarding", &Fix{"sysctl", "uci set\nuci commit"}, "it is <off>"),
	}}
	for _, c := range []struct {
		openWrt, colours bool
		want             string
	}{
		{false, false, "ok       queue: queue 1723 is free\nwarning  masquerading: no rule\nfail     forwarding: it is <off>\n           sysctl\n"},
		{true, true, "\x1b[32mok     \x1b[0m  queue: queue 1723 is free\n\x1b[33mwarning\x1b[0m  masquerading: no rule\n" +
			"\x1b[31mfail   \x1b[0m  forwarding: it is <off>\n           uci set\n           uci commit\n"},
	} {
		var out bytes.Buffer
		if err := r.Write(&out, c.openWrt, c.colours); err != nil || out.String() != c.want {
			t.Errorf("got %q, %v, want %q", out.String(), err, c.want)
		}
	}
	var out bytes.Buffer
	if err := r.WriteJSON(&out); err != nil || !strings.Contains(out.String(), `"it is <off>"`) {
		t.Errorf("%s, %v", out.String(), err)
	}
	var back Report
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || len(back.Findings) != 3 || *back.Findings[2].Fix != *r.Findings[2].Fix {
		t.Errorf("read again: %+v, %v", back, err)
	}
}

func TestFill(t *testing.T) {
	for used, want := range map[int]Level{0: OK, 90: OK, 91: Warning, 99: Warning, 100: Fail, 101: Fail} {
		if f := fill("t", used, 100); f.Level != want || (f.Fix == nil) != (want == OK) {
			t.Errorf("%d of 100: %+v, want %s", used, f, want)
		}
	}
	if f := fill("t", 5, 0); f.Level != OK {
		t.Errorf("no limit: %+v", f)
	}
}

// Without the capability it says so. The thread that gave it up goes.
func TestCapabilities(t *testing.T) {
	done := make(chan []Finding)
	go func() {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
		}
		done <- capabilities(Config{})
	}()
	if f := <-done; len(f) != 1 || f[0].Level != Fail || f[0].Fix == nil {
		t.Errorf("got %+v", f)
	}
}

func TestOffload(t *testing.T) {
	c := Config{Ports: []uint16{1723}}
	if f := offload(&ruleset{}, c); f.Level != OK {
		t.Errorf("without: %+v", f)
	}
	r := rulesetOf(chainName{unix.NFPROTO_INET, "fw4", "forward"})
	r.flowTables = []string{"inet fw4 ft"}
	if f := offload(r, c); f.Level != OK {
		t.Errorf("with a flow table that nothing uses: %+v", f)
	}
	for _, ch := range r.chains {
		ch.rules = []rule{{{name: "flow_offload"}}}
	}
	if f := offload(r, c); (f.Level == OK) != (anchor() != "") || !strings.Contains(f.Text, "inet fw4 ft") || (f.Fix == nil) != (f.Level == OK) {
		t.Errorf("with: %+v", f)
	}
}

// A rule whose condition is not understood may match and may not.
func TestUnknownExpression(t *testing.T) {
	name := chainName{unix.NFPROTO_INET, "t", "c"}
	drop := expression{name: "immediate", any: &expr.Verdict{Kind: expr.VerdictDrop}}
	for _, c := range []struct {
		rules []rule
		want  fate
	}{
		{nil, passes},
		{[]rule{{drop}}, drops},
		{[]rule{{{name: "osf"}, drop}}, drops | passes},
		{[]rule{{{name: "counter"}, drop}}, drops},
		{[]rule{{{name: "limit"}, {name: "immediate", any: &expr.Verdict{Kind: expr.VerdictAccept}}}, {drop}}, drops | passes},
		{[]rule{{{name: "immediate", any: &expr.Verdict{Kind: expr.VerdictAccept}}}, {drop}}, passes},
		{[]rule{{{name: "immediate", any: &expr.Verdict{Kind: expr.VerdictReturn}}}, {drop}}, passes},
		{[]rule{{{name: "immediate", any: &expr.Verdict{Kind: expr.VerdictJump, Chain: "c"}}}}, passes}, // a loop, which the kernel refuses
		{[]rule{{{name: "reject"}}}, drops},
		{[]rule{{{name: "queue"}}}, passes}, // what user space does is its own business
	} {
		r := &ruleset{chains: map[chainName]*chain{name: {chainName: name, hooked: true, hook: unix.NF_INET_FORWARD, rules: c.rules}}}
		w := walk{rules: r, packet: packet{protocol: unix.IPPROTO_GRE, state: expr.CtStateBitESTABLISHED}}
		if got := w.hook(unix.NF_INET_FORWARD, "pptp-alg"); got != c.want {
			t.Errorf("%v: fate %d, want %d", c.rules, got, c.want)
		}
		if got := w.hook(unix.NF_INET_FORWARD, "t"); got != passes {
			t.Error("our own table counts")
		}
	}
}

// A set answers for the values that are in it, at the ends of its intervals too.
func TestLookup(t *testing.T) {
	accept, drop := &expr.Verdict{Kind: expr.VerdictAccept}, &expr.Verdict{Kind: expr.VerdictDrop}
	name := setName{unix.NFPROTO_INET, "t", "s"}
	plain := &set{elements: []element{{key: []byte{0, 5}, verdict: accept}}}
	ranges := &set{interval: true, elements: []element{
		{key: []byte{0, 0}, intervalEnd: true}, {key: []byte{0, 5}, verdict: accept}, {key: []byte{0, 9}, intervalEnd: true}, {key: []byte{0, 9}, verdict: drop}, {key: []byte{0, 10}, intervalEnd: true},
	}}
	rest := &set{elements: []element{{key: []byte{0, 5}, verdict: accept}, {catchAll: true, verdict: drop}}}
	for _, c := range []struct {
		s       *set
		v       []byte
		want    answer
		verdict *expr.Verdict
	}{
		{plain, []byte{0, 5}, yes, accept}, {plain, []byte{0, 6}, no, nil}, {plain, nil, maybe, nil}, {plain, []byte{5}, maybe, nil},
		{nil, []byte{0, 5}, maybe, nil}, {&set{concatenated: true}, []byte{0, 5}, maybe, nil},
		{ranges, []byte{0, 4}, no, nil}, {ranges, []byte{0, 5}, yes, accept}, {ranges, []byte{0, 8}, yes, accept},
		{ranges, []byte{0, 9}, yes, drop}, {ranges, []byte{0, 10}, no, nil}, {ranges, []byte{200, 0}, no, nil},
		{rest, []byte{0, 5}, yes, accept}, {rest, []byte{0, 6}, yes, drop},
	} {
		r := &ruleset{sets: map[setName]*set{}}
		if c.s != nil {
			r.sets[name] = c.s
		}
		if got, v := r.lookup(name, c.v); got != c.want || c.want == yes && v != c.verdict {
			t.Errorf("%v in %+v: %d, %v; want %d, %v", c.v, c.s, got, v, c.want, c.verdict)
		}
	}
}
