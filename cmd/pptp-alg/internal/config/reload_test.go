package config

import (
	"strings"
	"testing"
)

// Each key by itself either changes at once, or stays what it was and is said to. The two
// lists of what stays, of names and of fields, agree.
func TestTakeOver(t *testing.T) {
	other := map[string]string{
		"queue": "9", "ports": "[9]", "socket": "'/x.sock'", "state": "'/x.state'", "guard": "'all'", "anchor": "'off'", "fast_path": "'on'",
		"log_format": "'json'", "log_level": "'debug'", "call_id_range": "'2-9'", "call_log.to": "'journal'",
		"call_log.server_address": "false", "capture.directory": "'/x'", "metrics.listen": "'127.0.0.1:9'",
	}
	for _, k := range keys {
		text, special := other[k.name]
		switch {
		case special:
		case strings.HasPrefix(k.name, "timeouts."):
			text = "'17s'"
		default:
			text = "17"
		}
		old := Default()
		c, err := Parse("x.toml", []byte(k.name+" = "+text))
		if err != nil {
			t.Fatal(err)
		}
		want := c.String()
		if atStartOnly(k.name) {
			want = old.String()
		}
		changed, later := c.TakeOver(old)
		if c.String() != want {
			t.Errorf("%s: goes on with\n%s", k.name, c)
		}
		if atStartOnly(k.name) {
			changed, later = later, changed
		}
		if len(changed) != 1 || changed[0] != k.name || len(later) != 0 {
			t.Errorf("%s: said are %q and %q", k.name, changed, later)
		}
	}
	c := Default()
	if changed, later := c.TakeOver(Default()); len(changed)+len(later) != 0 {
		t.Errorf("nothing changed, but %q, %q", changed, later)
	}
}
