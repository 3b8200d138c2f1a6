package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Check looks for settings that are fine one by one and cannot go together, with the flags' values
// in place. The error joins one for each.
func (c *Config) Check() error {
	var errs []error
	c.conflicts(func(key, reason string) { errs = append(errs, errors.New(key+" "+reason)) })
	return errors.Join(errs...)
}

// conflicts names the later key of each conflict, which is never one that has its default. The
// reason completes "KEY ...".
func (c *Config) conflicts(fault func(key, reason string)) {
	type place struct{ key, path, is string }
	places := []place{
		{"socket", c.Socket, "socket"}, {"socket", c.Socket + ".lock", "the lock beside socket"},
		{"state", c.StatePath(), "state"}, {"call_log.to", c.CallLog.To, "call_log.to"},
		{"capture.directory", c.Capture.Directory, "capture.directory"}, {"metrics.listen", c.Metrics.Listen, "metrics.listen"},
	}
	for i, p := range places {
		if !filepath.IsAbs(p.path) {
			continue // none, or no file
		}
		for _, before := range places[:i] {
			if filepath.IsAbs(before.path) && filepath.Clean(before.path) == filepath.Clean(p.path) {
				fault(p.key, fmt.Sprintf("must not be the same path as %s, %q", before.is, before.path))
			}
		}
	}
	if c.Capture.Directory != "" && c.Capture.Connection > c.Capture.Total*1000 {
		fault("capture.connection_kilobytes", fmt.Sprintf(
			"must fit into capture.total_megabytes, %d: choose at most %d", c.Capture.Total, c.Capture.Total*1000))
	}
}

// isDirectory reports whether a path can be a directory's only.
func isDirectory(path string) bool { return strings.HasSuffix(path, "/") }
