package control

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// maxAnswer bounds what a client reads. A call takes about half a kilobyte.
const maxAnswer = 256 << 20

// silence is how long a daemon may say nothing before its client gives up. While it is at work on an answer it
// sends spaces, see Server.alive: tens of thousands of calls take a slow machine a while.
const silence = 10 * time.Second

// patient is a connection whose deadline moves on with everything that is read.
type patient struct{ net.Conn }

func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

// ErrNoDaemon says that no daemon answers on the socket.
var ErrNoDaemon = errors.New("no daemon answers")

// A RemoteError is the daemon's refusal, in its words.
type RemoteError string

func (e RemoteError) Error() string { return string(e) }

// Call sends a command with its arguments (nil for none) and puts the answer into
// result. It gives up when the context ends; one without a deadline, after ten seconds without a sign of life.
func Call(ctx context.Context, path, command string, args, result any) error {
	b, err := Raw(ctx, path, command, args)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, result); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// Raw is [Call] with the answer as the daemon wrote it.
func Raw(ctx context.Context, path, command string, args any) (json.RawMessage, error) {
	r, err := newRequest(command, args)
	if err != nil {
		return nil, err
	}
	deadline, limited := ctx.Deadline()
	if !limited {
		deadline = time.Now().Add(silence)
	}
	c, err := connect(ctx, path, deadline)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(deadline)
	waits := c // which c stays, for the function above closes it in another goroutine
	if !limited {
		waits = patient{c}
	}
	// A daemon that has too many clients answers without reading; its words
	// matter more than our failure to write.
	writeErr := write(waits, r)
	line, err := bufio.NewReader(io.LimitReader(waits, maxAnswer)).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("%w on %s: %w", ErrNoDaemon, path, cmp.Or(writeErr, err))
	}
	line = bytes.Trim(line, " \n")
	if err := refused(line); err != nil {
		return nil, err
	}
	return json.RawMessage(line), nil
}

func newRequest(command string, args any) (r request, err error) {
	r.Command = command
	if args != nil {
		if r.Args, err = json.Marshal(args); err != nil {
			return r, fmt.Errorf("encode arguments: %w", err)
		}
	}
	return r, nil
}

// connect finds the daemon, or says in words why not.
func connect(ctx context.Context, path string, deadline time.Time) (net.Conn, error) {
	d := net.Dialer{Deadline: deadline}
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("%w on %s", ErrNoDaemon, path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("may not connect to %s: %w; try as root", path, unix.EACCES)
	case err != nil:
		return nil, fmt.Errorf("%w on %s: %w", ErrNoDaemon, path, err)
	}
	return c, nil
}

// refused returns the daemon's refusal if the line is one.
func refused(line []byte) error {
	if bytes.HasPrefix(line, []byte(`{"error":`)) {
		var f failure
		if err := json.Unmarshal(line, &f); err == nil {
			return RemoteError(f.Error)
		}
	}
	return nil
}
