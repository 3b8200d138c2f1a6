package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const initScript = "../../packaging/openwrt/pptp-alg/files/pptp-alg.init"

// procd stands in for rc.common and procd.sh: what the script asks for is said
// on standard output.
const procd = functions + `
config_get_bool() { eval "$1=$4"; [ -z "$OFF" ] || eval "$1=0"; }
for f in procd_open_instance procd_close_instance procd_set_param procd_add_jail procd_add_jail_mount \
	procd_add_jail_mount_rw procd_add_reload_trigger logger sleep; do
	eval "$f() { echo $f \"\$@\"; }"
done
start() { start_service; }
stop() { echo stop; service_stopped; }
`

// An openwrt is a router with the init script, whose files are below a folder of
// the test's.
type openwrt struct {
	uci     string // what is set
	running string // the program's own settings by which it runs
	jail    string // what ujail does, in shell; none without
	program string // what the program does
}

// everything is a router that has all, and a program that takes all.
var everything = openwrt{uci: "config pptp-alg main\n\toption log_level 'debug'\n", jail: "exit 0", program: "exit 0"}

// call runs a function of the init script, and returns what it said, followed by the program's settings.
func (o openwrt) call(t *testing.T, function string) (string, error) {
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
	for _, name := range []string{"etc", "var"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{"functions.sh": procd, "init": text, "pptp-alg.uci": o.uci, "pptp-alg": "#!/bin/sh\n" + o.program}
	if o.jail != "" {
		files["ujail"] = "#!/bin/sh\n" + o.jail
	}
	if o.running != "" {
		files["etc/pptp-alg.toml"] = o.running
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-c", `. ./functions.sh; config_load() { . ./$1.uci; config_cb; }; . ./init; `+function)
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
	out, err := everything.call(t, "start_service")
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

// The fast path is a setting like others, and gets the power that it needs.
func TestInitScriptFastPath(t *testing.T) {
	for value, want := range map[string]bool{"on": true, "off": false} {
		o := everything
		o.uci = "config pptp-alg main\n\toption fast_path '" + value + "'\n"
		out, err := o.call(t, "start_service")
		if err != nil || !strings.Contains(out, `fast_path = "`+value+`"`) {
			t.Errorf("%s: %v\n%s", value, err, out)
		}
		for _, line := range []string{"capabilities /etc/capabilities/pptp-alg-fast-path.json\n", "limits memlock=unlimited unlimited\n"} {
			if strings.Contains(out, "procd_set_param "+line) != want {
				t.Errorf("%s: %q should be there: %v\n%s", value, line, want, out)
			}
		}
		if !strings.Contains(out, "procd_close_instance") {
			t.Errorf("%s: nothing is started\n%s", value, out)
		}
	}
}

func TestInitScriptWithoutJail(t *testing.T) {
	for name, jail := range map[string]string{"none": "", "one that takes no static programs": "exit 1"} {
		o := everything
		o.jail = jail
		out, err := o.call(t, "start_service")
		if err != nil || !strings.Contains(out, "procd_close_instance") || strings.Contains(out, "jail ") || strings.Contains(out, "capabilities") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// A wrong setting is said once and starts nothing. A daemon that runs is left alone: procd would stop it if the script went on.
func TestInitScriptRefuses(t *testing.T) {
	const running = "guard = \"all\"\n"
	for _, function := range []string{"start_service", "reload_service"} {
		o := everything
		o.program, o.running = "echo 'line 2: no such key' >&2; exit 1", running
		out, err := o.call(t, function)
		if err == nil || strings.Contains(out, "procd_") || strings.Contains(out, "stop\n") || !strings.HasSuffix(out, running) ||
			strings.Count(out, "no such key") != 2 || !strings.Contains(out, "logger -t pptp-alg -p daemon.err") {
			t.Errorf("%s: %v\n%s", function, err, out)
		}
	}
}

func TestInitScriptSwitchedOff(t *testing.T) {
	for function, want := range map[string]string{"start_service": "", "reload_service": "stop\n"} {
		out, err := everything.call(t, "OFF=1; "+function)
		if err != nil || out != want {
			t.Errorf("%s: %v\n%s", function, err, out)
		}
	}
}

// Settings that change in UCI are read again.
func TestInitScriptTriggers(t *testing.T) {
	if out, err := everything.call(t, "service_triggers"); err != nil || out != "procd_add_reload_trigger pptp-alg\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

// A daemon that runs gets a signal when settings change, and is started anew for those that it takes at its start only. They
// are those of which its reference says so.
func TestInitScriptReload(t *testing.T) {
	reference, err := os.ReadFile("../../cmd/pptp-alg/internal/config/reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	sentence := regexp.MustCompile(`(?s)read again; (.*?) change at the next start only`).FindSubmatch(reference)
	if sentence == nil {
		t.Fatal("the reference does not say what changes at the next start only")
	}
	atStart := map[string]bool{}
	for _, key := range regexp.MustCompile(`[a-z_]+`).FindAllString(strings.ReplaceAll(string(sentence[1]), " and ", " "), -1) {
		atStart[key] = true
	}
	keys, tables := 0, map[string]bool{"": false}
	for _, m := range regexp.MustCompile(`(?m)^\[([a-z_]+)\]|^([a-z_]+) = `).FindAllStringSubmatch(string(reference), -1) {
		table, key := m[1], m[2]
		if table != "" {
			tables[""] = true // keys at the top are over
			key = "something"
		} else if tables[""] {
			continue
		}
		keys++
		o := everything
		o.uci = "config pptp-alg main\n\toption log_level 'debug'\n"
		if table == "" {
			o.uci = strings.Replace(o.uci, "log_level", key, 1)
		} else {
			o.uci += "config " + table + "\n\toption something '1'\n"
		}
		for running, restart := range map[string]bool{"x = 1\n": atStart[table] || atStart[key], "": false} {
			if running == "" { // what runs has it so
				out, err := o.call(t, "start_service")
				if err != nil {
					t.Fatal(err)
				}
				_, running, _ = strings.Cut(out, "procd_close_instance\n")
			}
			o.running = running
			out, err := o.call(t, "reload_service")
			if err != nil || !strings.Contains(out, "procd_close_instance") || strings.HasPrefix(out, "stop\n") != restart {
				t.Errorf("[%s] %s: %v, should be started anew: %v\n%s", table, key, err, restart, out)
			}
		}
	}
	if keys < 12 || len(atStart) < 9 {
		t.Errorf("%d keys and tables were looked at, and %v change at the next start", keys, atStart)
	}
}

// A daemon that was stopped, which procd does not wait for, or that has crashed, leaves no rules.
func TestInitScriptStopped(t *testing.T) {
	o := everything
	o.program = `echo "$@"`
	if out, err := o.call(t, "service_stopped"); err != nil || out != "rules --remove\n" {
		t.Errorf("%v\n%s", err, out)
	}
	o.program = `echo "$@"; if [ -e once ]; then exit 0; fi; : >once; echo "a daemon is at work" >&2; exit 1`
	if out, err := o.call(t, "service_stopped"); err != nil || out != "rules --remove\nsleep 1\nrules --remove\n" {
		t.Errorf("that takes a moment: %v\n%s", err, out)
	}
	o.program = `echo "$@"; exit 1`
	if out, err := o.call(t, "service_stopped"); err != nil || strings.Count(out, "rules --remove\n") != 10 {
		t.Errorf("that does not end: %v\n%s", err, out)
	}
}
