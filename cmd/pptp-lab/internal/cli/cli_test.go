package cli

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pptp-alg/e2e/lab"
)

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"", ExitUsage, "", "Usage: pptp-lab"},
		{"help", ExitOK, "Usage: pptp-lab", ""},
		{"bogus", ExitUsage, "", "Usage: pptp-lab"},
		{"demo --bogus", ExitUsage, "", "-bogus"},
		{"demo more", ExitUsage, "", ""},
		{"demo --help", ExitOK, "-program", ""},
		{"probe --help", ExitOK, "  41  GRE does not come back", ""},
		{"probe", ExitUsage, "", "probe [FLAGS] HOST"},
		{"probe a b", ExitUsage, "", "probe [FLAGS] HOST"},
		{"probe 192.0.2.1:no", 10, "", "wrong port"},
		{"client --help", ExitOK, "-one-connection", ""},
		{"client --encryption 64 192.0.2.1", ExitUsage, "", "64"},
		{"client --tunnels 2 --tun 192.0.2.1", ExitUsage, "", "-tunnels"},
		{"server --help", ExitOK, "-inside", ""},
		{"server --inside ::1/64", ExitUsage, "", "-inside"},
		{"server --auth mine", ExitUsage, "", "mine"},
	} {
		var out, errs bytes.Buffer
		if code := Run(context.Background(), strings.Fields(c.args), &out, &errs); code != c.code ||
			!strings.Contains(out.String(), c.stdout) || !strings.Contains(errs.String(), c.stderr) {
			t.Errorf("pptp-lab %s: exit code %d, %q, %q", c.args, code, out.String(), errs.String())
		}
	}
}

func TestDemo(t *testing.T) {
	if err := lab.Check(t.Context()); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	program := filepath.Join(t.TempDir(), "pptp-alg")
	if out, err := exec.Command("go", "build", "-o", program, "pptp-alg/cmd/pptp-alg").CombinedOutput(); err != nil {
		t.Fatalf("build pptp-alg: %v\n%s", err, out)
	}
	var out, errs bytes.Buffer
	if code := Run(t.Context(), []string{"demo", "--program", program}, &out, &errs); code != ExitOK {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), errs.String())
	}
	for _, want := range []string{
		"client2: 5 of 5 answered, the server: 5 of 5 answered",
		"lan  in   10.77.1.2       > 198.18.1.1",
		"2 calls on 2 control connections",
		"taken its table with it",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demonstration does not say %q:\n%s", want, out.String())
		}
	}
	errs.Reset()
	if code := Run(t.Context(), []string{"demo", "--program", "/nonexistent"}, &out, &errs); code != ExitFailure || !strings.Contains(errs.String(), "/nonexistent") {
		t.Errorf("without the program: exit code %d, %q", code, errs.String())
	}
}
