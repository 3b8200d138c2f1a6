package cli

import (
	programs "os/exec"
	"slices"
	"strings"
	"testing"
)

// The shell completes commands, their flags, and the values of those.
func TestBashCompletes(t *testing.T) {
	if _, err := programs.LookPath("bash"); err != nil {
		t.Skip("needs bash")
	}
	for _, c := range []struct {
		line []string // words so far; the last one is being typed
		want string   // among the answers
		only bool     // and alone
	}{
		{[]string{"sta"}, "status", true},
		{[]string{"run", "--log-f"}, "--log-format", true},
		{[]string{"run", "--log-format", ""}, "json", false},
		{[]string{"run", "--log-format", "j"}, "json", true},
		{[]string{"run", "--config", "/etc/pass"}, "/etc/passwd", false},
		{[]string{"status", "--"}, "--help", false},
	} {
		words := append([]string{"pptp-alg"}, c.line...)
		script := `source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pptp_alg "$1" "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}"`
		out, err := programs.Command("bash", append([]string{"-c", script, "../../../../packaging/completion/pptp-alg.bash"}, words...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", words, err, out)
		}
		got := strings.Fields(string(out))
		if !slices.Contains(got, c.want) || c.only && len(got) != 1 {
			t.Errorf("%v completes to %q", words, got)
		}
	}
}
