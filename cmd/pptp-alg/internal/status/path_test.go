package status

import (
	"bytes"
	"strings"
	"testing"
)

// Which path calls take is shown where there are two, with the reason of those that are up and not on the fast one.
func TestPaths(t *testing.T) {
	s := example()
	show := func() string {
		var b bytes.Buffer
		if err := (View{Now: now}).Calls(&b, s); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if strings.Contains(show(), "PATH") {
		t.Errorf("the fast path is off:\n%s", show())
	}
	s.FastPath = "no fast path: make the eBPF map calls: operation not permitted"
	if !strings.Contains(show(), s.FastPath) {
		t.Errorf("it cannot be had:\n%s", show())
	}
	s.FastPath = "on"
	for i := range s.Calls { // sorted by client: 1, 2, 3
		switch s.Calls[i].ID {
		case 1:
			s.Calls[i].FastPath = &FastPath{Reason: "so many routes"}
		case 2:
			s.Calls[i].FastPath = &FastPath{ToServer: true, Reason: "a bridge"}
		case 3:
			s.Calls[i].FastPath = &FastPath{Reason: "nothing is said of a call that is not up"}
		}
	}
	lines := strings.Split(show(), "\n")
	for i, want := range []string{"PATH", "ordinary", "ordinary path: so many routes", "no GRE from either", "half fast", "ordinary path to the client: a bridge", "ordinary"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d has no %q:\n%s", i+1, want, show())
		}
	}
	s.Calls[0].FastPath = &FastPath{ToServer: true, ToClient: true}
	s.Calls[1].FastPath = &FastPath{ToClient: true, Reason: "x"}
	if got := show(); !strings.Contains(got, "fast") || !strings.Contains(got, "ordinary path to the server: x") || strings.Contains(got, "on\n") {
		t.Error(got)
	}
}
