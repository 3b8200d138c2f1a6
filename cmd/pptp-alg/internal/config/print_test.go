package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// What is printed is read back as the same, and has every key.
func TestString(t *testing.T) {
	reference, err := os.ReadFile("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"defaults":  "",
		"reference": string(reference),
		"others": `queue = 3
ports = [5, 6]
socket = "/run/a \"strange\\ \u0007name/ü"
guard = "all"
log_format = "json"
log_level = "debug"
call_id_range = "5-77"
remember = 0
limits = { calls = 0, connections_per_client = 7 }
timeouts = { half_open = "9m", clearing = "1500ms", grace = "0s", rest = "1h1m1s" }
`,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse("file", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse("printed", []byte(c.String()))
			if err != nil || !reflect.DeepEqual(again, c) {
				t.Errorf("%v\nprinted %s\nfrom %#v\ncame %#v", err, c, c, again)
			}
		})
	}
	if len(values) != len(keys) {
		t.Errorf("%d keys, %d are printed", len(keys), len(values))
	}
	for _, k := range keys {
		if values[k.name] == nil {
			t.Errorf("%s is not printed", k.name)
		}
	}
	if strings.Contains(Default().String(), "%!") {
		t.Error(Default().String())
	}
}
