package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// FastPathVariable names the environment variable by which all daemons are started with the fast path, "on", or without.
const FastPathVariable = "PPTP_ALG_FAST_PATH"

// DaemonOptions say how to start the daemon.
type DaemonOptions struct {
	Program string   // path of pptp-alg
	Args    []string // after "run --socket PATH"
	Config  string   // if not empty: contents of a file given with --config
	Env     []string // added to the environment
	Socket  string   // default: a path of its own in the lab's directory
}

// Daemon is a running pptp-alg.
type Daemon struct {
	host    *Host
	program string
	socket  string
	config  string // path of the configuration file, or ""
	cmd     *exec.Cmd
	log     logBuffer
	done    chan struct{}
	err     error // of Wait, once done is closed
}

// logBuffer takes what the daemon writes to both its outputs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var daemonCount atomic.Int64

// StartDaemon starts the daemon on the host and returns as soon as the process
// runs. Wait for it with Ready.
func (h *Host) StartDaemon(o DaemonOptions) (*Daemon, error) {
	n := strconv.FormatInt(daemonCount.Add(1), 10)
	d := &Daemon{host: h, program: o.Program, socket: o.Socket, done: make(chan struct{})}
	if d.socket == "" {
		d.socket = filepath.Join(h.lab.Dir(), "control-"+n+".sock")
	}
	args := []string{"run", "--socket", d.socket}
	if o.Config != "" {
		d.config = filepath.Join(h.lab.Dir(), "config-"+n+".toml")
		if err := d.WriteConfig(o.Config); err != nil {
			return nil, err
		}
		args = append(args, "--config", d.config)
	}
	if s := os.Getenv(FastPathVariable); s != "" {
		args = append(args, "--fast-path", s) // what the scenario says itself comes later and counts
	}
	d.cmd = exec.Command(o.Program, append(args, o.Args...)...)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.Env = append(os.Environ(), o.Env...)
	// A test binary that is killed cannot clean up: the kernel does it. The
	// signal comes when the *thread* ends that started the process, hence the
	// thread waits with it.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread stays inside the host
		if err := h.enter(); err != nil {
			started <- err
			return
		}
		err := d.cmd.Start()
		started <- err
		if err == nil {
			d.err = d.cmd.Wait()
			close(d.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start daemon on %s: %w", h.name, err)
	}
	h.mu.Lock()
	h.daemons = append(h.daemons, d)
	h.mu.Unlock()
	h.lab.OnClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			return d.Kill()
		}
		return nil
	})
	return d, nil
}

// WriteConfig replaces the configuration file, for a later SIGHUP.
func (d *Daemon) WriteConfig(text string) error {
	if d.config == "" {
		return errors.New("write configuration: the daemon was started without one")
	}
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// Socket is the path of the control socket.
func (d *Daemon) Socket() string { return d.socket }

// PID is the process ID.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Log gives what the daemon has written so far.
func (d *Daemon) Log() string { return d.log.String() }

// Running says whether the process is there.
func (d *Daemon) Running() bool {
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// exitError says how the process ended.
func (d *Daemon) exitError() error {
	if d.err == nil {
		return errors.New("exit status 0")
	}
	return d.err
}

// ExitCode waits for the process and gives its exit code, -1 for a signal.
func (d *Daemon) ExitCode(ctx context.Context) (int, error) {
	select {
	case <-d.done:
		return d.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for daemon's end: %w", ctx.Err())
	}
}

// Ready waits until the daemon answers on its socket, or has ended.
func (d *Daemon) Ready(ctx context.Context) error {
	for {
		_, err := d.Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-d.done:
			return fmt.Errorf("daemon ended before it was ready: %w\n%s", d.exitError(), d.Log())
		case <-ctx.Done():
			return fmt.Errorf("wait for daemon: %w (last answer: %w)\n%s", ctx.Err(), err, d.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Signal sends the daemon a signal.
func (d *Daemon) Signal(s syscall.Signal) error {
	if !d.Running() {
		return os.ErrProcessDone
	}
	return d.cmd.Process.Signal(s)
}

// Stop ends the daemon with SIGTERM and waits. An exit code other than 0 is an
// error; that it had ended before is not.
func (d *Daemon) Stop(ctx context.Context) error {
	if err := d.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	} else if err != nil {
		return fmt.Errorf("stop daemon: %w", err)
	}
	code, err := d.ExitCode(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("stop daemon: exit code %d", code)
	}
	return err
}

// Kill ends the daemon with SIGKILL and waits.
func (d *Daemon) Kill() error {
	if err := d.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill daemon: %w", err)
	}
	<-d.done
	return nil
}

// Command runs another subcommand of the program inside the host; it gives
// standard output, standard error and the exit code.
func (d *Daemon) Command(ctx context.Context, args ...string) (stdout, stderr string, code int, err error) {
	return d.host.Program(ctx, d.program, args...)
}

// Program runs a program inside the host to its end. An exit code other than 0
// is not an error.
func (h *Host) Program(ctx context.Context, path string, args ...string) (stdout, stderr string, code int, err error) {
	cmd := exec.CommandContext(ctx, path, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := h.Do(cmd.Start); err != nil {
		return "", "", 0, fmt.Errorf("start %s: %w", path, err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		err = nil
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode(), err
}

// StatusText asks for the table for people.
func (d *Daemon) StatusText(ctx context.Context) (string, error) {
	out, errs, code, err := d.Command(ctx, "status", "--socket", d.socket)
	if err == nil && code != 0 {
		err = fmt.Errorf("status: exit code %d: %s", code, errs)
	}
	return out, err
}

// StatusJSON asks for the status as JSON.
func (d *Daemon) StatusJSON(ctx context.Context) ([]byte, error) {
	out, errs, code, err := d.Command(ctx, "status", "--json", "--socket", d.socket)
	if err == nil && code != 0 {
		err = fmt.Errorf("status: exit code %d: %s", code, errs)
	}
	return []byte(out), err
}
