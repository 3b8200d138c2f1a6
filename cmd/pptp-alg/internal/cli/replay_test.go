package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// capture is a capture of two clients with one Call ID, from package replay.
const capture = "../replay/testdata/two.pcap"

func TestReplay(t *testing.T) {
	want, err := os.ReadFile("../replay/testdata/two-public.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.pcap")
	for _, args := range [][]string{
		{"replay", capture, "--public", "203.0.113.1", "--write", out},
		{"replay", "--seed", "1", "--public", "203.0.113.1", capture},
	} {
		code, stdout, stderr := exec(t, args...)
		if code != 0 || stderr != "" || stdout != string(want) {
			t.Errorf("%q: code %d, stderr %q, stdout\n%s", args, code, stderr, stdout)
		}
	}
	got, _ := os.ReadFile(out)
	written, err := os.ReadFile("../replay/testdata/two-public.pcap")
	if err != nil || !bytes.Equal(got, written) {
		t.Errorf("wrote %d bytes, want %d: %v", len(got), len(written), err)
	}
	if st, err := os.Stat(out); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if _, stdout, _ := exec(t, "replay", "--seed", "2", "--public", "203.0.113.1", capture); stdout == string(want) {
		t.Error("another seed chooses the same Call IDs")
	}
}

// Every line is JSON; the last is the summary.
func TestReplayJSON(t *testing.T) {
	code, stdout, stderr := exec(t, "replay", "--json", capture)
	if code != 0 || stderr != "" {
		t.Fatalf("code %d, %s", code, stderr)
	}
	kinds := map[string]int{}
	var last struct {
		Kind  string
		Calls []struct {
			Client struct {
				CallID *int `json:"call_id"`
				GRE    struct{ Packets int }
			}
			Diagnosis string
		}
	}
	for lines := bufio.NewScanner(strings.NewReader(stdout)); lines.Scan(); {
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		kinds[last.Kind]++
	}
	if last.Kind != "summary" || len(last.Calls) != 2 || *last.Calls[1].Client.CallID != 5 || last.Calls[0].Client.GRE.Packets != 3 {
		t.Errorf("%+v", last)
	}
	if kinds["summary"] != 1 || kinds["message"] != 16 || kinds["call"] != 6 || kinds["gre"] != 4 {
		t.Errorf("%v", kinds)
	}
}

// A file that is cut is reported as far as it goes; one that is none is an error.
func TestReplayFaults(t *testing.T) {
	whole, err := os.ReadFile(capture)
	if err != nil {
		t.Fatal(err)
	}
	file := func(b []byte) string {
		path := filepath.Join(t.TempDir(), "x.pcap")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	code, stdout, stderr := exec(t, "replay", file(whole[:len(whole)-3]))
	if code != 0 || stderr != "" || !strings.Contains(stdout, "not read to the end: the file ends in the middle of a packet") {
		t.Errorf("cut: code %d, %q\n%s", code, stderr, stdout)
	}
	broken := bytes.Clone(whole)
	broken[24+16+40+8+3] = 0x7f // a length of the second packet
	code, stdout, stderr = exec(t, "replay", file(broken))
	if code != 1 || !strings.Contains(stderr, "the file is damaged at byte 80") || !strings.Contains(stdout, "1 packet in") {
		t.Errorf("damaged: code %d, %q\n%s", code, stderr, stdout)
	}
	same := file(whole)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"replay"}, 2, "name a capture"},
		{[]string{"replay", "a", "b"}, 2, `unexpected argument "b"`},
		{[]string{"replay", "/nonexistent.pcap"}, 1, "read the capture: open /nonexistent.pcap: no such file"},
		{[]string{"replay", t.TempDir()}, 1, "is a directory"},
		{[]string{"replay", file([]byte("hello world"))}, 1, "not a capture: neither pcap nor pcapng"},
		{[]string{"replay", same, "--public", "::1"}, 2, `must be an IPv4 address such as 203.0.113.1, not "::1"`},
		{[]string{"replay", same, "--seed", "x"}, 2, "must be a whole number"},
		{[]string{"replay", same, "--write", same}, 1, "is the capture that is read"},
		{[]string{"replay", same, "--write", "/dev/full"}, 1, "write the translated capture"},
	} {
		code, _, stderr := exec(t, c.args...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: code %d, %q, want %q", c.args, code, stderr, c.want)
		}
	}
	if after, _ := os.ReadFile(same); !bytes.Equal(after, whole) {
		t.Error("the capture was overwritten")
	}
}

// The progress is drawn now and then, and taken away before anything else is.
func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := &progress{w: &b, total: 200, calls: 255}
	p.at(100)
	if _, err := p.before(&b).Write([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	p.clear()
	if want := "\r\x1b[K 50% of 0.0 MB\r\x1b[Kline\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
	p.drawn, p.calls = time.Now().Add(time.Hour), 255
	p.at(150)
	if strings.Contains(b.String(), "75") {
		t.Error("drawn at once again")
	}
	if none := newProgress(&b, 100); none.w != nil {
		t.Error("progress on something that is no terminal")
	}
}
