package packaging

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	app  = "../../packaging/openwrt/luci-app-pptp-alg/"
	view = app + "htdocs/luci-static/resources/view/pptp-alg/status.js"
	acl  = app + "root/usr/share/rpcd/acl.d/luci-app-pptp-alg.json"
)

// browser looks for a Chromium. The page is looked at in a real browser, with
// a stand-in for LuCI's runtime.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("no chromium")
	}
	t.Skip("no chromium to look at the page with")
	return ""
}

// page shows the view with an answer of the program, and returns its DOM.
func page(t *testing.T, code int, status string) string {
	t.Helper()
	return pageWith(t, acl, code, status)
}

func pageWith(t *testing.T, permissions string, code int, status string) string {
	t.Helper()
	program := browser(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			http.ServeFile(w, r, "testdata/luci.html")
		case "/view.js":
			http.ServeFile(w, r, view)
		case "/acl.json":
			http.ServeFile(w, r, permissions)
		case "/status":
			w.WriteHeader(code)
			_, _ = w.Write([]byte(status))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	args := []string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1160,640",
		"--user-data-dir=" + t.TempDir(), "--virtual-time-budget=10000",
	}
	if file := os.Getenv("PPTP_ALG_SCREENSHOT"); file != "" {
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(program, append(args, "--screenshot="+path, server.URL+"/")...).CombinedOutput(); err != nil {
			t.Fatalf("take a picture: %v\n%s", err, out)
		}
	}
	out, err := exec.Command(program, append(args, "--dump-dom", server.URL+"/")...).Output()
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	if dom := string(out); strings.Contains(dom, `data-done="yes"`) {
		return strings.ReplaceAll(dom, "&nbsp;", " ")
	}
	t.Fatalf("the page failed:\n%s", out)
	return ""
}

// The page shows calls, warnings and why calls ended. PPTP_ALG_SCREENSHOT=FILE keeps a picture.
func TestLuCI(t *testing.T) {
	status, err := os.ReadFile("testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	dom := page(t, http.StatusOK, string(status))
	for _, want := range []string{
		"3 calls on 3 control connections",
		"192.168.1.21 · 5</td>", "203.0.113.1 · 119</td>", "198.51.100.7 · 1001</td>",
		"198.51.100.7 · –</td>", // not answered yet
		"no GRE from the server for 30 s",
		"1.50 MiB", "not counted",
		">fast</td>", ">half fast</td>", ">ordinary</td>",
		"ordinary path to the client: br-lan passes packets",
		"server refused the call: busy",
		"not understood", "wrong magic cookie",
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(dom, "it is not up") {
		t.Error("a call that is not up has a reason not to be fast")
	}
	if t.Failed() {
		t.Log(dom[strings.Index(dom, "<div"):])
	}
}

// Nothing of what others wrote is taken for markup.
func TestLuCIMarkup(t *testing.T) {
	dom := page(t, http.StatusOK, `{"version":"<b>1","calls":[{"id":1,"state":"<b>2","warning":"<b>3","client":{"address":"<b>4"}}],
		"connections":[{"unparsed":"<b>5"}],"ended":[{"reason":"<b>6"}],"fast_path":"<b>7"}`)
	for i := 1; i <= 7; i++ {
		if want := fmt.Sprintf("&lt;b&gt;%d", i); !strings.Contains(dom, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(dom, "<b>") {
		t.Errorf("the page has others' markup:\n%s", dom[strings.Index(dom, "<div"):])
	}
}

func TestLuCIWithoutCalls(t *testing.T) {
	dom := page(t, http.StatusOK, `{"version":"1","started":"2026-01-01T00:00:00Z","calls":[],"connections":[],"ended":[],"counters":{}}`)
	for _, want := range []string{"No call is up", "None yet"} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// A fast path that is not wanted is not mentioned; why there is none though it is, is.
func TestLuCIWithoutFastPath(t *testing.T) {
	const status = `{"version":"1","calls":[{"id":1,"state":"established"}]%s}`
	if dom := page(t, http.StatusOK, fmt.Sprintf(status, "")); strings.Contains(dom, "Path</th>") || strings.Contains(dom, "fast") {
		t.Errorf("the page speaks of the fast path:\n%s", dom[strings.Index(dom, "<div"):])
	}
	const reason = "no fast path: make the eBPF map calls: operation not permitted"
	if dom := page(t, http.StatusOK, fmt.Sprintf(status, `,"fast_path":"`+reason+`"`)); !strings.Contains(dom, reason) || strings.Contains(dom, "Path</th>") {
		t.Errorf("the page does not say why there is none:\n%s", dom[strings.Index(dom, "<div"):])
	}
}

func TestLuCIWithoutDaemon(t *testing.T) {
	dom := page(t, http.StatusInternalServerError, "pptp-alg: no daemon answers on /run/pptp-alg/control.sock")
	for _, want := range []string{"does not answer", "service pptp-alg start", "no daemon answers on"} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// A login without the permission is told so.
func TestLuCIWithoutPermission(t *testing.T) {
	file := filepath.Join(t.TempDir(), "acl.json")
	if err := os.WriteFile(file, []byte(`{"luci-app-pptp-alg": {"read": {"file": {"/usr/sbin/pptp-alg status --json": ["exec"]}}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if dom := pageWith(t, file, http.StatusOK, `{}`); !strings.Contains(dom, "may not see the calls") {
		t.Error("the page does not say that the permission is missing")
	}
}

// What another version of the daemon does not say leaves a gap and no broken page.
func TestLuCIOtherVersion(t *testing.T) {
	dom := page(t, http.StatusOK, `{"version":"0.1","calls":[{"id":1,"client":{"address":"192.168.1.20"},"novelty":{}}],"ended":[{}],"connections":null}`)
	for _, want := range []string{"pptp-alg 0.1, running for –: 1 calls on 0", "192.168.1.20 · –</td>"} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(dom, "undefined") || strings.Contains(dom, "NaN") {
		t.Errorf("the page shows what is not there:\n%s", dom[strings.Index(dom, "<div"):])
	}
}

// Of a thousand calls those are shown that have a warning, then as many as fit.
func TestLuCIManyCalls(t *testing.T) {
	var calls []string
	for i := range 1000 {
		warning := ""
		if i >= 990 {
			warning = fmt.Sprintf(`,"warning":"trouble with %d"`, i)
		}
		calls = append(calls, fmt.Sprintf(`{"id":%d,"state":"established","since":"2026-01-01T00:00:00Z","client":{"address":"10.0.%d.%d","call_id":%d},"server":{"address":"198.51.100.7","call_id":7}%s}`,
			i, i/250, i%250, i, warning))
	}
	dom := page(t, http.StatusOK, `{"version":"1","started":"2026-01-01T00:00:00Z","calls":[`+strings.Join(calls, ",")+`],"connections":[],"ended":[]}`)
	if n := strings.Count(dom, "198.51.100.7 · 7</td>"); n != 200 {
		t.Errorf("%d calls are shown", n)
	}
	for _, want := range []string{"1000 calls", "And 800 more", "trouble with 990", "trouble with 999"} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
