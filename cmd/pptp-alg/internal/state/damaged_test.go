package state

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A damaged journal is told from one that is of no use for other reasons, and from a file that somebody named by
// mistake. It is kept, once.
func TestDamaged(t *testing.T) {
	j := started(t)
	j.put("a", "1")
	must(t, j.Flush())
	j.Close()
	whole, err := os.ReadFile(j.path)
	must(t, err)
	edited := func(edit func(b []byte) []byte) []byte { return edit(append([]byte{}, whole...)) }
	for name, c := range map[string]struct {
		contents []byte
		damaged  bool
	}{
		"whole":            {whole, false},
		"empty":            {nil, false},
		"another version":  {edited(func(b []byte) []byte { b[len(magic)]++; return b }), false},
		"zeros":            {make([]byte, len(whole)), true},
		"text":             {[]byte("root:x:0:0\n"), true},
		"half a magic":     {whole[:4], true},
		"half a header":    {whole[:len(magic)+9], true},
		"a damaged header": {edited(func(b []byte) []byte { b[len(magic)+5] ^= 1; return b }), true},
		"a damaged end":    {edited(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), true},
		"a cut end":        {whole[:len(whole)-1], true},
	} {
		must(t, os.WriteFile(j.path, c.contents, 0o600))
		r, err := Load(j.path, here, func([]byte, []byte) {})
		if err != nil || r.Damaged != c.damaged {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	// What has neither the name nor the permissions of a journal is not one.
	other := filepath.Join(filepath.Dir(j.path), "passwd")
	must(t, os.WriteFile(other, []byte("root:x:0:0\n"), 0o600))
	must(t, os.WriteFile(j.path, []byte("root:x:0:0\n"), 0o600))
	must(t, os.Chmod(j.path, 0o644))
	for _, path := range []string{other, j.path} {
		if _, err := Load(path, here, nil); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestKeepAside(t *testing.T) {
	j := started(t)
	j.Close()
	for _, contents := range []string{"first", "second"} {
		must(t, os.WriteFile(j.path, []byte(contents), 0o600))
		kept, err := KeepAside(j.path)
		must(t, err)
		must(t, j.Rewrite(func(func(key, value []byte)) {}))
		j.Close()
		if b, err := os.ReadFile(kept); err != nil || string(b) != contents {
			t.Errorf("kept %q, %v", b, err)
		}
		if _, r := load(t, j.path); r.Damaged || r.Ignored != "" {
			t.Errorf("the new one: %+v", r)
		}
	}
	if _, err := KeepAside(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was kept")
	}
}
