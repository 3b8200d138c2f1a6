package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"
)

// maxStreams bounds the clients that listen to streams, so that others find a place.
const maxStreams = maxClients / 2

// A Streamer sends values until it returns, each as a line. The context ends when the
// client leaves or the server is closed; send fails when the client does not read.
type Streamer func(ctx context.Context, args json.RawMessage, send func(any) error) error

// Stream registers a command that answers with many lines, until the client leaves.
func (s *Server) Stream(command string, f Streamer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == nil {
		s.streams = map[string]Streamer{}
	}
	s.streams[command] = f
}

// stream serves a request for a stream, and reports whether it was one. The client
// is disconnected after it.
func (s *Server) stream(c net.Conn, in *bufio.Scanner, line []byte) bool {
	var r request
	if json.Unmarshal(line, &r) != nil {
		return false // it will be told
	}
	s.mu.Lock()
	f := s.streams[r.Command]
	if f == nil {
		s.mu.Unlock()
		return false
	}
	full := s.streaming >= maxStreams
	if !full {
		s.streaming++
	}
	s.mu.Unlock()
	send := func(v any) error {
		c.SetWriteDeadline(time.Now().Add(s.timeout))
		return write(c, v)
	}
	if full {
		send(failure{"too many clients listen, try again"})
		return true
	}
	defer func() {
		s.mu.Lock()
		s.streaming--
		s.mu.Unlock()
	}()
	r.Args = bytes.Clone(r.Args) // the scanner's, which reads on
	ctx, cancel := context.WithCancel(s.ctx)
	gone := make(chan struct{})
	c.SetReadDeadline(time.Time{})
	go func() {
		defer close(gone)
		defer cancel()
		for in.Scan() { // nothing more is expected but the end
		}
	}()
	if err := s.guarded(ctx, f, r, send); err != nil && ctx.Err() == nil {
		send(failure{err.Error()})
	}
	cancel()
	c.Close()
	<-gone
	return true
}

// guarded keeps a fault in a stream from being the end of the daemon.
func (s *Server) guarded(ctx context.Context, f Streamer, r request, send func(any) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("control command failed", "command", r.Command, "panic", p, "stack", string(debug.Stack()))
			err = errors.New("internal error, see the daemon's log")
		}
	}()
	return f(ctx, r.Args, send)
}

// Stream sends a command and calls each with every line of the answer. It returns
// nil when the context ends, each's error, or an [ErrNoDaemon] when the daemon
// ends.
func Stream(ctx context.Context, path, command string, args any, each func(json.RawMessage) error) error {
	c, err := connect(ctx, path, time.Now().Add(10*time.Second))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	r, err := newRequest(command, args)
	if err != nil {
		return err
	}
	writeErr := write(c, r)
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadBytes('\n')
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && writeErr != nil:
			return fmt.Errorf("%w on %s: %w", ErrNoDaemon, path, writeErr)
		case err != nil:
			return fmt.Errorf("%w any more on %s: %w", ErrNoDaemon, path, err)
		}
		if refusal := refused(line); refusal != nil {
			return refusal
		}
		if err := each(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return err
		}
	}
}
