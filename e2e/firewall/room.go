// Package firewall runs other people's firewalls on a router of the lab: the real programs of Debian's packages, in a
// file system of their own, see the scripts programs and room. The scripts named after firewalls say how each is set up.
package firewall

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"pptp-alg/e2e/lab"
)

// here is this package's directory, where the scripts are.
var here = func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}()

// programs is where the firewalls' programs are, and docker's. The first to ask waits for the download.
var programs = sync.OnceValues(func() (trees [2]string, err error) {
	var errs bytes.Buffer
	cmd := exec.Command(filepath.Join(here, "programs"))
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return trees, fmt.Errorf("get the firewalls' programs: %w: %s", err, errs.String())
	}
	if n := copy(trees[:], strings.Split(strings.TrimSpace(string(out)), "\n")); n < len(trees) {
		return trees, fmt.Errorf("get the firewalls' programs: it says %q", out)
	}
	return trees, nil
})

// Room is a file system on a router with the firewalls' programs. It goes with the lab.
type Room struct {
	host    *lab.Host
	process string // of the process that holds it
}

// Open makes a room on a router.
func Open(h *lab.Host) (*Room, error) {
	trees, err := programs()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child",
		filepath.Join(here, "room"), trees[0], trees[1], filepath.Join(h.Lab().Dir(), "room-"+h.Name()))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	// The room lasts as long as this pipe: not longer than this process.
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	says, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("make a room for firewalls: %w", err)
	}
	line, err := bufio.NewReader(says).ReadString('\n')
	if err != nil {
		_ = hold.Close()
		return nil, fmt.Errorf("make a room for firewalls: %w: %s", errors.Join(err, cmd.Wait()), errs.String())
	}
	h.Lab().OnClose(func() error {
		_, _ = hold.Close(), says.Close()
		return cmd.Wait()
	})
	return &Room{h, strings.TrimSpace(line)}, nil
}

// Shell runs a script of bash in the room and gives what it says. What it starts in the background goes on.
func (r *Room) Shell(ctx context.Context, script string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", r.process, "--mount", "--pid", "--root", "--",
		"env", "-C", "/", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "bash", "-euo", "pipefail", "-c", script, "firewall"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.host.Do(cmd.Start); err != nil {
		return "", fmt.Errorf("start a shell: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", script, strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

// Do has the script of a firewall do something: start, reload, restart, stop, or what else it knows.
func (r *Room) Do(ctx context.Context, firewall, action string, args ...string) error {
	_, err := r.Shell(ctx, `exec bash -euo pipefail "$@"`, append([]string{filepath.Join(here, firewall), action}, args...)...)
	return err
}
