package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

const here = "this boot net:[1]"

type contents map[string]string

func load(t testing.TB, path string) (contents, Report) {
	t.Helper()
	got := contents{}
	r, err := Load(path, here, func(k, v []byte) { got[string(k)] = string(v) })
	if err != nil {
		t.Fatal(err)
	}
	if r.Records != len(got) {
		t.Errorf("%d records, but %d were given", r.Records, len(got))
	}
	return got, r
}

// started returns a journal that has begun empty.
func started(t testing.TB) *Journal {
	t.Helper()
	j := New(filepath.Join(t.TempDir(), "x.state"), here)
	t.Cleanup(j.Close)
	must(t, j.Rewrite(func(func(k, v []byte)) {}))
	return j
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (j *Journal) put(k, v string) { j.Put([]byte(k), []byte(v)) }

// What was written last is what is read, whatever was written in whatever
// order; a journal that is cut off anywhere is one of its earlier states.
func TestHistories(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 30 {
		j := started(t)
		want := contents{}
		type state struct {
			size int64
			contents
		}
		states := []state{{j.size, contents{}}}
		for range 60 {
			for range rng.IntN(4) {
				k := fmt.Sprint(rng.IntN(12))
				if rng.IntN(3) == 0 {
					j.Delete([]byte(k))
					delete(want, k)
					continue
				}
				v := string(bytes.Repeat([]byte{byte(rng.IntN(256))}, rng.IntN(300)))
				j.put(k, v)
				want[k] = v
			}
			must(t, j.Flush())
			states = append(states, state{j.size, maps.Clone(want)})
			if rng.IntN(20) == 0 {
				must(t, j.Rewrite(func(put func(k, v []byte)) {
					for k, v := range want {
						put([]byte(k), []byte(v))
					}
				}))
				states = []state{{j.size, maps.Clone(want)}}
			}
		}
		if got, r := load(t, j.path); !maps.Equal(got, want) || r != (Report{Records: len(want)}) {
			t.Fatalf("read %v, %+v, want %v", got, r, want)
		}
		whole, err := os.ReadFile(j.path)
		must(t, err)
		for range 40 {
			cut := int64(rng.IntN(len(whole) + 1))
			must(t, os.WriteFile(j.path, whole[:cut], 0o600))
			i, _ := slices.BinarySearchFunc(states, cut+1, func(s state, n int64) int { return int(s.size - n) })
			got, r := load(t, j.path)
			switch {
			case i == 0: // in the first frame or the header
				if len(got) > 0 {
					t.Fatalf("cut off at %d of %d: %v", cut, len(whole), got)
				}
			case !maps.Equal(got, states[i-1].contents) || r.Torn != cut-states[i-1].size:
				t.Fatalf("cut off at %d of %d: %v, %+v, want %v", cut, len(whole), got, r, states[i-1].contents)
			}
		}
		// One bit that is not as it was: everything before its frame counts.
		b := bytes.Clone(whole)
		at := rng.IntN(len(b))
		b[at] ^= 1 << rng.IntN(8)
		got := contents{}
		_, err = Parse(b, here, func(k, v []byte) { got[string(k)] = string(v) })
		if err != nil && !errors.Is(err, ErrForeign) {
			t.Fatal(err)
		}
		i, _ := slices.BinarySearchFunc(states, int64(at)+1, func(s state, n int64) int { return int(s.size - n) })
		if i > 0 && !maps.Equal(got, states[i-1].contents) || i == 0 && len(got) > 0 {
			t.Fatalf("bit flipped at %d: %v, want %v", at, got, states[max(i-1, 0)].contents)
		}
	}
}

func TestIdentity(t *testing.T) {
	a, err := Identity()
	must(t, err)
	if b, _ := Identity(); a != b || len(a) < 40 {
		t.Errorf("%q and %q", a, b)
	}
	j := started(t)
	j.put("a", "1")
	must(t, j.Flush())
	for _, other := range []string{"", "another boot net:[1]", here + "2"} {
		r, err := Load(j.path, other, func([]byte, []byte) { t.Error("a record of another boot") })
		if err != nil || r.Ignored == "" {
			t.Errorf("as %q: %+v, %v", other, r, err)
		}
	}
	b, err := os.ReadFile(j.path)
	must(t, err)
	b[len(magic)]++
	must(t, os.WriteFile(j.path, b, 0o600))
	if got, r := load(t, j.path); len(got) > 0 || r.Ignored == "" {
		t.Errorf("a journal of another version: %v, %+v", got, r)
	}
}

// What is not ours is neither read nor, since Load says so, replaced.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ours := started(t).path
	must(t, os.WriteFile(at("text"), []byte("root:x:0:0\n"), 0o600))
	must(t, os.Mkdir(at("directory"), 0o700))
	must(t, os.Symlink(ours, at("link")))
	must(t, unix.Mkfifo(at("pipe"), 0o600))
	b, err := os.ReadFile(ours)
	must(t, err)
	must(t, os.WriteFile(at("open"), b, 0o600))
	must(t, os.Chmod(at("open"), 0o620))
	names := []string{"text", "directory", "link", "pipe", "open"}
	if os.Getuid() == 0 {
		must(t, os.WriteFile(at("theirs"), b, 0o600))
		must(t, os.Chown(at("theirs"), 12345, -1))
		names = append(names, "theirs")
	}
	for _, name := range names {
		if _, err := Load(at(name), here, nil); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.WriteFile(at("empty"), nil, 0o600))
	for _, name := range []string{"empty", "none", "no/directory"} {
		if got, _ := load(t, at(name)); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	if st, err := os.Stat(ours); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// A disk that is full costs the file, and not more: what it says would be wrong.
func TestDiskFull(t *testing.T) {
	j := started(t)
	j.put("a", "1")
	must(t, j.Flush())
	full := func(name string) (io.WriteCloser, error) {
		f, err := create(name)
		return &fullDisk{f, 100}, err
	}
	j.create = full
	must(t, j.Rewrite(func(put func(k, v []byte)) { put([]byte("a"), []byte("1")) }))
	var err error
	for i := 0; err == nil && i < 100; i++ {
		j.put("b", fmt.Sprint(i))
		err = j.Flush()
	}
	if !errors.Is(err, unix.ENOSPC) || j.Writing() {
		t.Fatalf("%v, writing %v", err, j.Writing())
	}
	if _, err := os.Stat(j.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	j.put("c", "3") // of no use now
	must(t, j.Flush())
	big := func(put func(k, v []byte)) { put([]byte("a"), make([]byte, 200)) }
	if err := j.Rewrite(big); !errors.Is(err, unix.ENOSPC) || j.Writing() {
		t.Fatalf("%v, writing %v", err, j.Writing())
	}
	if left, err := os.ReadDir(filepath.Dir(j.path)); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	j.create = create
	must(t, j.Rewrite(big))
	if got, _ := load(t, j.path); len(got) != 1 || len(got["a"]) != 200 {
		t.Errorf("when there is room again: %v", got)
	}
}

// fullDisk takes so many bytes.
type fullDisk struct {
	io.WriteCloser
	room int
}

func (f *fullDisk) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.room -= n
	if m, err := f.WriteCloser.Write(p[:n]); err != nil {
		return m, err
	}
	if n < len(p) {
		return n, unix.ENOSPC
	}
	return n, nil
}

func TestNoDirectory(t *testing.T) {
	j := New(filepath.Join(t.TempDir(), "none", "x.state"), here)
	if err := j.Rewrite(func(func(k, v []byte)) {}); !errors.Is(err, fs.ErrNotExist) || j.Writing() {
		t.Errorf("%v, writing %v", err, j.Writing())
	}
}

// The old file counts until the new one is whole: a process that is killed at this
// leaves the old one, and what it leaves beside does not disturb the next.
func TestRewriteIsAtomic(t *testing.T) {
	j := started(t)
	j.put("a", "old")
	must(t, j.Flush())
	must(t, j.Rewrite(func(put func(k, v []byte)) {
		for i := range 100 {
			put([]byte(fmt.Sprint(i)), make([]byte, 5000))
		}
		if got, _ := load(t, j.path); !maps.Equal(got, contents{"a": "old"}) {
			t.Errorf("in the middle of it: %v", got)
		}
		if _, err := os.Stat(j.path + ".new"); err != nil {
			t.Error(err)
		}
	}))
	if got, _ := load(t, j.path); len(got) != 100 {
		t.Errorf("%d records", len(got))
	}
	must(t, os.WriteFile(j.path+".new", []byte("half"), 0o600))
	must(t, j.Rewrite(func(put func(k, v []byte)) { put([]byte("b"), nil) }))
	if got, _ := load(t, j.path); !maps.Equal(got, contents{"b": ""}) {
		t.Errorf("%v", got)
	}
}

// The file does not grow for ever, and is not written anew all the time either.
func TestOvergrown(t *testing.T) {
	j := started(t)
	rewrites := 0
	var most int64
	for i := range 200_000 {
		j.put(fmt.Sprint(i%50), "twenty bytes or more of it")
		must(t, j.Flush())
		most = max(most, j.size)
		if j.Overgrown() {
			rewrites++
			must(t, j.Rewrite(func(put func(k, v []byte)) {
				for i := range 50 {
					put([]byte(fmt.Sprint(i)), []byte("twenty bytes or more of it"))
				}
			}))
		}
	}
	if most > 2*slack || rewrites == 0 || rewrites > 60 {
		t.Errorf("at most %d bytes, written anew %d times", most, rewrites)
	}
}

func FuzzParse(f *testing.F) {
	j := started(f)
	j.put("key", "value")
	must(f, j.Flush())
	j.Delete([]byte("key"))
	j.put("", "")
	must(f, j.Flush())
	b, err := os.ReadFile(j.path)
	must(f, err)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := contents{}
		r, err := Parse(b, here, func(k, v []byte) { got[string(k)] = string(v) })
		if err != nil || r.Ignored != "" {
			if len(got) > 0 {
				t.Error("records of a file that does not count")
			}
			return
		}
		if r.Records != len(got) || r.Torn < 0 || r.Torn > int64(len(b)) {
			t.Errorf("%+v, %d records", r, len(got))
		}
		// What counts is the same without what does not.
		again := contents{}
		if _, err := Parse(b[:int64(len(b))-r.Torn], here, func(k, v []byte) { again[string(k)] = string(v) }); err != nil || !maps.Equal(got, again) {
			t.Errorf("%v and %v, %v", got, again, err)
		}
	})
}

func BenchmarkFlush(b *testing.B) {
	j := started(b)
	key, value := make([]byte, 13), make([]byte, 60)
	for b.Loop() {
		j.Put(key, value)
		must(b, j.Flush())
		if j.size > 64<<20 {
			must(b, j.Rewrite(func(func(k, v []byte)) {}))
		}
	}
}
