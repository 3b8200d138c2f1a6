package main

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
		{"", exitUsage, "", "Usage: pptp-lab"},
		{"help", exitOK, "Usage: pptp-lab", ""},
		{"bogus", exitUsage, "", "Usage: pptp-lab"},
		{"demo --bogus", exitUsage, "", "-bogus"},
		{"demo more", exitUsage, "", ""},
		{"demo --help", exitOK, "", "-program"},
	} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), strings.Fields(c.args), &out, &errs); code != c.code ||
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
	if out, err := exec.Command("go", "build", "-o", program, "../pptp-alg").CombinedOutput(); err != nil {
		t.Fatalf("build pptp-alg: %v\n%s", err, out)
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"demo", "--program", program}, &out, &errs); code != exitOK {
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
	if code := run(t.Context(), []string{"demo", "--program", "/nonexistent"}, &out, &errs); code != exitFailure || !strings.Contains(errs.String(), "/nonexistent") {
		t.Errorf("without the program: exit code %d, %q", code, errs.String())
	}
}
