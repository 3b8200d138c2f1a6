package cli

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pptp-alg/e2e/lab"
)

// output is what a program in the background has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// The built program: a server outside, a client and probes inside, the daemon
// between.
func TestPrograms(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := lab.Check(ctx); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	for _, p := range []string{"pptp-alg", "pptp-lab"} {
		if out, err := exec.Command("go", "build", "-o", dir, "pptp-alg/cmd/"+p).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", p, err, out)
		}
	}
	program := filepath.Join(dir, "pptp-lab")
	s, err := lab.NewSite(ctx, lab.Plan{Clients: 1, Servers: 2, Firewall: []lab.Piece{lab.Masquerade("wan"), lab.StrictForward("lan", 1723)}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	d, err := s.Router.StartDaemon(lab.DaemonOptions{Program: filepath.Join(dir, "pptp-alg")})
	if err == nil {
		err = d.Ready(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}

	var out output
	server := exec.CommandContext(ctx, program, "server", "--user", "ali", "--password", "sesame", "--listen", s.Servers[0].Address.String(), "--tun")
	server.Stdout, server.Stderr = &out, &out
	if err := s.Servers[0].Do(server.Start); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	for !strings.Contains(out.String(), "Listening") {
		select {
		case err := <-ended:
			t.Fatalf("the server ended: %v\n%s", err, out.String())
		case <-ctx.Done():
			t.Fatalf("the server says only:\n%s", out.String())
		case <-time.After(10 * time.Millisecond):
		}
	}

	good, nobody := s.Servers[0].Address.String(), s.Servers[1].Address.String()
	login := " --user ali --password sesame"
	for _, c := range []struct {
		args string
		code int
		say  string
	}{
		{"probe " + good, 0, "PPTP gets through"},
		{"probe --call-id 0" + login + " " + good, 0, "3 of 3 pings"},
		{"probe --user ali --password barley " + good, 50, "login failed"},
		{"probe " + nobody, 11, "refused"},
		{"client" + login + " " + good, ExitOK, "3 of 3 pings"},
		{"client --tunnels 20 --encryption 40,stateful,required" + login + " " + good, ExitOK, "60 of 60 pings"},
		{"client --tunnels 5 --one-connection --auth mschapv2" + login + " " + good, ExitOK, "15 of 15 pings"},
		{"client --tun --hold 1ms" + login + " " + good, ExitOK, "pptp0: 172.20.0."},
		{"client --user ali --password barley " + good, ExitFailure, "691"},
		{"client " + nobody, ExitFailure, "refused"},
	} {
		stdout, stderr, code, err := s.Clients[0].Program(ctx, program, strings.Fields(c.args)...)
		if err != nil || code != c.code || !strings.Contains(stdout+stderr, c.say) {
			t.Errorf("pptp-lab %s: exit code %d, %v\n%s%s", c.args, code, err, stdout, stderr)
		}
	}

	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || strings.Contains(out.String(), "Strange") {
		t.Errorf("the server ended with %v:\n%s", err, out.String())
	}
}
