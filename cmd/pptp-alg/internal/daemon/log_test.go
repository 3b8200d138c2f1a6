package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// Each of a few messages is logged, a flood is not, and what was left out is
// told with the next one.
func TestLimited(t *testing.T) {
	var b bytes.Buffer
	d := &daemon{log: slog.New(slog.NewTextHandler(&b, nil)), volumes: map[string]*volume{}}
	for range 3 * logBurst {
		d.limited("flood")
	}
	d.limited("other")
	if n := strings.Count(b.String(), "flood"); n != logBurst {
		t.Errorf("logged %d times, want %d", n, logBurst)
	}
	if !strings.Contains(b.String(), "other") {
		t.Error("one message silences another")
	}
	d.volumes["flood"].since = d.volumes["flood"].since.Add(-logPeriod - time.Second)
	b.Reset()
	d.limited("flood")
	if !strings.Contains(b.String(), `not logged"=40`) {
		t.Errorf("%q does not say how many were left out", b.String())
	}
}

// Calls that come and go by the thousand are not all logged either.
func TestCallsAreLoggedAtABoundedRate(t *testing.T) {
	var b bytes.Buffer
	d := &daemon{log: slog.New(slog.NewTextHandler(&b, nil)), volumes: map[string]*volume{}}
	for range 3 * callBurst {
		d.bounded(slog.LevelInfo, callBurst, "call ended")
	}
	d.limited("call refused")
	if n := strings.Count(b.String(), "level=INFO"); n != callBurst || strings.Count(b.String(), "level=WARN") != 1 {
		t.Errorf("logged %d times, want %d", n, callBurst)
	}
}
