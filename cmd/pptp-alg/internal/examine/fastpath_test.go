package examine

import (
	"errors"
	"strings"
	"testing"
)

// A fast path that cannot be had is worth a warning where it is wanted, and only there.
func TestFastPathFinding(t *testing.T) {
	cannot := errors.New("no such kernel")
	for _, c := range []struct {
		wanted bool
		try    error
		level  Level
		words  string
	}{
		{false, nil, OK, "is off; this kernel has what it takes"},
		{true, nil, OK, "is on"},
		{false, cannot, OK, "cannot be had here: no such kernel"},
		{true, cannot, Warning, "calls take the ordinary path: no such kernel"},
	} {
		found := fastPath(Config{FastPath: c.wanted, TryFastPath: func() error { return c.try }})
		if len(found) == 0 {
			t.Skip("needs a network namespace")
		}
		if f := found[0]; len(found) != 1 || f.Level != c.level || !strings.Contains(f.Text, c.words) || (f.Level == Warning) != (f.Fix != nil) {
			t.Errorf("wanted %v, %v: %+v", c.wanted, c.try, found)
		}
	}
}
