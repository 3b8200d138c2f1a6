package rules

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// variants are the rulesets whose text is kept in testdata, and which the kernel tests go through.
var variants = map[string]Config{
	"native":           {Queue: 1723, Ports: []uint16{1723}, Rate: 2000, Native: true},
	"native-guard-all": {Queue: 10, Queues: 4, Ports: []uint16{1723, 1724}, Guard: GuardAll, Native: true},
	"target":           {Queue: 1723, Ports: []uint16{1723}, Rate: 2000},
	"target-guard-all": {Queue: 10, Queues: 4, Ports: []uint16{1723, 1724}, Guard: GuardAll},
	"native-anchor":    {Queue: 1723, Ports: []uint16{1723}, Native: true, Anchor: "ftp"},
	"target-anchor":    {Queue: 1723, Ports: []uint16{1723}, Anchor: "ftp"},
}

func mustNew(t testing.TB, c Config) Ruleset {
	t.Helper()
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestText(t *testing.T) {
	for name, c := range variants {
		t.Run(name, func(t *testing.T) {
			got := mustNew(t, c).String()
			file := filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("text differs from %s (go test -update writes it anew):\n%s", file, got)
			}
		})
	}
}

func TestEveryRuleHasAComment(t *testing.T) {
	for name, c := range variants {
		for _, chain := range mustNew(t, c).table.chains {
			for i, r := range chain.rules {
				// 128 bytes with the final zero is what nft allows (NFTNL_UDATA_COMMENT_MAXLEN).
				if r.comment == "" || len(r.comment) > 127 {
					t.Errorf("%s: %s: comment %q", name, ruleName(chain.name, i), r.comment)
				}
			}
		}
	}
}

func TestNewDefaults(t *testing.T) {
	ports := []uint16{2000, 1723, 2000}
	got := mustNew(t, Config{Queue: 7, Ports: ports}).Config()
	if got.Queues != 1 || got.Guard != GuardCalls || !slices.Equal(got.Ports, []uint16{1723, 2000}) {
		t.Errorf("defaults: %+v", got)
	}
	if !slices.Equal(ports, []uint16{2000, 1723, 2000}) {
		t.Errorf("New changed the caller's ports: %v", ports)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, test := range []struct {
		config Config
		says   string
	}{
		{Config{Queue: 1}, "no control port"},
		{Config{Queue: 1, Ports: []uint16{0}}, "port 0"},
		{Config{Queue: 65535, Queues: 2, Ports: []uint16{1723}}, "last queue number is 65535"},
		{Config{Queue: 1, Ports: []uint16{1723}, Guard: "some"}, `"calls" or "all"`},
		{Config{Queue: 1, Ports: []uint16{1723}, Anchor: "sixteen-letters!"}, "at most 15"},
	} {
		if _, err := New(test.config); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("New(%+v): error %v, want one that says %s", test.config, err, test.says)
		}
	}
	if _, err := New(Config{Queue: 65535, Ports: []uint16{1723}}); err != nil {
		t.Errorf("queue 65535: %v", err)
	}
}

// What a kernel with the queue expression is sent, byte by byte: NFTA_EXPR_NAME, NFTA_EXPR_DATA {NFTA_QUEUE_NUM,
// NFTA_QUEUE_TOTAL, NFTA_QUEUE_FLAGS (bypass is 1, fanout by CPU is 2)}.
func TestNativeQueueExpression(t *testing.T) {
	c := queue(Config{Queue: 0x0102, Queues: 3, Native: true})
	if len(c.exprs) != 1 || c.foreign || c.text != "queue flags bypass to 258-260" {
		t.Fatalf("%+v", c)
	}
	if got, want := describeRule(expressionList(c.exprs), nil), `queue{1=0102 2=0003 3=0001} ""`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The states of different rulesets differ, and those of equal ones do not: what Apply's decision rests on.
func TestStatesTellRulesetsApart(t *testing.T) {
	base := Config{Queue: 1723, Ports: []uint16{1723}}
	for name, change := range map[string]func(*Config){
		"queue":  func(c *Config) { c.Queue = 1724 },
		"queues": func(c *Config) { c.Queues = 2 },
		"ports":  func(c *Config) { c.Ports = []uint16{1723, 1724} },
		"rate":   func(c *Config) { c.Rate = 1 },
		"guard":  func(c *Config) { c.Guard = GuardAll },
		"native": func(c *Config) { c.Native = true },
		"anchor": func(c *Config) { c.Anchor = "ftp" },
	} {
		other := base
		change(&other)
		if d := differences(mustNew(t, base).table.wanted(), mustNew(t, other).table.wanted()); len(d) == 0 {
			t.Errorf("%s: no difference seen", name)
		}
	}
	ftp, own := base, base
	ftp.Anchor, own.Anchor = "ftp", "pptp-alg"
	if d := differences(mustNew(t, ftp).table.wanted(), mustNew(t, own).table.wanted()); !slices.Equal(d, []string{"helper anchor differs"}) {
		t.Errorf("two anchors: %q", d)
	}
	if d := differences(mustNew(t, base).table.wanted(), mustNew(t, base).table.wanted()); len(d) > 0 {
		t.Errorf("equal rulesets differ: %v", d)
	}
}
