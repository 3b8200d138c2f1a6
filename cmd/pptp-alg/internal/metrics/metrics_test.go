package metrics

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

func TestEncode(t *testing.T) {
	got := string(Encode([]Family{
		One("a_total", "Says \\ and\nmore.", Counter, 12345678),
		{"b", "B.", Gauge, []Sample{{[]string{"side", "client"}, 0.5}, {[]string{"x", "a\"\\\n", "y", "é"}, 1e300}}},
		{"none", "Without samples.", Gauge, nil},
	}))
	want := "# HELP a_total Says \\\\ and\\nmore.\n# TYPE a_total counter\na_total 12345678\n" +
		"# HELP b B.\n# TYPE b gauge\nb{side=\"client\"} 0.5\nb{x=\"a\\\"\\\\\\n\",y=\"é\"} 1e+300\n" +
		"# HELP none Without samples.\n# TYPE none gauge\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestProcess(t *testing.T) {
	all := map[string]float64{}
	for _, f := range Process() {
		all[f.Name] = f.Samples[0].Value
	}
	for name, least := range map[string]float64{
		"process_open_fds": 3, "process_max_fds": 10, "process_resident_memory_bytes": 1 << 20,
		"process_virtual_memory_bytes": 1 << 20, "process_start_time_seconds": 1.5e9, "process_cpu_seconds_total": 0, "go_goroutines": 2,
	} {
		if v, ok := all[name]; !ok || v < least || v > 1e15 {
			t.Errorf("%s is %v", name, v)
		}
	}
	if n, ok := maxFiles([]byte("Limit\nMax open files   1024  4096 files\n")); !ok || n != 1024 {
		t.Errorf("%v, %v", n, ok)
	}
}

// serve starts a server on a Unix socket and on TCP.
func serve(t *testing.T, collect func(context.Context) ([]Family, error)) (socket, address string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "m.sock")
	for i, where := range []string{socket, "127.0.0.1:0"} {
		l, err := Listen(where)
		if err != nil {
			t.Fatal(err)
		}
		s := NewServer(l, collect)
		go s.Serve()
		t.Cleanup(func() { s.Close() })
		if i == 1 {
			address = l.Addr().String()
		}
	}
	return socket, address
}

func some(context.Context) ([]Family, error) {
	return []Family{One("x_total", "X.", Counter, 7)}, nil
}

// ask sends a request and returns the whole answer.
func ask(t *testing.T, socket, request string) string {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRequests(t *testing.T) {
	socket, _ := serve(t, some)
	body := "# HELP x_total X.\n# TYPE x_total counter\nx_total 7\n"
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: 51\r\nConnection: close\r\n\r\n"
	prometheus := "GET /metrics HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Prometheus/2.42.0\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\nAccept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
	for _, c := range []struct{ name, request, want string }{
		{"Prometheus", prometheus, head + body},
		{"HEAD", "HEAD /metrics HTTP/1.1\r\n\r\n", head},
		{"1.0", "GET /metrics HTTP/1.0\n\n", head + body},
		{"query", "GET /metrics?x=1 HTTP/1.1\r\n\r\n", head + body},
		{"absolute", "GET http://x/metrics HTTP/1.1\r\n\r\n", head + body},
		{"elsewhere", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
		{"POST", "POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405 Method Not Allowed\r\n"},
		{"two", "GET /metrics HTTP/2.0\r\n\r\n", "HTTP/1.1 505 HTTP Version Not Supported\r\n"},
		{"nonsense", "hello\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
		{"long", "GET /" + strings.Repeat("x", maxRequest) + " HTTP/1.1\r\n\r\n", "HTTP/1.1 431 Request Header Fields Too Large\r\n"},
		{"many headers", "GET /metrics HTTP/1.1\r\n" + strings.Repeat("a: b\r\n", 2000), "HTTP/1.1 431 "},
	} {
		got := ask(t, socket, c.request)
		if !strings.HasPrefix(got, c.want) || strings.HasPrefix(c.want, head) && got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// The daemon is asked once, however often and by how many.
func TestCollectedOnce(t *testing.T) {
	var n atomic.Int64
	socket, _ := serve(t, func(ctx context.Context) ([]Family, error) { n.Add(1); return some(ctx) })
	first := ask(t, socket, "GET /metrics HTTP/1.1\r\n\r\n")
	for range 5 {
		ask(t, socket, "GET /metrics HTTP/1.1\r\n\r\n")
	}
	// A slow machine may take longer than the answer stays fresh.
	if !strings.Contains(first, "x_total 7") || n.Load() > 3 {
		t.Errorf("collected %d times", n.Load())
	}
}

func TestNoAnswer(t *testing.T) {
	socket, _ := serve(t, func(context.Context) ([]Family, error) { return nil, errors.New("busy") })
	if got := ask(t, socket, "GET /metrics HTTP/1.1\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "busy") {
		t.Errorf("got %s", got)
	}
}

// Those who connect and say nothing do not keep others out: beyond the bound they
// are turned away, and a close ends them.
func TestSilentClients(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "m.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(l, some)
	go s.Serve()
	var silent []net.Conn
	for range maxClients {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	one, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if n, err := one.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("one too many: %d bytes, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, c := range silent {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("after the end: %d bytes, %v", n, err)
		}
	}
}

// A socket of a dead process makes way, one of a living one does not, nor does a file.
func TestListen(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(stale)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := Listen(stale); err == nil {
		t.Error("took the socket of one who lives")
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil {
		t.Error("took the place of a file")
	}
	if b, _ := os.ReadFile(file); string(b) != "mine" {
		t.Error("the file is gone")
	}
}

// curl and promtool are content.
func TestOracles(t *testing.T) {
	socket, address := serve(t, func(context.Context) ([]Family, error) {
		return append(Process(), One("pptp_alg_x_total", "X.", Counter, 7)), nil
	})
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is missing")
	}
	over, err := exec.Command(curl, "-sS", "--fail", "--max-time", "20", "http://"+address+"/metrics").Output()
	if err != nil || !bytes.Contains(over, []byte("pptp_alg_x_total 7\n")) {
		t.Errorf("TCP: %v\n%s", err, over)
	}
	unix, err := exec.Command(curl, "-sS", "--fail", "--max-time", "20", "--unix-socket", socket, "http://localhost/metrics").Output()
	if err != nil || !bytes.Contains(unix, []byte("pptp_alg_x_total 7\n")) {
		t.Errorf("Unix socket: %v\n%s", err, unix)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if promtool, err = filepath.Abs("../../../../bin/promtool"); err == nil {
			_, err = os.Stat(promtool)
		}
	}
	if err != nil {
		t.Skip("promtool is missing (`make promtool` fetches it)")
	}
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = bytes.NewReader(over)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s\n%s", err, out, over)
	}
}
