package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// config prints what the file and the flags come to, as a file; a wrong file is
// refused with each fault and its line.
func TestConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pptp-alg.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("guard = \"all\"\nqueue = 9\n")
	code, first, stderr := exec(t, "config", "--config", file, "--queue", "7", "--port", "5")
	if code != 0 || stderr != "" {
		t.Fatalf("code %d, %s", code, stderr)
	}
	for _, want := range []string{"guard = \"all\"\n", "queue = 7\n", "ports = [5]\n", "\n[timeouts]\n"} {
		if !strings.Contains(first, want) {
			t.Errorf("no %q in\n%s", want, first)
		}
	}
	write(first)
	if _, second, _ := exec(t, "config", "--config", file); second != first {
		t.Errorf("what was printed is read as\n%s\ninstead of\n%s", second, first)
	}
	write("gard = \"all\"\nqueue = -1\n")
	code, out, stderr := exec(t, "config", "--config", file)
	if code != 1 || out != "" || !strings.Contains(stderr, ":1: gard is not a key (did you mean guard?)") || !strings.Contains(stderr, ":2: queue must") {
		t.Errorf("a wrong file: code %d, %q, %s", code, out, stderr)
	}
}
