package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary plays other programs when this is in the environment.
const roleVariable = "PPTP_LAB_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "": // the tests
		os.Exit(m.Run())
	case "daemon":
		time.Sleep(time.Minute)
	case "owner":
		l, err := New()
		if err == nil {
			var h *Host
			if h, err = l.Host("router"); err == nil {
				var d *Daemon
				if d, err = h.StartDaemon(DaemonOptions{Program: os.Args[0], Env: []string{roleVariable + "=daemon"}}); err == nil {
					fmt.Println(d.PID(), l.Dir())
					time.Sleep(time.Minute)
				}
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A process that is killed takes its daemons with it, and the next one removes
// its directory.
func TestKilledOwner(t *testing.T) {
	require(t)
	t.Setenv("TMPDIR", t.TempDir())
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), roleVariable+"=owner")
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	number, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Fatal("the daemon does not run")
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	for end := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the daemon outlives the process that started it")
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	sweep()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory of the killed process is left: %v", err)
	}
}

// alive says whether a process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}
