package packaging

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A feed is OpenWrt's build system as far as the Makefiles of the feed use it: stand-ins for its includes, and the feed
// linked where OpenWrt links it.
type feed struct {
	*testing.T
	top string
}

func newFeed(t *testing.T) feed {
	t.Helper()
	f := feed{t, t.TempDir()}
	for from, to := range map[string]string{
		"testdata/openwrt/rules.mk": "rules.mk", "testdata/openwrt/package.mk": "include/package.mk",
		"testdata/openwrt/golang-package.mk": "feeds/packages/lang/golang/golang-package.mk", "testdata/openwrt/luci.mk": "feeds/luci/luci.mk",
		"../../packaging/openwrt": "feeds/pptp_alg", "../../packaging/openwrt/pptp-alg": "package/feeds/pptp_alg/pptp-alg",
		"../../packaging/openwrt/luci-app-pptp-alg": "package/feeds/pptp_alg/luci-app-pptp-alg",
	} {
		from, err := filepath.Abs(from)
		if err != nil {
			t.Fatal(err)
		}
		to = filepath.Join(f.top, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(from, to); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f feed) output(dir, command string, args ...string) string {
	f.Helper()
	cmd := exec.Command(command, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (f feed) read(name string) string {
	f.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	return string(text)
}

// build makes a package, and compares with the contents of the one that is made without OpenWrt, modes too where the recipe
// sets them. It returns the fields of its description.
func (f feed) build(name, contents string, modes bool) map[string]string {
	f.Helper()
	said := f.output(filepath.Join(f.top, "package/feeds/pptp_alg", name), "make", "--warn-undefined-variables", "TOPDIR="+f.top, "package")
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "Makefile:") {
			f.Errorf("%s: %s", name, line)
		}
	}
	fields := map[string]string{}
	for line := range strings.Lines(f.read(filepath.Join(f.top, name+".fields"))) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[key] = value
	}
	root := filepath.Join(f.top, name)
	var got []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(path, root)
		if d.IsDir() {
			line += "/"
		}
		if modes {
			line = info.Mode().String() + " root/root " + line
		}
		got = append(got, line)
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range strings.Fields(f.read(filepath.Join(f.top, name+".conffiles"))) {
		got = append(got, "conffile "+file)
	}
	for d := range strings.FieldsSeq(fields["DEPENDS"]) {
		if !strings.HasPrefix(d, "@") { // on what processors
			got = append(got, "depends "+strings.TrimPrefix(d, "+"))
		}
	}
	var want []string
	for line := range strings.Lines(f.read("../../packaging/contents/" + contents)) {
		line = strings.TrimSpace(line)
		if needs, ok := strings.CutPrefix(line, "depends "); ok {
			for n := range strings.SplitSeq(needs, ", ") {
				if n != "libc" { // goes without saying there
					want = append(want, "depends "+n)
				}
			}
			continue
		}
		if !modes && !strings.HasPrefix(line, "conffile ") {
			line = line[strings.Index(line, "/root ")+len("/root "):]
		}
		want = append(want, line)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		f.Errorf("%s has\n%s\nand packaging/contents/%s\n%s", name, strings.Join(got, "\n"), contents, strings.Join(want, "\n"))
	}
	if strings.TrimSpace(f.read(filepath.Join(f.top, name+".description"))) == "" || fields["TITLE"] == "" || fields["SECTION"] == "" {
		f.Errorf("%s lacks a description: %v", name, fields)
	}
	return fields
}

// What OpenWrt's build system makes of the feed is what the packages are that are made without it. The program is built from what
// the recipe takes of the checkout, and knows its version.
func TestFeed(t *testing.T) {
	f := newFeed(t)
	f.build("pptp-alg", "ipk", true)
	version, commit := f.output(".", "../../packaging/version", "openwrt"), f.output(".", "git", "rev-parse", "HEAD")
	if got, want := f.output(".", filepath.Join(f.top, "pptp-alg/usr/sbin/pptp-alg"), "version"), "pptp-alg "+version+" (commit "+commit+" of 20"; !strings.HasPrefix(got, want) {
		t.Errorf("the program says %q, want %q", got, want)
	}
	if err := os.Mkdir(filepath.Join(f.top, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := f.tried(); !strings.Contains(got, `fast_path = "on"`) || !strings.Contains(got, "ports = [1723]") {
		t.Errorf("the settings that are shown in /etc/config/pptp-alg make\n%s", got)
	}
}

// tried translates the settings that are installed, those in comments too, and has the installed program read them.
func (f feed) tried() string {
	f.Helper()
	root := filepath.Join(f.top, "pptp-alg")
	uci := strings.NewReplacer("\n#\t", "\n\t", "\n#config", "\nconfig").Replace(f.read(filepath.Join(root, "etc/config/pptp-alg")))
	for name, text := range map[string]string{"pptp-alg": uci, "functions.sh": functions} {
		if err := os.WriteFile(filepath.Join(f.top, "run", name), []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	return f.output(filepath.Join(f.top, "run"), "sh", "-ec", `. ./functions.sh; . "$0/usr/share/pptp-alg/settings.sh"; settings >settings.toml; exec "$0/usr/sbin/pptp-alg" config --config settings.toml`, root)
}

func TestFeedLuCI(t *testing.T) {
	fields := newFeed(t).build("luci-app-pptp-alg", "luci.ipk", false)
	if fields["PKGARCH"] != "all" {
		t.Errorf("fields: %v", fields)
	}
}
