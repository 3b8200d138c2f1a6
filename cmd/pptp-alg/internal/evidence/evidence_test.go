package evidence

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/pcap"
)

var (
	start  = time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.UTC)
	client = netip.MustParseAddrPort("10.0.0.11:40000")
	server = netip.MustParseAddrPort("198.51.100.2:1723")
)

// packetOf is a packet of n bytes with a mark.
func packetOf(mark byte, n int) []byte {
	b := make([]byte, n)
	b[0], b[n-1] = 0x45, mark
	return b
}

// names lists a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// marks are the marks of a file's packets.
func marks(t *testing.T, path string) (all []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcap.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for {
		p, err := r.Next()
		if err != nil {
			return all
		}
		all = append(all, p.Data[len(p.Data)-1])
	}
}

func keeper(t *testing.T, cfg Config) *Keeper {
	t.Helper()
	if cfg.Directory == "" {
		cfg.Directory = filepath.Join(t.TempDir(), "made", "anew")
	}
	if cfg.Say == nil {
		cfg.Say = func(err error) { t.Error(err) }
	}
	k, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A connection that fails is written with its last packets, the one that made it
// fail included; others are not.
func TestFailed(t *testing.T) {
	k := keeper(t, Config{Total: 1 << 20, Connection: 4096})
	for i := range 100 {
		k.Add("a", client, server, start, packetOf(byte(i), 100))
	}
	k.Add("b", client, server, start, packetOf(1, 100))
	k.Failed("a", start, "refused")
	k.Add("a", client, server, start, packetOf(100, 100))
	k.Flush()
	k.Failed("never seen", start, "refused")
	k.Closed("b")
	k.Flush()
	if len(k.rings) != 1 || len(k.due) != 0 {
		t.Errorf("%d connections are left, %d due", len(k.rings), len(k.due))
	}
	k.Close()
	got := names(t, k.cfg.Directory)
	if want := "20260301T120000.005Z-10.0.0.11_40000-198.51.100.2_1723-refused.pcap"; len(got) != 1 || got[0] != want {
		t.Fatalf("%q, want %q", got, want)
	}
	path := filepath.Join(k.cfg.Directory, got[0])
	m := marks(t, path)
	if len(m) != 4096/116 || m[len(m)-1] != 100 || m[0] != byte(101-len(m)) {
		t.Errorf("packets %d", m)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if st, _ := os.Stat(k.cfg.Directory); st.Mode().Perm() != 0o700 {
		t.Errorf("directory's mode %v", st.Mode())
	}
}

// One that fails by being closed is written before it is forgotten.
func TestFailedAndClosed(t *testing.T) {
	k := keeper(t, Config{Total: 1 << 20, Connection: 4096})
	k.Add("a", client, server, start, packetOf(1, 100))
	k.Closed("a")
	k.Failed("a", start, "failed")
	k.Flush()
	k.Close()
	if got := names(t, k.cfg.Directory); len(got) != 1 || len(k.rings) != 0 {
		t.Errorf("%q, %d left", got, len(k.rings))
	}
}

// The directory does not grow: the oldest files go, and only ours.
func TestTotal(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "00000000T000000.000Z-mine.pcap")
	if err := os.WriteFile(foreign, make([]byte, 10000), 0o600); err != nil {
		t.Fatal(err)
	}
	k := keeper(t, Config{Directory: dir, Total: 3500, Connection: 4096})
	for i := range 9 {
		k.Add(i, client, server, start, packetOf(byte(i), 1000))
		k.Failed(i, start.Add(time.Duration(i)*time.Second), "failed")
		for len(k.jobs) > 0 {
			time.Sleep(time.Millisecond)
		}
		k.Flush()
	}
	k.Close()
	got := slices.DeleteFunc(names(t, dir), func(s string) bool { return strings.HasPrefix(s, "0") })
	if len(got) != 3 || marks(t, filepath.Join(dir, got[0]))[0] != 6 || marks(t, filepath.Join(dir, got[2]))[0] != 8 {
		t.Errorf("%q", got)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error("somebody else's file is gone")
	}
}

// Many failures at once do not fill the disk's queue, nor does a minute of them.
func TestRate(t *testing.T) {
	k := keeper(t, Config{Total: 1 << 20, Connection: 4096})
	fail := func(at time.Time, n int) {
		for i := range n {
			k.Add(i, client, server, at, packetOf(1, 100))
			k.Failed(i, at.Add(time.Duration(i)*time.Millisecond), "failed")
			k.Flush()
			for len(k.jobs) > 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	fail(start, 3*perTime)
	fail(start.Add(period+time.Second), 1)
	k.Close()
	if got := names(t, k.cfg.Directory); len(got) != perTime+1 {
		t.Errorf("%d files", len(got))
	}
}

// Memory is bounded, with however many connections.
func TestMemory(t *testing.T) {
	k := keeper(t, Config{Total: 1 << 20, Connection: 64 << 10})
	defer k.Close()
	sum := 0
	for i := range 2000 {
		for range 70 {
			k.Add(i, client, server, start, packetOf(1, 1000))
		}
	}
	for _, r := range k.rings {
		sum += r.bytes
	}
	if sum > 8*memory {
		t.Errorf("%d bytes are kept", sum)
	}
}

// A directory that can't be used is said at once; one that breaks later, once.
func TestBroken(t *testing.T) {
	if _, err := New(Config{Directory: "/proc/nothing"}); err == nil {
		t.Error("took a directory that cannot be")
	}
	said := 0
	dir := filepath.Join(t.TempDir(), "d")
	k := keeper(t, Config{Directory: dir, Total: 1 << 20, Connection: 4096, Say: func(error) { said++ }})
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	k.Add(1, client, server, start, packetOf(1, 100))
	for range 3 {
		k.Failed(1, start, "failed")
		k.Flush()
	}
	k.Close()
	if said != 1 {
		t.Errorf("said %d times", said)
	}
}

// Nobody asked for it.
func TestNil(t *testing.T) {
	var k *Keeper
	k.Add(1, client, server, start, nil)
	k.Failed(1, start, "failed")
	k.Closed(1)
	k.Flush()
	k.Close()
}
