package status

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "10.0.0.7/24": "10.0.0.0/24", "0.0.0.0/0": "0.0.0.0/0",
		"": "", "10.0.0": "", "10.0.0.0/33": "", "fe80::1": "", "host": "",
	} {
		p, err := ParseHosts(in)
		if (err != nil) != (want == "") || err == nil && p.String() != want {
			t.Errorf("%q: %v, %v; want %q", in, p, err, want)
		}
	}
	if s, err := ParseState("established"); s != "established" || err != nil {
		t.Errorf("established: %q, %v", s, err)
	}
	if _, err := ParseState("up"); err == nil || !strings.Contains(err.Error(), "established") {
		t.Errorf("up: %v", err)
	}
}

func TestFilter(t *testing.T) {
	hosts := func(s string) Filter {
		p, err := ParseHosts(s)
		if err != nil {
			t.Fatal(err)
		}
		return Filter{Client: p}
	}
	server := Filter{Server: hosts("198.51.100.2").Client}
	for name, c := range map[string]struct {
		f                         Filter
		calls, ended, connections int
	}{
		"none":        {Filter{}, 3, 2, 2},
		"client":      {hosts("192.168.77.11"), 1, 2, 1},
		"network":     {hosts("192.168.77.0/28"), 2, 2, 1},
		"nobody":      {hosts("203.0.113.1"), 0, 0, 0},
		"server":      {server, 3, 2, 1},
		"established": {Filter{State: "established"}, 2, 0, 1},
		"ended":       {Filter{State: "ended"}, 0, 2, 0},
		"warning":     {Filter{State: StateWarning}, 1, 0, 1},
	} {
		document, err := json.Marshal(example())
		if err != nil {
			t.Fatal(err)
		}
		// A newer daemon may say more.
		document = append(document[:len(document)-1], `,"future":{"b":1}}`...)
		got, err := c.f.JSON(document)
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Status
			Future json.RawMessage `json:"future"`
		}
		type plain Status
		var back plain
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &s); err != nil || string(s.Future) != `{"b":1}` {
			t.Errorf("%s: what is not known is %s, %v", name, s.Future, err)
		}
		if len(back.Calls) != c.calls || len(back.Ended) != c.ended || len(back.Connections) != c.connections {
			t.Errorf("%s: %d calls, %d ended, %d connections; want %d, %d, %d", name,
				len(back.Calls), len(back.Ended), len(back.Connections), c.calls, c.ended, c.connections)
		}
	}
	if _, err := (Filter{State: "x"}).JSON([]byte("[]")); err == nil {
		t.Error("a list is no status")
	}
}
