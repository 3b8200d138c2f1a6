package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// streaming starts a server with one stream.
func streaming(t *testing.T, timeout time.Duration, f Streamer) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s, err := Listen(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.Handle("ping", func(context.Context, json.RawMessage) (any, error) { return "pong", nil })
	s.Stream("count", f)
	s.timeout = timeout
	go s.Serve()
	return s, path
}

// Lines come one by one, with what was asked for, until the client has enough.
func TestStream(t *testing.T) {
	ended := make(chan error, 1)
	_, path := streaming(t, time.Minute, func(ctx context.Context, args json.RawMessage, send func(any) error) error {
		var from int
		if err := json.Unmarshal(args, &from); err != nil {
			return err
		}
		for n := from; n < from+3; n++ {
			if err := send(n); err != nil {
				return err
			}
		}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil
	})
	var got []string
	enough := errors.New("enough")
	err := Stream(t.Context(), path, "count", 7, func(line json.RawMessage) error {
		if got = append(got, string(line)); len(got) == 3 {
			return enough
		}
		return nil
	})
	if err != enough || strings.Join(got, " ") != "7 8 9" {
		t.Errorf("got %v, %v", got, err)
	}
	if err := <-ended; err == nil {
		t.Error("the stream does not know that its client left")
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := Stream(ctx, path, "count", 1, func(json.RawMessage) error { cancel(); return nil }); err != nil {
		t.Errorf("a client that ends its context gets %v", err)
	}
}

// What goes wrong is told in words, and is the end of one client at most.
func TestStreamFailures(t *testing.T) {
	s, path := streaming(t, time.Minute, func(_ context.Context, args json.RawMessage, send func(any) error) error {
		switch string(args) {
		case `"panic"`:
			panic("now")
		case `"end"`:
			return send("last")
		}
		return errors.New("not that")
	})
	none := func(json.RawMessage) error { return nil }
	for args, want := range map[string]string{"panic": "internal error, see the daemon's log", "x": "not that"} {
		var refusal RemoteError
		if err := Stream(t.Context(), path, "count", args, none); !errors.As(err, &refusal) || err.Error() != want {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
	if err := Stream(t.Context(), path, "county", nil, none); err == nil || !strings.Contains(err.Error(), "there is count, ping") {
		t.Errorf("unknown stream: %v", err)
	}
	if err := Stream(t.Context(), path, "count", "end", none); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("a stream that ended: %v", err)
	}
	s.Close()
	if err := Stream(t.Context(), path, "count", "end", none); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("no daemon: %v", err)
	}
}

// Only so many listen; others are told, and questions are answered beside them.
// Closing the server ends them all.
func TestStreamsAreBounded(t *testing.T) {
	began := make(chan struct{}, maxStreams)
	s, path := streaming(t, time.Minute, func(ctx context.Context, _ json.RawMessage, _ func(any) error) error {
		began <- struct{}{}
		<-ctx.Done()
		return nil
	})
	ended := make(chan error, maxStreams)
	for range maxStreams {
		go func() { ended <- Stream(t.Context(), path, "count", nil, func(json.RawMessage) error { return nil }) }()
		<-began
	}
	if err := Stream(t.Context(), path, "count", nil, nil); err == nil || err.Error() != "too many clients listen, try again" {
		t.Errorf("one too many: %v", err)
	}
	if b, err := Raw(t.Context(), path, "ping", nil); err != nil || string(b) != `"pong"` {
		t.Errorf("ping beside them: %s, %v", b, err)
	}
	s.Close()
	for range maxStreams {
		if err := <-ended; !errors.Is(err, ErrNoDaemon) {
			t.Errorf("at the end: %v", err)
		}
	}
}

// A client that does not read is disconnected, and holds nobody up.
func TestStreamUnread(t *testing.T) {
	ended := make(chan error, 1)
	_, path := streaming(t, 100*time.Millisecond, func(ctx context.Context, _ json.RawMessage, send func(any) error) error {
		for {
			if err := send(strings.Repeat("x", 64<<10)); err != nil {
				ended <- err
				return err
			}
		}
	})
	c, err := connect(t.Context(), path, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, `{"command":"count"}`)
	if err := <-ended; err == nil {
		t.Error("it was not noticed")
	}
}
