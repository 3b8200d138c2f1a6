package calllog

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func known[T any](v T) *T { return &v }

var at = time.Date(2026, 3, 1, 13, 4, 5, 67_900_000, time.FixedZone("", 3600))

func made() Record {
	return Record{
		Time: at, Event: "made", ID: 7,
		Client: netip.MustParseAddr("10.0.0.12"), ClientCallID: known(uint16(5)),
		Public: netip.MustParseAddr("203.0.113.1"), PublicCallID: known(uint16(27)),
		Server: netip.MustParseAddr("198.51.100.2"), ServerCallID: known(uint16(0)), ServerToldCallID: known(uint16(255)),
	}
}

func ended() Record {
	r := made()
	r.Event, r.Duration, r.Reason = "ended", 61500*time.Millisecond, "disconnected by the \"server\":\nlost carrier (result 1)"
	r.PacketsFromClient, r.BytesFromClient = known(uint64(10)), known(uint64(2000))
	r.PacketsFromServer, r.BytesFromServer = known(uint64(0)), known(uint64(0))
	r.Server = netip.Addr{}
	return r
}

const (
	madeLine  = "call made call=7 client=10.0.0.12 client_call_id=5 public=203.0.113.1 public_call_id=27 server=198.51.100.2 server_call_id=0 server_told_call_id=255"
	endedLine = "call ended call=7 client=10.0.0.12 client_call_id=5 public=203.0.113.1 public_call_id=27 server_call_id=0 server_told_call_id=255" +
		` duration=61.500 packets_from_client=10 bytes_from_client=2000 packets_from_server=0 bytes_from_server=0 reason="disconnected by the \"server\": lost carrier (result 1)"`
	stamp = "2026-03-01T12:04:05.067Z"
)

// log opens a log; what it says is an error but in sink tests that expect it.
func open(t *testing.T, to string, say func(error, uint64)) *Log {
	t.Helper()
	if say == nil {
		say = func(err error, lost uint64) { t.Errorf("said %v, %d lost", err, lost) }
	}
	l, err := New(to, say)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A file that was moved or deleted is begun anew; what is there is appended to.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, path, nil)
	l.Write(made())
	l.Write(ended())
	if got, want := content(t, path), "before\n"+stamp+" "+madeLine+"\n"+stamp+" "+endedLine+"\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	l.Write(made())
	if got := content(t, path); got != stamp+" "+madeLine+"\n" {
		t.Errorf("after the rotation: %s", got)
	}
	// logrotate's "create": another file is there at once.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	l.Write(made())
	if got := content(t, path); got != stamp+" "+madeLine+"\n" {
		t.Errorf("after a rotation that creates: %q", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l.Write(made())
	if got := content(t, path); got != stamp+" "+madeLine+"\n" {
		t.Errorf("after the removal: %s", got)
	}
	if st, _ := os.Stat(path); st.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode %v", st.Mode())
	}
}

// A record without what is not known.
func TestSparse(t *testing.T) {
	r := Record{Time: at, Event: "failed", ID: 1, Client: netip.MustParseAddr("10.0.0.1"), Public: netip.MustParseAddr("10.0.0.1"), Reason: ""}
	if got, want := r.message(), `call failed call=1 client=10.0.0.1 public=10.0.0.1 duration=0.000 reason=""`; got != want {
		t.Errorf("got %s", got)
	}
}

// syslogLine is a message of RFC 5424 with the given text.
func syslogLine(event, text string) string {
	host, _ := os.Hostname()
	return fmt.Sprintf("<30>1 %s %s pptp-alg %d %s - %s", stamp, host, os.Getpid(), event, text)
}

func TestSyslogDatagrams(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	open(t, "udp:"+udp.LocalAddr().String(), nil).Write(made())
	b := make([]byte, 4096)
	n, _, err := udp.ReadFrom(b)
	if got, want := string(b[:n]), syslogLine("made", madeLine); err != nil || got != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}

	path := filepath.Join(t.TempDir(), "log")
	local, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	s, err := openSyslog("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	r := ended()
	if err := s.write(&r); err != nil {
		t.Fatal(err)
	}
	n, _, err = local.ReadFrom(b)
	if got, want := string(b[:n]), syslogLine("ended", endedLine); err != nil || got != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	local, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	s, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	r := ended()
	if err := s.write(&r); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, _, err := local.ReadFrom(b)
	want := "MESSAGE=" + endedLine + "\nPRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=pptp-alg\nPPTP_EVENT=ended\nPPTP_TIME=" + stamp + "\n" +
		"PPTP_CALL=7\nPPTP_CLIENT=10.0.0.12\nPPTP_CLIENT_CALL_ID=5\nPPTP_PUBLIC=203.0.113.1\nPPTP_PUBLIC_CALL_ID=27\nPPTP_SERVER_CALL_ID=0\nPPTP_SERVER_TOLD_CALL_ID=255\n" +
		"PPTP_DURATION=61.500\nPPTP_PACKETS_FROM_CLIENT=10\nPPTP_BYTES_FROM_CLIENT=2000\nPPTP_PACKETS_FROM_SERVER=0\nPPTP_BYTES_FROM_SERVER=0\n" +
		"PPTP_REASON=disconnected by the \"server\": lost carrier (result 1)\n"
	if got := string(b[:n]); err != nil || got != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}
}

// read reads a message that is preceded by its length.
func read(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var n int
	if _, err := fmt.Fscanf(r, "%d ", &n); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A server that was restarted gets the next record; one that is down loses
// some, which are counted and told.
func TestSyslogTCP(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	l := open(t, "tcp:"+server.Addr().String(), func(err error, lost uint64) { said = append(said, fmt.Sprint(err, lost)) })
	l.Write(made())
	first, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, bufio.NewReader(first)), syslogLine("made", madeLine); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	first.Close()
	for !gone(l.sink.(*syslog).c) { // until the end has come through
		time.Sleep(time.Millisecond)
	}
	l.Write(ended())
	second, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, bufio.NewReader(second)); got != syslogLine("ended", endedLine) || len(said) != 0 {
		t.Errorf("after a restart: %s, said %q", got, said)
	}

	server.Close()
	second.Close()
	for !gone(l.sink.(*syslog).c) {
		time.Sleep(time.Millisecond)
	}
	for range 5 {
		l.Write(made())
	}
	l.Missed(10)
	if len(said) != 1 || !strings.Contains(said[0], "write the call log to tcp:") {
		t.Errorf("said %q", said)
	}
	server, err = net.Listen("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l.failed = l.failed.Add(-again) // a second later
	l.Write(made())
	third, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	r := bufio.NewReader(third)
	if got := read(t, r); got != syslogLine("lost", "records lost records=15") {
		t.Errorf("got %s", got)
	}
	if got := read(t, r); got != syslogLine("made", madeLine) {
		t.Errorf("got %s", got)
	}
	if len(said) != 2 || said[1] != "<nil> 15" {
		t.Errorf("said %q", said)
	}
}

// A sink that failed is left alone for a while: nobody waits for it each time.
func TestLeftAlone(t *testing.T) {
	l := open(t, "/nonexistent/calls.log", func(error, uint64) {})
	tries := 0
	open := l.open
	l.open = func() (sink, error) { tries++; return open() }
	l.Write(made())
	l.failed = time.Now().Add(time.Hour) // however slow this machine is
	for range 100 {
		l.Write(made())
	}
	if tries != 2 || l.lost != 101 {
		t.Errorf("tried %d times, lost %d", tries, l.lost)
	}
}

func TestNew(t *testing.T) {
	for _, to := range []string{"", "calls.log", "journald", "http:x:1"} {
		if _, err := New(to, nil); err == nil {
			t.Errorf("%q is taken", to)
		}
	}
}

// One that does not work is known before the first record, which tries again at once.
func TestOpen(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "later")
	var said []error
	l := open(t, filepath.Join(directory, "calls.log"), func(err error, lost uint64) {
		if lost > 0 {
			t.Errorf("%d records lost", lost)
		}
		said = append(said, err)
	})
	l.Open()
	if len(said) != 1 || said[0] == nil {
		t.Fatalf("said %v", said)
	}
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	l.Write(Record{Event: "made"})
	l.Write(Record{Event: "ended"})
	if len(said) != 2 || said[1] != nil {
		t.Errorf("said %v", said)
	}
}
