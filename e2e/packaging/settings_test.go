package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const settings = "../../packaging/openwrt/pptp-alg/files/settings.sh"

// functions is as much of OpenWrt's /lib/functions.sh as settings.sh needs: a
// file of /etc/config is read by running it.
const functions = `
reset_cb() { config_cb() { :; }; option_cb() { :; }; list_cb() { :; }; }
reset_cb
config() { config_cb "$1" "$2"; }
option() { local name=$1; shift; option_cb "$name" "$*"; }
list() { local name=$1; shift; list_cb "$name" "$*"; }
config_load() { . "./$1"; config_cb; }
`

// OpenWrt's settings become the program's own, under the same names.
func TestSettings(t *testing.T) {
	script, err := filepath.Abs(settings)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, uci, want string }{
		{"nothing", "", ""},
		{"as installed", "config pptp-alg 'main'\n\toption enabled '1'\n", ""},
		{"values", `
config pptp-alg 'main'
	option enabled '0'
	option queue '7'
	list ports '1723'
	list ports '11723'
	option guard 'all'
	option call_id_range '1-100'
	option zero '0'
	option octal '010'
	option switch 'true'
	option empty ''
`, `queue = 7
ports = [1723, 11723]
guard = "all"
call_id_range = "1-100"
zero = 0
octal = "010"
switch = true
empty = ""
`},
		{"tables, also before what is at the top", `
config limits 'limits'
	option calls '5'
config pptp-alg
	option guard 'calls'
config timeouts
	option rest '60s'
	list last 'a'
`, `guard = "calls"

[limits]
calls = 5

[timeouts]
rest = "60s"
last = ["a"]
`},
		{"two lists", "config pptp-alg\n\tlist a '1'\n\tlist b '2'\n\tlist b '3'\n", "a = [1]\nb = [2, 3]\n"},
		{"no way out of the quotes", "config pptp-alg\n\toption a 'x\" = \\n; b'\n", `a = "x\" = \\n; b"` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{"functions.sh": functions, "pptp-alg": c.uci} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("sh", "-ec", `. ./functions.sh; . "$0"; settings`, script)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if want := "# Made from /etc/config/pptp-alg: changes are lost.\n" + c.want; err != nil || string(out) != want {
				t.Errorf("%v\n%s\nwant\n%s", err, out, want)
			}
		})
	}
}
