package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"pptp-alg/e2e/lab"
)

// architectures are those of routers, and the environment that builds for them as
// the Makefile does.
var architectures = []struct {
	name string
	env  []string
}{
	{"amd64", nil}, {"386", nil}, {"arm64", nil}, {"arm", []string{"GOARM=7"}},
	{"mips", []string{"GOMIPS=softfloat"}}, {"mipsle", []string{"GOMIPS=softfloat"}},
}

// size measures programs and a daemon without calls.
func (r *run) size(ctx context.Context) (*Size, error) {
	s := &Size{Machine: r.machine()}
	for range r.plan.Starts {
		if err := r.start(ctx, s); err != nil {
			return nil, err
		}
	}
	r.say("%.0f ms from start to ready; %.1f MB resident, %.1f MB of it private", s.Ready.Median(), s.Resident.Median()/1e6, s.Private.Median()/1e6)
	for _, a := range architectures[:r.plan.Builds] {
		b, err := compile(ctx, a.name, a.env)
		if err != nil {
			return nil, err
		}
		r.say("%-6s %.2f MB, compressed %.2f MB", b.Architecture, float64(b.Bytes)/1e6, float64(b.Compressed)/1e6)
		s.Binaries = append(s.Binaries, b)
	}
	return s, nil
}

// start starts a daemon in an empty lab.
func (r *run) start(ctx context.Context, s *Size) (err error) {
	w, err := newWorld(ctx, Masq, r.options())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	took, err := seconds(func() error { return w.startAndWait(r.options()) })
	if err != nil {
		return err
	}
	if err := w.daemon.Ready(ctx); err != nil { // a status, as monitoring asks for
		return err
	}
	u, err := w.daemonUse()
	if err != nil {
		return err
	}
	s.Ready.Rounds = append(s.Ready.Rounds, 1000*took)
	s.Resident.Rounds, s.Private.Rounds = append(s.Resident.Rounds, float64(u.resident)), append(s.Private.Rounds, float64(u.anon))
	return nil
}

// startAndWait starts a daemon, in the place of one that was there, and returns the
// moment that its log says "ready".
func (w *world) startAndWait(o options) (err error) {
	d := lab.DaemonOptions{Program: o.program, Config: o.config}
	if w.daemon != nil {
		d.Socket = w.daemon.Socket() // what it kept for the next one is beside it
	}
	w.daemon, err = w.router.StartDaemon(d)
	if err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(200 * time.Microsecond) {
		if strings.Contains(w.daemon.Log(), "msg=ready") {
			return nil
		}
		if !w.daemon.Running() {
			break
		}
	}
	return fmt.Errorf("the daemon did not get ready:\n%s", w.daemon.Log())
}

// compile builds the stripped program for an architecture. The working directory
// is within the module.
func compile(ctx context.Context, architecture string, env []string) (b Binary, err error) {
	dir, err := os.MkdirTemp("", "pptp-bench-")
	if err != nil {
		return b, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "pptp-alg")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "pptp-alg/cmd/pptp-alg")
	build.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture), env...)
	if out, err := build.CombinedOutput(); err != nil {
		return b, fmt.Errorf("build for %s: %w\n%s", architecture, err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		return b, err
	}
	b = Binary{Architecture: architecture, Bytes: info.Size()}
	if xz, err := exec.LookPath("xz"); err == nil {
		var out bytes.Buffer
		compress := exec.CommandContext(ctx, xz, "-9e", "-c", path)
		compress.Stdout = &out
		if err := compress.Run(); err != nil {
			return b, fmt.Errorf("compress: %w", err)
		}
		b.Compressed = int64(out.Len())
	}
	return b, nil
}
