package metrics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Bounds of what those who ask can take.
const (
	maxClients = 16
	maxRequest = 8 << 10         // bytes of a request's header
	patience   = 5 * time.Second // for a request, and for the answer to be taken
	fresh      = time.Second     // within which nothing new is collected
)

// A Server answers GET /metrics.
type Server struct {
	// Collect returns what is to be written. It is called by one goroutine at
	// a time.
	collect func(context.Context) ([]Family, error)
	l       net.Listener
	clients chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	group   sync.WaitGroup

	mu   sync.Mutex
	last []byte
	at   time.Time
}

// Listen opens an address, HOST:PORT, or a Unix socket when the address is a
// path. A socket that a dead process left behind makes way.
func Listen(address string) (net.Listener, error) {
	if !strings.HasPrefix(address, "/") {
		return net.Listen("tcp", address)
	}
	l, err := net.Listen("unix", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		c, e := net.DialTimeout("unix", address, time.Second)
		switch {
		case e == nil:
			c.Close()
		case errors.Is(e, syscall.ECONNREFUSED):
			if st, e := os.Lstat(address); e == nil && st.Mode().Type() == os.ModeSocket && os.Remove(address) == nil {
				l, err = net.Listen("unix", address)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(address, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// NewServer returns a server for a listener, which it closes.
func NewServer(l net.Listener, collect func(context.Context) ([]Family, error)) *Server {
	s := &Server{collect: collect, l: l, clients: make(chan struct{}, maxClients)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve answers until the server is closed.
func (s *Server) Serve() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(100 * time.Millisecond) // no file descriptors, perhaps
			continue
		}
		select {
		case s.clients <- struct{}{}:
			s.group.Go(func() {
				defer func() { <-s.clients }()
				s.answer(c)
			})
		default: // too many: this one may come again
			c.Close()
		}
	}
}

// Close ends the server, and the answers that are being given.
func (s *Server) Close() error {
	s.cancel()
	err := s.l.Close()
	s.group.Wait()
	return err
}

// answer answers one request and closes the connection.
func (s *Server) answer(c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(s.ctx, func() { c.Close() })
	defer stop()
	if c.SetDeadline(time.Now().Add(patience)) != nil {
		return
	}
	method, path, status := request(c)
	if status == 0 {
		return // it went away, or said nothing in time
	}
	body, kind := []byte(nil), "text/plain; charset=utf-8"
	switch {
	case status != 200:
	case method != "GET" && method != "HEAD":
		status = 405
	case path != "/metrics":
		status = 404
	default:
		var err error
		if body, err = s.text(); err != nil {
			status, body = 503, []byte(err.Error()+"\n")
		} else {
			kind = ContentType
		}
	}
	if body == nil {
		body = fmt.Appendf(nil, "%s\n", reasons[status])
		if status == 404 {
			body = []byte("Metrics are at /metrics.\n")
		}
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n", status, reasons[status], kind, len(body))
	if status == 405 {
		head += "Allow: GET, HEAD\r\n"
	}
	if method == "HEAD" {
		body = nil
	}
	if _, err := c.Write(append([]byte(head+"\r\n"), body...)); err != nil {
		return
	}
	// A reset would take the answer away from one who sends more than was read.
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, maxRequest)
	}
}

var reasons = map[int]string{
	200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
	431: "Request Header Fields Too Large", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}

// request reads a request's header (RFC 9112, section 3). The status is 0 if
// none came.
func request(c io.Reader) (method, path string, status int) {
	limited := &io.LimitedReader{R: c, N: maxRequest}
	r := bufio.NewReaderSize(limited, 1<<10)
	line := ""
	for n := 0; ; n++ {
		l, err := r.ReadString('\n')
		if err != nil {
			if limited.N == 0 {
				return "", "", 431
			}
			return "", "", 0
		}
		l = strings.TrimRight(l, "\r\n")
		switch {
		case n == 0:
			line = l
			continue
		case l != "":
			continue
		}
		break
	}
	f := strings.Split(line, " ")
	if len(f) != 3 || !strings.HasPrefix(f[2], "HTTP/") {
		return "", "", 400
	}
	if f[2] != "HTTP/1.1" && f[2] != "HTTP/1.0" {
		return "", "", 505
	}
	path, _, _ = strings.Cut(f[1], "?")
	if rest, ok := strings.CutPrefix(path, "http://"); ok { // as to a proxy: servers have to take it
		_, path, _ = strings.Cut(rest, "/")
		path = "/" + path
	}
	return f[0], path, 200
}

// text returns the metrics, collected a moment ago or now: however often they
// are asked for, the daemon is asked once a second.
func (s *Server) text() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && time.Since(s.at) < fresh {
		return s.last, nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience/2)
	defer cancel()
	families, err := s.collect(ctx)
	if err != nil {
		return nil, fmt.Errorf("the daemon does not answer: %w", err)
	}
	s.last, s.at = Encode(families), time.Now()
	return s.last, nil
}
