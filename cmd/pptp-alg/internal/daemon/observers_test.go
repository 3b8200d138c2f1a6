package daemon

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"pptp-alg/cmd/pptp-alg/internal/config"
)

// What cannot be opened is an error that names the setting, and nothing that was opened before stays.
func TestObserveFails(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "metrics.sock")
	for key, change := range map[string]func(*config.Config){
		"metrics.listen":    func(c *config.Config) { c.Metrics.Listen = "/dev/null/x" },
		"capture.directory": func(c *config.Config) { c.Metrics.Listen, c.Capture.Directory = socket, "/dev/null/x" },
		"call_log.to":       func(c *config.Config) { c.Metrics.Listen, c.CallLog.To = socket, "nowhere" },
	} {
		d := &daemon{config: config.Default(), log: slog.New(slog.DiscardHandler)}
		change(&d.config)
		if stop, err := d.observe(); err == nil || stop != nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}
