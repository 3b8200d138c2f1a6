package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root is the directory of the module, results what "make bench" wrote there.
const root, results = "../..", "../../bench/results"

// TestDocuments: figures and curves of the documents are those of the results.
func TestDocuments(t *testing.T) {
	for _, name := range []string{"data.json", "control.json", "size.json"} {
		if _, err := os.Stat(filepath.Join(results, name)); err != nil {
			t.Errorf("%v: make bench", err)
		}
	}
	old, err := Outdated(root, results)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range old {
		t.Errorf("%s differs from bench/results: make bench-docs", name)
	}
}

// TestOutdated: a changed figure in a document or curve is noticed, and written over.
func TestOutdated(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range documents {
		text := "before\n" + blockBegin + "rates -->\nold\n" + blockEnd + "\nafter\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"data.json", "fast.json"} {
		if err := save(dir, name, someData()); err != nil {
			t.Fatal(err)
		}
	}
	outdated := func() int {
		names, err := Outdated(dir, dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	if n := outdated(); n != len(documents)+3 {
		t.Errorf("%d files are outdated instead of all", n)
	}
	if err := WriteDocs(dir, dir); err != nil {
		t.Fatal(err)
	}
	if n := outdated(); n != 0 {
		t.Errorf("%d files are outdated after they were written", n)
	}
	b, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if !strings.HasPrefix(text, "before\n") || !strings.HasSuffix(text, "after\n") || strings.Contains(text, "old") || !strings.Contains(text, rateTable(someData())) {
		t.Errorf("not filled in:\n%s", text)
	}
	for _, change := range []struct{ name, from, to string }{{"README.md", "4.00", "4.01"}, {"rates.svg", "circle", "ellipse"}} {
		path := filepath.Join(dir, change.name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(b), change.from, change.to, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		if n := outdated(); n != 1 {
			t.Errorf("%d files are outdated after %s was changed", n, change.name)
		}
		if err := WriteDocs(dir, dir); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBrokenBlocks: a document with a block that nothing fills, or without an end,
// is an error and not half a document.
func TestBrokenBlocks(t *testing.T) {
	for _, text := range []string{
		blockBegin + "bogus -->\n" + blockEnd + "\n",
		blockBegin + "a -->\n",
		blockEnd + "\n",
		blockBegin + "a -->\n" + blockBegin + "a -->\n" + blockEnd + "\n",
	} {
		if got, err := fill([]byte(text), map[string]string{"a": "A\n"}); err == nil {
			t.Errorf("%q became %q", text, got)
		}
	}
	got, err := fill([]byte("x\n"+blockBegin+"a -->\nold\n"+blockEnd+"\ny\n"), map[string]string{"a": "A\n"})
	if want := "x\n" + blockBegin + "a -->\n\nA\n\n" + blockEnd + "\ny\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v instead of %q", got, err, want)
	}
}
