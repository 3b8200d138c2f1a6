package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A checkout is a Git repository of a test with the scripts that name versions, and a changelog.
type checkout struct {
	*testing.T
	dir string
}

func newCheckout(t *testing.T) checkout {
	t.Helper()
	c := checkout{t, t.TempDir()}
	if err := os.Mkdir(filepath.Join(c.dir, "packaging"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"version", "changelog"} {
		text, err := os.ReadFile("../../packaging/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.dir, "packaging", name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// run runs a command in the checkout, at a time and as somebody that do not depend on the machine.
func (c checkout) run(command string, args ...string) (string, error) {
	cmd := exec.Command(command, args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CEILING_DIRECTORIES="+filepath.Dir(c.dir),
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@a.invalid", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@a.invalid",
		"GIT_AUTHOR_DATE=2026-04-05T09:15:00Z", "GIT_COMMITTER_DATE=2026-04-05T09:15:00Z", "TZ=Pacific/Auckland")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (c checkout) must(command string, args ...string) string {
	c.Helper()
	out, err := c.run(command, args...)
	if err != nil {
		c.Fatalf("%s %q: %v\n%s", command, args, err, out)
	}
	return out
}

func (c checkout) write(changelog string) {
	c.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "CHANGELOG.md"), []byte(changelog), 0o600); err != nil {
		c.Fatal(err)
	}
}

const (
	intro    = "# Changelog\n\nWords about it.\n\n## Unreleased\n\n"
	released = "## 1.2.0, 2026-04-01\n\nThe second.\n\n- One thing,\n  which is long.\n\n## 1.1.0, 2026-03-01\n\n- First.\n"
)

// The version of a commit: that of a release where it has the release's tag, else one that sorts behind the newest release.
func TestVersion(t *testing.T) {
	c := newCheckout(t)
	c.write(intro + released)
	want := func(what, version string) {
		t.Helper()
		if got := c.must("packaging/version"); got != version {
			t.Errorf("%s: version %q, want %q", what, got, version)
		}
	}
	want("without a repository", "1.2.0")
	c.must("git", "init", "-q", ".")
	c.must("git", "add", ".")
	c.must("git", "commit", "-q", "-m", "one")
	after := "1.2.0+git20260405091500." + c.must("git", "rev-parse", "--short=12", "HEAD")
	want("no tag", after)
	if got, want := c.must("packaging/version", "openwrt"), strings.Replace(strings.Replace(after, "+git", "_git", 1), "500.", "500~", 1); got != want {
		t.Errorf("for OpenWrt %q, want %q", got, want)
	}
	c.must("git", "tag", "v1.1.0")
	c.must("git", "tag", "v1.2.0-rc1")
	want("other tags", after)
	c.must("git", "tag", "v1.2.0")
	want("the release, with more tags", "1.2.0")
	c.must("git", "tag", "-d", "v1.1.0", "v1.2.0-rc1")
	want("the release", "1.2.0")
	if got := c.must("packaging/version", "openwrt"); got != "1.2.0" {
		t.Errorf("for OpenWrt the release is %q", got)
	}
	c.write(intro + "- More.\n\n" + released)
	want("with changes", after+".dirty")
	c.must("git", "commit", "-q", "-a", "-m", "two")
	after = "1.2.0+git20260405091500." + c.must("git", "rev-parse", "--short=12", "HEAD")
	want("behind the release", after)
	for _, pair := range [][2]string{{"1.2.0", after}, {after, "1.2.1"}, {after, "1.3.0"}} {
		if out, err := c.run("dpkg", "--compare-versions", pair[0], "lt", pair[1]); err != nil {
			t.Errorf("%s is not before %s: %v %s", pair[0], pair[1], err, out)
		}
	}
	c.write("# Changelog\n\n## Unreleased\n\n- Begun.\n")
	c.must("git", "commit", "-q", "-a", "-m", "three")
	want("no release yet", "0.0.0+git20260405091500."+c.must("git", "rev-parse", "--short=12", "HEAD"))
}

// The Debian changelog has an entry for the version that is built, then one for each release.
func TestChangelog(t *testing.T) {
	const (
		next    = "1.2.0+git20260405091500.0123456789ab"
		sign    = "\n -- pptp-alg maintainers <maintainers@pptp-alg.invalid>  "
		now     = sign + "Sun, 05 Apr 2026 09:15:00 +0000\n"
		head    = " unstable; urgency=medium\n\n"
		entries = "pptp-alg (1.2.0-1)" + head + "  * The second.\n  * One thing, which is long.\n" + sign + "Wed, 01 Apr 2026 00:00:00 +0000\n\n" +
			"pptp-alg (1.1.0-1)" + head + "  * First.\n" + sign + "Sun, 01 Mar 2026 00:00:00 +0000"
	)
	c := newCheckout(t)
	for _, k := range []struct{ name, version, changelog, want, failure string }{
		{name: "a release", version: "1.2.0", changelog: intro + released, want: strings.Replace(entries, "Wed, 01 Apr 2026 00:00:00", "Sun, 05 Apr 2026 09:15:00", 1)},
		{name: "behind it, with lines", version: next, changelog: intro + "- More.\n- And more.\n\n" + released,
			want: "pptp-alg (" + next + "-1)" + head + "  * More.\n  * And more.\n" + now + "\n" + entries},
		{name: "behind it, without lines", version: next, changelog: intro + released,
			want: "pptp-alg (" + next + "-1)" + head + "  * Nothing that users notice.\n" + now + "\n" + entries},
		{name: "before the first", version: next, changelog: intro + "- More.\n", want: "pptp-alg (" + next + "-1)" + head + "  * More.\n" + strings.TrimSuffix(now, "\n")},
		{name: "nothing at all", version: next, changelog: intro, want: "pptp-alg (" + next + "-1)" + head + "  * Nothing that users notice.\n" + strings.TrimSuffix(now, "\n")},
		{name: "a release that has left lines behind", version: "1.2.0", changelog: intro + "- More.\n\n" + released, failure: "lines under Unreleased"},
		{name: "a release without a date", version: "1.2.0", changelog: intro + "## 1.2.0\n\n- x\n", failure: "no date: ## 1.2.0"},
		{name: "a date that is none", version: "1.2.0", changelog: intro + "## 1.2.0, 2026-13-01\n\n- x\n", failure: "no date: ## 1.2.0"},
	} {
		c.write(k.changelog)
		got, err := c.run("packaging/changelog", k.version, "1775380500")
		switch {
		case k.failure != "" && (err == nil || !strings.Contains(got, k.failure)):
			t.Errorf("%s: %v\n%s", k.name, err, got)
		case k.failure == "" && (err != nil || got != k.want):
			t.Errorf("%s: %v\n%s\nwant\n%s", k.name, err, got, k.want)
		}
	}
}
