package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const initScript = "../../packaging/openwrt/pptp-alg/files/pptp-alg.init"

// procd stands in for rc.common and procd.sh: what the script asks for is said
// on standard output.
const procd = functions + `
config_get_bool() { eval "$1=$4"; [ -z "$OFF" ] || eval "$1=0"; }
for f in procd_open_instance procd_close_instance procd_set_param procd_add_jail procd_add_jail_mount \
	procd_add_jail_mount_rw procd_add_reload_trigger; do
	eval "$f() { echo $f \"\$@\"; }"
done
`

// inOpenWrt runs a function of the init script with its files below a folder of
// the test's.
func inOpenWrt(t *testing.T, call, jail string, program string) (string, error) {
	t.Helper()
	script, err := os.ReadFile(initScript)
	if err != nil {
		t.Fatal(err)
	}
	helper, err := filepath.Abs(settings)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := string(script)
	for from, to := range map[string]string{
		"/usr/share/pptp-alg/settings.sh": helper, "PROG=/usr/sbin/pptp-alg": "PROG=" + dir + "/pptp-alg",
		"/sbin/ujail": dir + "/ujail", "=/var/etc/": "=" + dir + "/etc/", "/var/etc ": dir + "/etc ",
		"RUN=/run/": "RUN=" + dir + "/run/", "/run ]": dir + "/run ]", "var/run /run": "var " + dir + "/run",
	} {
		if !strings.Contains(text, from) {
			t.Fatalf("the script lacks %q", from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	for name, content := range map[string]string{
		"functions.sh": procd, "init": text, "pptp-alg.uci": "config pptp-alg main\n\toption log_level 'debug'\n",
		"pptp-alg": "#!/bin/sh\n" + program, "ujail": "#!/bin/sh\n" + jail,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if jail == "" {
		if err := os.Remove(filepath.Join(dir, "ujail")); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"etc", "var"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-c", `. ./functions.sh; config_load() { . ./$1.uci; config_cb; }; . ./init; `+call)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if config, readErr := os.ReadFile(filepath.Join(dir, "etc/pptp-alg.toml")); readErr == nil {
		out = append(out, config...)
	}
	return strings.ReplaceAll(string(out), dir, ""), err
}

// What procd is asked for: to start it again, to signal it when its settings
// change, and to put it into a jail that has its files and one power.
func TestInitScript(t *testing.T) {
	out, err := inOpenWrt(t, "start_service", "exit 0", "exit 0")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := `procd_open_instance
procd_set_param command /pptp-alg run --config /etc/pptp-alg.toml
procd_set_param file /etc/pptp-alg.toml
procd_set_param reload_signal HUP
procd_set_param respawn 3600 2 0
procd_set_param stdout 1
procd_set_param stderr 1
procd_set_param no_new_privs 1
procd_set_param capabilities /etc/capabilities/pptp-alg.json
procd_add_jail pptp-alg log procfs sysfs
procd_add_jail_mount /etc/pptp-alg.toml /etc/TZ
procd_add_jail_mount_rw /run/pptp-alg
procd_close_instance
# Made from /etc/config/pptp-alg: changes are lost.
log_level = "debug"
`
	if out != want {
		t.Errorf("asked for\n%s\nwant\n%s", out, want)
	}
}

func TestInitScriptWithoutJail(t *testing.T) {
	for name, jail := range map[string]string{"none": "", "one that takes no static programs": "exit 1"} {
		out, err := inOpenWrt(t, "start_service", jail, "exit 0")
		if err != nil || !strings.Contains(out, "procd_close_instance") || strings.Contains(out, "jail ") || strings.Contains(out, "capabilities") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// A wrong setting is said once and starts nothing.
func TestInitScriptRefuses(t *testing.T) {
	out, err := inOpenWrt(t, "start_service", "exit 0", "echo 'line 2: no such key' >&2; exit 1")
	if err == nil || strings.Contains(out, "procd_open_instance") || !strings.Contains(out, "no such key") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestInitScriptSwitchedOff(t *testing.T) {
	out, err := inOpenWrt(t, "OFF=1; start_service", "exit 0", "exit 0")
	if err != nil || out != "" {
		t.Errorf("%v\n%s", err, out)
	}
}

// Settings that change in UCI are read again, and a stopped daemon leaves no rules.
func TestInitScriptTriggers(t *testing.T) {
	out, err := inOpenWrt(t, "service_triggers; service_stopped", "exit 0", `echo "$@"`)
	if err != nil || out != "procd_add_reload_trigger pptp-alg\nrules --remove\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
