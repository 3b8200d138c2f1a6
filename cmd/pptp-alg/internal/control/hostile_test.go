package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Hundreds of clients connect, half of them say nothing and half send half a
// request. None of them is there for long, and then there is room again.
func TestHundredsOfConnections(t *testing.T) {
	s, path := start(t, 300*time.Millisecond)
	var all []net.Conn
	for i := range 500 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		if i%2 == 0 {
			io.WriteString(c, `{"command":"ec`)
		}
		all = append(all, c)
		s.mu.Lock()
		n := len(s.clients)
		s.mu.Unlock()
		if n > maxClients {
			t.Fatalf("%d clients", n)
		}
	}
	refused := 0
	for i, c := range all {
		c.SetDeadline(time.Now().Add(patience))
		line, err := bufio.NewReader(c).ReadString('\n')
		switch {
		case err == nil && strings.HasPrefix(line, `{"error":"too many clients`):
			refused++
		case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatalf("client %d read %q, %v", i, line, err)
		}
	}
	// A client whose request was not read before it was refused may miss the words.
	if refused == 0 {
		t.Error("nobody was told that there are too many")
	}
	waitFor(t, func() bool { return Call(t.Context(), path, "echo", 1, new(any)) == nil })
}

// Clients that ask for megabytes and do not read them make the server keep a bounded
// part of it. The others are told, and answers of ordinary size go on.
func TestAnswersUnderWay(t *testing.T) {
	s, path := start(t, time.Hour)
	var readers []net.Conn // who do not read
	for range 3 {
		c := dial(t, path)
		readers = append(readers, c)
		io.WriteString(c, `{"command":"large"}`+"\n")
	}
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.underWay >= 3*(8<<20) })
	err := Call(t.Context(), path, "large", nil, new(any))
	if err == nil || !strings.Contains(err.Error(), "have not read their answers") {
		t.Errorf("one more large answer: %v", err)
	}
	if err := Call(t.Context(), path, "echo", 1, new(any)); err != nil {
		t.Errorf("a small one: %v", err)
	}
	s.mu.Lock()
	if s.underWay > maxUnderWay {
		t.Errorf("%d bytes are under way", s.underWay)
	}
	s.mu.Unlock()
	for _, c := range readers {
		c.Close()
	}
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.clients) == 0 && s.underWay == 0 })
	if err := Call(t.Context(), path, "large", nil, new(any)); err != nil {
		t.Errorf("when they are gone: %v", err)
	}
}

// What is in the way of the socket or of its lock and is not ours is left as it is.
func TestNotOurs(t *testing.T) {
	for name, put := range map[string]func(dir, path string) error{
		"a directory":         func(_, path string) error { return os.Mkdir(path, 0o755) },
		"a link":              func(dir, path string) error { return os.Symlink(filepath.Join(dir, "precious"), path) },
		"a lock that is one":  func(dir, path string) error { return os.Symlink(filepath.Join(dir, "precious"), path+".lock") },
		"a directory as lock": func(_, path string) error { return os.Mkdir(path+".lock", 0o755) },
		"a long file as lock": func(_, path string) error {
			return os.WriteFile(path+".lock", []byte(strings.Repeat("precious ", 10)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "control.sock")
			precious := filepath.Join(dir, "precious")
			os.WriteFile(precious, []byte("precious"), 0o600)
			if err := put(dir, path); err != nil {
				t.Fatal(err)
			}
			look := func() (list []string) {
				filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
					b, _ := os.ReadFile(p)
					list = append(list, p+" "+st.Mode().String()+" "+string(b))
					return err
				})
				return list
			}
			before := strings.Join(look(), "\n")
			s, err := Listen(Config{Path: path})
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%v: does not say where", err)
			}
			if after := strings.Join(look(), "\n"); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// Any answer of a daemon, or of something else: an error or a document, no panic.
func FuzzClient(f *testing.F) {
	for _, s := range []string{`{"error":"no"}`, `{"error":`, `{"version":"1","calls":[]}`, "", "null", `{"error":7}`, "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		line, _, _ := strings.Cut(string(answer), "\n")
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(c).ReadString('\n')
			c.Write(append(answer, '\n'))
			c.Close()
		}()
		var result any
		err = Call(t.Context(), path, "status", nil, &result)
		var refusal RemoteError
		switch {
		case errors.As(err, &refusal):
			if !strings.HasPrefix(line, `{"error":`) {
				t.Errorf("%q became the refusal %q", line, refusal)
			}
		case err == nil && !json.Valid([]byte(line)):
			t.Errorf("%q became %v", line, result)
		}
	})
}
