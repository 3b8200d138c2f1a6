package lab

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A directory whose process is gone is swept, that of a living one is not.
func TestSweep(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	d, err := newDirectory()
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(os.TempDir(), "pptp-lab-dead")
	young := filepath.Join(os.TempDir(), "pptp-lab-young") // no lock yet
	for _, dir := range []string{dead, young} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dead, lockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sweep()
	for path, stays := range map[string]bool{dead: false, young: true, d.path: true} {
		if _, err := os.Stat(path); (err == nil) != stays {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := d.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
