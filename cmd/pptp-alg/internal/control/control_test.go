package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const patience = 30 * time.Second

// start runs a server that knows the commands echo, fail and panic.
func start(t *testing.T, timeout time.Duration) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	s, err := Listen(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if timeout > 0 {
		s.timeout = timeout
	}
	s.Handle("echo", func(_ context.Context, args json.RawMessage) (any, error) {
		return map[string]any{"echo": args}, nil
	})
	s.Handle("fail", func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("no such call: 7") })
	s.Handle("panic", func(context.Context, json.RawMessage) (any, error) { panic("oops") })
	s.Handle("unencodable", func(context.Context, json.RawMessage) (any, error) { return func() {}, nil })
	s.Handle("large", func(context.Context, json.RawMessage) (any, error) { return strings.Repeat("x", 8<<20), nil })
	s.Handle("wait", func(ctx context.Context, _ json.RawMessage) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, path
}

// dial connects as a client that speaks by hand.
func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

func ask(t *testing.T, c net.Conn, r *bufio.Reader, request, want string) {
	t.Helper()
	if request != "" {
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
	}
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, want) {
		t.Fatalf("answer %q, %v; want %q", line, err, want)
	}
}

func TestCall(t *testing.T) {
	_, path := start(t, 0)
	var got struct{ Echo map[string]int }
	if err := Call(t.Context(), path, "echo", map[string]int{"n": 7}, &got); err != nil || got.Echo["n"] != 7 {
		t.Errorf("got %+v, %v", got, err)
	}
	var remote RemoteError
	err := Call(t.Context(), path, "fail", nil, nil)
	if !errors.As(err, &remote) || err.Error() != "no such call: 7" {
		t.Errorf("got %v, want the daemon's words", err)
	}
	err = Call(t.Context(), path, "nonsense", nil, nil)
	if err == nil || !strings.Contains(err.Error(), `unknown command "nonsense"; there is echo, fail, large`) {
		t.Errorf("unknown command: %v", err)
	}
	if err := Call(t.Context(), path, "panic", nil, nil); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("panic: %v", err)
	}
	if err := Call(t.Context(), path, "unencodable", nil, nil); err == nil || !strings.Contains(err.Error(), "cannot encode") {
		t.Errorf("answer that is no JSON: %v", err)
	}
	var large string
	if err := Call(t.Context(), path, "large", nil, &large); err != nil || len(large) != 8<<20 {
		t.Errorf("large answer: %d bytes, %v", len(large), err)
	}
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	if err := Call(t.Context(), dir+"/none.sock", "echo", nil, nil); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("no socket: %v", err)
	}
	// A socket without a daemon behind it.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/dead.sock", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Call(ctx, dir+"/dead.sock", "echo", nil, nil); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("silent socket: %v", err)
	}
	l.Close()
	if err := Call(t.Context(), dir+"/dead.sock", "echo", nil, nil); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("dead socket: %v", err)
	}
}

// A connection carries several requests; nonsense gets an answer and does not
// end it.
func TestConversation(t *testing.T) {
	_, path := start(t, 0)
	c := dial(t, path)
	r := bufio.NewReader(c)
	ask(t, c, r, `{"command":"echo","args":[1,2]}`+"\n", `{"echo":[1,2]}`)
	ask(t, c, r, "nonsense\n", `{"error":"not a request: `)
	ask(t, c, r, "\n", `{"error":"not a request: `)
	ask(t, c, r, `{"command":"echo","args":3}`+"\n", `{"echo":3}`)
	// The last request may come without its newline.
	io.WriteString(c, `{"command":"echo","args":4}`)
	c.(*net.UnixConn).CloseWrite()
	ask(t, c, r, "", `{"echo":4}`)
}

func TestRequestTooLong(t *testing.T) {
	_, path := start(t, 0)
	c := dial(t, path)
	go io.WriteString(c, strings.Repeat("x", maxRequest+1))
	ask(t, c, bufio.NewReader(c), "", `{"error":"request is longer than 65536 bytes"}`)
	rest, _ := io.ReadAll(c)
	if len(rest) != 0 {
		t.Errorf("then %q", rest)
	}
}

// A client that sends half a request is disconnected.
func TestHalfRequest(t *testing.T) {
	_, path := start(t, 50*time.Millisecond)
	c := dial(t, path)
	io.WriteString(c, `{"command":`)
	if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v; want the end", n, err)
	}
}

// A client that does not read its answer is disconnected, and nobody else waits
// for it.
func TestSlowReader(t *testing.T) {
	_, path := start(t, time.Hour)
	io.WriteString(dial(t, path), `{"command":"large"}`+"\n")
	if err := Call(t.Context(), path, "echo", 1, new(any)); err != nil {
		t.Error(err)
	}
	s, path := start(t, 200*time.Millisecond)
	io.WriteString(dial(t, path), `{"command":"large"}`+"\n")
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.clients) == 0 })
}

// A handler that takes too long is told so by its context.
func TestPatience(t *testing.T) {
	_, path := start(t, 500*time.Millisecond)
	err := Call(t.Context(), path, "wait", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("got %v", err)
	}
}

// While an answer is being made its client gets signs of life, and sees nothing of them in the answer.
func TestSignsOfLife(t *testing.T) {
	s, path := start(t, time.Second)
	release := make(chan struct{})
	s.Handle("slow", func(context.Context, json.RawMessage) (any, error) { <-release; return 7, nil })
	s.Handle("refuse", func(context.Context, json.RawMessage) (any, error) { <-release; return nil, errors.New("no") })
	c := dial(t, path)
	io.WriteString(c, `{"command":"slow"}`+"\n")
	b := make([]byte, 3)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "   " {
		t.Fatalf("%q, %v instead of spaces", b, err)
	}
	answers := make(chan string, 2)
	for _, command := range []string{"slow", "refuse"} {
		go func() {
			answer, err := Raw(t.Context(), path, command, nil)
			answers <- fmt.Sprintf("%s %v", answer, err)
		}()
	}
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.clients) == 3 })
	time.Sleep(300 * time.Millisecond) // some spaces; without them nothing is shown, and nothing fails
	close(release)
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || strings.Trim(line, " \n") != "7" {
		t.Errorf("%q, %v", line, err)
	}
	got := []string{<-answers, <-answers}
	slices.Sort(got)
	if got[0] != " no" || got[1] != "7 <nil>" {
		t.Errorf("answers %q", got)
	}
}

// deadlines counts how often a deadline was set.
type deadlines struct {
	net.Conn
	set int
}

func (d *deadlines) SetReadDeadline(time.Time) error { d.set++; return nil }
func (d *deadlines) Read(b []byte) (int, error)      { return len(b), nil }

func TestDeadlineMovesOn(t *testing.T) {
	d := new(deadlines)
	if _, err := io.ReadFull(patient{d}, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := (patient{d}).Read(make([]byte, 1)); err != nil || d.set != 2 {
		t.Errorf("%d deadlines set for two reads, %v", d.set, err)
	}
}

// A caller that gives up does not wait for the daemon.
func TestCallerGivesUp(t *testing.T) {
	_, path := start(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	begin := time.Now()
	if err := Call(ctx, path, "wait", nil, nil); err == nil {
		t.Error("no error")
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("returned after %v", d)
	}
}

func TestTooManyClients(t *testing.T) {
	s, path := start(t, 0)
	var clients []net.Conn
	for range maxClients {
		c := dial(t, path)
		ask(t, c, bufio.NewReader(c), `{"command":"echo","args":1}`+"\n", `{"echo":1}`)
		clients = append(clients, c)
	}
	err := Call(t.Context(), path, "echo", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "too many clients") {
		t.Errorf("client %d: %v", maxClients+1, err)
	}
	clients[0].Close()
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.clients) < maxClients })
	if err := Call(t.Context(), path, "echo", 1, new(any)); err != nil {
		t.Errorf("after one left: %v", err)
	}
}

func TestMany(t *testing.T) {
	_, path := start(t, 0)
	var wg sync.WaitGroup
	for i := range 8 { // well below maxClients: one that left counts until that was noticed
		wg.Go(func() {
			for n := range 50 {
				var got struct{ Echo string }
				want := fmt.Sprint(i, "/", n)
				if err := Call(t.Context(), path, "echo", want, &got); err != nil || got.Echo != want {
					t.Errorf("got %q, %v; want %q", got.Echo, err, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestModes(t *testing.T) {
	_, path := start(t, 0)
	for p, want := range map[string]fs.FileMode{path: 0o660, path + ".lock": 0o600, filepath.Dir(path): 0o755} {
		st, err := os.Stat(p)
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", p, st.Mode().Perm(), err, want)
		}
	}
	names, _ := filepath.Glob(filepath.Dir(path) + "/.*")
	if len(names) != 0 {
		t.Errorf("left over: %v", names)
	}
}

func TestSecondDaemon(t *testing.T) {
	_, path := start(t, 0)
	_, err := Listen(Config{Path: path})
	var used *InUseError
	if !errors.As(err, &used) || used.PID != os.Getpid() {
		t.Errorf("second: %v", err)
	}
	if err := Call(t.Context(), path, "echo", 1, new(any)); err != nil {
		t.Errorf("first was harmed: %v", err)
	}
}

func TestCloseRemoves(t *testing.T) {
	s, path := start(t, 0)
	c := dial(t, path)
	ask(t, c, bufio.NewReader(c), `{"command":"echo","args":1}`+"\n", `{"echo":1}`)
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("closing took %v with a client connected", d)
	}
	left, _ := os.ReadDir(filepath.Dir(path))
	if len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	// The path can be taken again.
	s2, err := Listen(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	s2.Close()
}

// A socket and a lock file left by a process that was killed are replaced.
func TestDeadDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	if os.Getenv("CONTROL_TEST_PATH") != "" {
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestHelperDaemon")
	cmd.Env = append(os.Environ(), "CONTROL_TEST_PATH="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("helper said %q, %v", line, err)
	}
	var used *InUseError
	if _, err := Listen(Config{Path: path}); !errors.As(err, &used) || used.PID != cmd.Process.Pid {
		t.Errorf("while it lives: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("the dead daemon left no socket: %v", err)
	}
	s, err := Listen(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestHelperDaemon is the daemon that TestDeadDaemon kills.
func TestHelperDaemon(t *testing.T) {
	path := os.Getenv("CONTROL_TEST_PATH")
	if path == "" {
		t.Skip("runs as a part of TestDeadDaemon")
	}
	if _, err := Listen(Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("ready\n")
	time.Sleep(time.Minute)
}

// What is not a socket is left alone; a stranger's live socket too.
func TestForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	os.WriteFile(path, []byte("precious"), 0o600)
	if _, err := Listen(Config{Path: path}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file now has %q", b)
	}
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var used *InUseError
	if _, err := Listen(Config{Path: path}); !errors.As(err, &used) {
		t.Errorf("a live socket: %v", err)
	}
	if _, err := os.Lstat(path + ".lock"); err == nil {
		t.Error("a refused daemon left its lock")
	}
}

// Any line: an answer in JSON, no panic.
func FuzzAnswer(f *testing.F) {
	s := &Server{handlers: map[string]Handler{}, log: slog.New(slog.DiscardHandler), timeout: time.Second, ctx: context.Background()}
	s.Handle("echo", func(_ context.Context, args json.RawMessage) (any, error) { return args, nil })
	f.Add([]byte(`{"command":"echo","args":{"a":[1,2]}}`))
	f.Add([]byte(`{"command":"none"}`))
	f.Add([]byte(`{"command":7}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, line []byte) {
		b, err := json.Marshal(s.answer(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if strings.Contains(string(b), "\n") {
			t.Fatalf("%q: answer %q is not one line", line, b)
		}
	})
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
