package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxRequest = 64 << 10 // bytes of a request line
	maxClients = 32
	// maxUnderWay bounds the bytes of answers that clients have not taken yet. One
	// answer may be larger if there is no other: a status of many calls has
	// megabytes, and clients that read slowly must not add them up.
	maxUnderWay = 32 << 20
)

// A Handler answers a command with a value that becomes JSON. It is called from
// the goroutine of the client, several at a time. The context ends when the server
// is closed, and when the client's patience is over.
type Handler func(ctx context.Context, args json.RawMessage) (any, error)

// request is what a client sends.
type request struct {
	Command string          `json:"command"`
	Args    json.RawMessage `json:"args,omitempty"`
}

// failure is the answer that says why there is none.
type failure struct {
	Error string `json:"error"`
}

// A Server answers commands on a socket.
type Server struct {
	claim    *claim
	listener *net.UnixListener
	log      *slog.Logger
	timeout  time.Duration // of a request line, a handler, and an answer each

	mu        sync.Mutex
	handlers  map[string]Handler
	streams   map[string]Streamer
	streaming int // clients that listen to a stream
	clients   map[net.Conn]struct{}
	closed    bool
	underWay  int // bytes of answers
	running   sync.WaitGroup
	ctx       context.Context
	cancel    context.CancelFunc
}

// Config says where to listen.
type Config struct {
	Path string
	Log  *slog.Logger // of faults that no client is told; nil for none
}

// Listen takes the path and listens on it. The error is an [*InUseError] when
// another daemon lives there.
func Listen(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c, l, err := take(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	s := &Server{
		claim: c, listener: l, log: cfg.Log, timeout: 10 * time.Second,
		handlers: map[string]Handler{}, clients: map[net.Conn]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Handle registers the handler of a command.
func (s *Server) Handle(command string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[command] = h
}

// Serve answers clients until the server is closed, and then returns nil.
func (s *Server) Serve() error {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || isTransient(err) {
				// Out of file descriptors, say: clients wait, the daemon lives.
				s.log.Warn("control socket", "error", err)
				select {
				case <-time.After(100 * time.Millisecond):
				case <-s.ctx.Done():
				}
				continue
			}
			return fmt.Errorf("accept on control socket: %w", err)
		}
		s.admit(c)
	}
}

// admit gives a client a goroutine if there is room.
func (s *Server) admit(c net.Conn) {
	s.mu.Lock()
	full := len(s.clients) >= maxClients
	if !full && !s.closed {
		s.clients[c] = struct{}{}
		s.running.Add(1)
	}
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
		c.Close()
	case full:
		// The line fits into an empty socket buffer: this does not wait.
		c.SetWriteDeadline(time.Now().Add(time.Second))
		write(c, failure{"too many clients, try again"})
		c.Close()
	default:
		go func() {
			defer s.running.Done()
			s.converse(c)
			c.Close()
			s.mu.Lock()
			delete(s.clients, c)
			s.mu.Unlock()
		}()
	}
}

// converse answers one client until it leaves or misbehaves.
func (s *Server) converse(c net.Conn) {
	in := bufio.NewScanner(c)
	in.Buffer(make([]byte, 0, 512), maxRequest)
	for {
		c.SetReadDeadline(time.Now().Add(s.timeout))
		// The scanner hands out what it has when reading fails, too: at the end
		// of input that is a last line without newline, else half a request.
		if !in.Scan() || in.Err() != nil {
			if errors.Is(in.Err(), bufio.ErrTooLong) {
				c.SetWriteDeadline(time.Now().Add(s.timeout))
				write(c, failure{fmt.Sprintf("request is longer than %d bytes", maxRequest)})
			}
			return
		}
		if s.stream(c, in, in.Bytes()) {
			return
		}
		done := s.alive(c)
		line := encode(s.answer(in.Bytes()))
		done()
		if !s.reply(c, line) {
			return
		}
	}
}

// alive sends a client a space now and then, which JSON may begin with, until its answer is done.
func (s *Server) alive(c net.Conn) (done func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		t := time.NewTicker(s.timeout / 5)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				c.SetWriteDeadline(time.Now().Add(s.timeout))
				if _, err := c.Write([]byte(" ")); err != nil {
					return // the answer will fail too
				}
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// piece is how much of an answer a client has to take in the time that is given to it.
const piece = 1 << 20

// reply sends an answer, and reports whether the client took it.
func (s *Server) reply(c net.Conn, line []byte) bool {
	s.mu.Lock()
	if s.underWay > 0 && s.underWay+len(line) > maxUnderWay {
		line = encode(failure{"other clients have not read their answers yet, try again"})
	}
	s.underWay += len(line)
	s.mu.Unlock()
	var err error
	for part := range slices.Chunk(line, piece) {
		c.SetWriteDeadline(time.Now().Add(s.timeout))
		if _, err = c.Write(part); err != nil {
			break
		}
	}
	s.mu.Lock()
	s.underWay -= len(line)
	s.mu.Unlock()
	return err == nil
}

// answer carries a request out.
func (s *Server) answer(line []byte) (result any) {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return failure{"not a request: " + err.Error()}
	}
	s.mu.Lock()
	h := s.handlers[r.Command]
	s.mu.Unlock()
	if h == nil {
		return failure{fmt.Sprintf("unknown command %q; there is %s", r.Command, strings.Join(s.commands(), ", "))}
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	defer func() {
		// A fault in a question about the daemon must not be the end of it.
		if p := recover(); p != nil {
			s.log.Error("control command failed", "command", r.Command, "panic", p, "stack", string(debug.Stack()))
			result = failure{"internal error, see the daemon's log"}
		}
	}()
	v, err := h(ctx, r.Args)
	if err != nil {
		return failure{err.Error()}
	}
	return v
}

func (s *Server) commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for n := range s.handlers {
		names = append(names, n)
	}
	for n := range s.streams {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// encode makes one line of a value.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		b, _ = json.Marshal(failure{"cannot encode the answer: " + err.Error()})
	}
	return append(b, '\n')
}

// write sends a value as one line.
func write(c net.Conn, v any) error {
	_, err := c.Write(encode(v))
	return err
}

// Close removes the socket, disconnects the clients and waits for their
// handlers.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.cancel()
	s.mu.Unlock()
	err := s.claim.release()
	if e := s.listener.Close(); err == nil {
		err = e
	}
	s.mu.Lock()
	for c := range s.clients {
		c.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	if err != nil {
		return fmt.Errorf("close control socket: %w", err)
	}
	return nil
}
