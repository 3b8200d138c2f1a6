package cli

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/control"
	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/cmd/pptp-alg/internal/status"
)

// Events come as lines or as the daemon's JSON, with the filter that was asked for,
// and the end of the daemon is told.
func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := control.Listen(control.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	filters := make(chan status.Filter, 2)
	s.Stream("watch", func(_ context.Context, args json.RawMessage, send func(any) error) error {
		var f status.Filter
		if err := json.Unmarshal(args, &f); err != nil {
			return err
		}
		filters <- f
		return send(news.Event{Time: time.Now(), Kind: news.TableRestored, Message: "it was gone"})
	})
	go s.Serve()
	code, out, stderr := exec(t, "watch", "--socket", path)
	if code != 3 || !strings.HasSuffix(out, "  table restored       it was gone\n") || !strings.Contains(stderr, "no daemon answers any more") {
		t.Errorf("code %d, %q, %q", code, out, stderr)
	}
	if f := <-filters; f != (status.Filter{}) {
		t.Errorf("filter %+v without flags", f)
	}
	code, out, _ = exec(t, "watch", "--json", "--client", "10.0.0.0/8", "--state", "warning", "--socket", path)
	var e news.Event
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 3 || e.Kind != news.TableRestored || strings.Count(out, "\n") != 1 {
		t.Errorf("code %d, %q, %v", code, out, err)
	}
	if f := <-filters; f.Client.String() != "10.0.0.0/8" || f.State != "warning" || f.Server.IsValid() {
		t.Errorf("filter %+v", f)
	}
	if code, _, stderr := exec(t, "watch", "--socket", path+"x"); code != 3 || !strings.Contains(stderr, "start one with") {
		t.Errorf("no daemon: code %d, %q", code, stderr)
	}
}
