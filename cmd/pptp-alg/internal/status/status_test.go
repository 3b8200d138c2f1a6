package status

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

var now = time.Date(2025, 3, 4, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func end(address string, id int, translated string, translatedID int) Endpoint {
	e := Endpoint{Address: netip.MustParseAddr(address), TranslatedAddress: netip.MustParseAddr(translated)}
	if id >= 0 {
		e.CallID = Known(uint16(id))
	}
	if translatedID >= 0 {
		e.TranslatedCallID = Known(uint16(translatedID))
	}
	return e
}

// example has a call of each kind, in no order.
func example() Status {
	return Status{
		Version: "1.2.3",
		Started: ago(26 * time.Hour),
		Anchor:  "ftp",
		Calls: []Call{
			{
				ID: 3, Direction: "outgoing", State: "requested", Initiator: "client", Since: ago(2 * time.Second),
				Client: end("192.168.77.100", 0, "203.0.113.1", 41000), Server: end("198.51.100.2", -1, "198.51.100.2", -1),
			},
			{
				ID: 2, Direction: "outgoing", State: "established", Initiator: "client", Since: ago(3*time.Hour + 7*time.Minute), Established: ago(3*time.Hour + 7*time.Minute),
				Client: end("192.168.77.12", 5, "203.0.113.1", 777), Server: end("198.51.100.2", 9, "198.51.100.2", 9),
				PacketsFromClient: Known[uint64](123456), BytesFromClient: Known[uint64](9876543210),
				PacketsFromServer: Known[uint64](7), BytesFromServer: Known[uint64](420),
			},
			{
				ID: 1, Direction: "incoming", State: "established", Initiator: "server", Since: ago(61 * 24 * time.Hour), Established: ago(61 * 24 * time.Hour),
				Warning: "no GRE from either side for 61d00h: both may filter protocol 47, or it takes another way than through this router",
				Client:  end("192.168.77.11", 5, "203.0.113.1", 5), Server: end("198.51.100.2", 65535, "198.51.100.2", 65535),
				PacketsFromClient: Known[uint64](0), BytesFromClient: Known[uint64](0),
				PacketsFromServer: Known[uint64](0), BytesFromServer: Known[uint64](0),
			},
		},
		Connections: []Connection{
			{
				Client: Peer{netip.MustParseAddrPort("192.168.77.99:40000"), netip.MustParseAddrPort("203.0.113.1:40000")},
				Server: Peer{netip.MustParseAddrPort("198.51.100.9:1723"), netip.MustParseAddrPort("198.51.100.9:1723")},
				State:  "unparsed", Since: ago(time.Minute), Unparsed: "magic cookie is 0x47455420",
			},
			{
				Client: Peer{netip.MustParseAddrPort("192.168.77.11:40001"), netip.MustParseAddrPort("203.0.113.1:40001")},
				Server: Peer{netip.MustParseAddrPort("198.51.100.2:1723"), netip.MustParseAddrPort("198.51.100.2:1723")},
				State:  "established", Since: ago(time.Hour), Calls: 3,
			},
		},
		Ended: []Call{
			{
				ID: 7, Direction: "outgoing", State: "ended", Initiator: "client", Since: ago(time.Hour), Ended: ago(time.Minute),
				Client: end("192.168.77.11", 6, "203.0.113.1", 6), Server: end("198.51.100.2", -1, "198.51.100.2", -1),
				Reason: "server refused the call: busy (result 4)",
			},
			{
				ID: 8, Direction: "outgoing", State: "ended", Initiator: "client", Since: ago(time.Hour), Ended: ago(time.Second),
				Client: end("192.168.77.11", 6, "203.0.113.1", 6), Server: end("198.51.100.2", 1, "198.51.100.2", 1),
				Reason: "cleared by the client", Established: ago(time.Hour),
				Diagnosis: "no GRE from the server for 1h00m, 20 packets from the client: a firewall between may block protocol 47",
			},
		},
		Counters: map[string]uint64{"calls_established": 4, "queue_packets": 12},
	}
}

// golden compares with a file of testdata; `go test -update` writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestTable(t *testing.T) {
	home := example()
	home.Calls, home.Connections = home.Calls[1:2], home.Connections[1:]
	before := example()
	for i := range before.Calls[1:2] {
		c := &before.Calls[1+i]
		c.PacketsFromClient, c.BytesFromClient = Known[uint64](123456-250), Known[uint64](9876543210-2_500_000)
	}
	calls := View.Calls
	for _, c := range []struct {
		file string
		show func(View, io.Writer, Status) error
		s    Status
		v    View
	}{
		{"wide.txt", calls, example(), View{}},
		{"terminal80.txt", calls, example(), View{Width: 80}},
		{"terminal120.txt", calls, example(), View{Width: 120}},
		{"colours.txt", calls, example(), View{Width: 80, Colours: true}},
		{"one.txt", calls, home, View{}},
		{"empty.txt", calls, Status{}, View{Width: 80}},
		{"rates80.txt", calls, example(), View{Width: 80, Before: &before, Elapsed: 2 * time.Second}},
		{"rates.txt", calls, example(), View{Before: &before, Elapsed: 2 * time.Second}},
		{"filtered.txt", calls, example(), View{Filter: Filter{Client: netip.MustParsePrefix("192.168.77.12/32")}}},
		{"ended.txt", View.Ended, example(), View{}},
		{"ended80.txt", View.Ended, example(), View{Width: 80}},
		{"ended-none.txt", View.Ended, Status{}, View{Width: 80}},
		{"connections.txt", View.Connections, example(), View{}},
		{"connections80.txt", View.Connections, example(), View{Width: 80}},
		{"connections-none.txt", View.Connections, Status{}, View{}},
	} {
		var out bytes.Buffer
		c.v.Now = now
		if err := c.show(c.v, &out, c.s); err != nil {
			t.Fatal(err)
		}
		golden(t, c.file, out.Bytes())
		for _, l := range strings.Split(out.String(), "\n") {
			if c.v.Width > 0 && !c.v.Colours && len(l) > c.v.Width {
				t.Errorf("%s: %d columns for %d: %q", c.file, len(l), c.v.Width, l)
			}
			if strings.TrimRight(l, " ") != l {
				t.Errorf("%s: trailing blanks: %q", c.file, l)
			}
		}
	}
}

// The widest possible values fit 80 columns, whatever is shown.
func TestTableWidest(t *testing.T) {
	big := ^uint64(0)
	zero := uint64(0)
	a := "255.255.255.255"
	call := Call{
		ID: 1e9, State: "established", Since: ago(99999 * time.Hour), Established: ago(99999 * time.Hour), Ended: ago(99998 * time.Hour),
		Client: end(a, 65535, a, 65535), Server: end(a, 65535, a, 65535),
		PacketsFromClient: &big, BytesFromClient: &big, PacketsFromServer: &big, BytesFromServer: &big,
		Warning: strings.Repeat("word ", 40), Reason: strings.Repeat("word ", 40), Diagnosis: strings.Repeat("word ", 40),
	}
	peer := Peer{netip.MustParseAddrPort(a + ":65535"), netip.MustParseAddrPort(a + ":65535")}
	s := Status{
		Calls: []Call{call}, Ended: []Call{call},
		Connections: []Connection{{Client: peer, Server: peer, State: "established", Since: call.Since, Calls: 4096, Unparsed: call.Reason}},
	}
	old := call
	old.BytesFromClient, old.PacketsFromClient, old.BytesFromServer, old.PacketsFromServer = &zero, &zero, &zero, &zero
	v := View{Now: now, Width: 80}
	rates := v
	rates.Before, rates.Elapsed = &Status{Calls: []Call{old}}, time.Second
	var out bytes.Buffer
	for _, err := range []error{v.Calls(&out, s), rates.Calls(&out, s), v.Ended(&out, s), v.Connections(&out, s)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range strings.Split(out.String(), "\n") {
		if len(l) > 80 {
			t.Errorf("%d columns: %q", len(l), l)
		}
	}
}

// The document is an interface: its golden file changes with care.
func TestJSON(t *testing.T) {
	s := example()
	s.Sort()
	got, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", append(got, '\n'))

	var back Status
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(back, "", "  ")
	if err != nil || !bytes.Equal(got, again) {
		t.Errorf("read and written again: %v\n%s", err, again)
	}
}

// Nothing is null that scripts iterate over.
func TestJSONEmpty(t *testing.T) {
	got, err := json.Marshal(Status{Version: "v"})
	want := `{"version":"v","started":"0001-01-01T00:00:00Z","anchor":"","calls":[],"connections":[],"ended":[],"counters":{}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

// What is not known yet is a dash.
func TestTableUnknown(t *testing.T) {
	var out bytes.Buffer
	View{Now: now}.Calls(&out, Status{Calls: []Call{{ID: 3, State: "requested", Since: now}}})
	line := strings.Split(out.String(), "\n")[1]
	if got := strings.Join(strings.Fields(line), " "); got != "3 - - - - - - requested 0s - - - -" {
		t.Errorf("got %q", got)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour:                     "0s", // a clock that jumped
		0:                              "0s",
		59*time.Second + 999999999:     "59s",
		time.Minute:                    "1m00s",
		59*time.Minute + 5*time.Second: "59m05s",
		time.Hour:                      "1h00m",
		23*time.Hour + 59*time.Minute:  "23h59m",
		25 * time.Hour:                 "1d01h",
		400 * 24 * time.Hour:           "400d00h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestQuantity(t *testing.T) {
	for n, want := range map[uint64][2]string{
		0:              {"0", "0"},
		99999:          {"99999", "99999"},
		100000:         {"100k", "97.7K"},
		999499:         {"999k", "976K"},
		999500:         {"1.00M", "976K"},
		1 << 20:        {"1.05M", "1.00M"},
		1<<20 - 1:      {"1.05M", "1.00M"}, // 1023.999K is not 1024K
		123456789:      {"123M", "118M"},
		1<<64 - 1:      {"18.4E", "16.0E"},
		10_000_000_000: {"10.0G", "9.31G"},
	} {
		if got := [2]string{packets(&n), bytesOf(&n)}; got != want {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
	if packets(nil) != "-" {
		t.Error("unknown is not -")
	}
}
