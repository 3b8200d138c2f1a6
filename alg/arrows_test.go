package alg_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows says which packages of this module a package may import. A package
// that is not named here follows the longest prefix that is; docs/architecture.md
// draws the same.
var arrows = map[string][]string{
	"alg":            {"nat"},
	"nat":            {},
	"conntrack":      {},
	"rules":          {},
	"e2e":            {"e2e"},
	"packaging":      {},
	"cmd/pptp-lab":   {"cmd/pptp-lab/internal", "e2e"},
	"cmd/pptp-bench": {"e2e"},
	"cmd/pptp-alg":   {"cmd/pptp-alg/internal", "alg", "nat", "conntrack", "rules"},
	// Leaves: the daemon wires them, they know nothing of each other.
	"cmd/pptp-alg/internal/addresses": {},
	"cmd/pptp-alg/internal/queue":     {},
	"cmd/pptp-alg/internal/control":   {},
	"cmd/pptp-alg/internal/config":    {},
	"cmd/pptp-alg/internal/calllog":   {},
	"cmd/pptp-alg/internal/evidence":  {"cmd/pptp-alg/internal/pcap"},
	"cmd/pptp-alg/internal/metrics":   {},
	"cmd/pptp-alg/internal/pcap":      {},
	"cmd/pptp-alg/internal/privilege": {},
	"cmd/pptp-alg/internal/status":    {},
	"cmd/pptp-alg/internal/news":      {"cmd/pptp-alg/internal/status"},
	"cmd/pptp-alg/internal/examine":   {"conntrack", "rules"},
	"cmd/pptp-alg/internal/state":     {},
	"cmd/pptp-alg/internal/ways":      {},
}

const module = "pptp-alg/"

// within reports whether dir is prefix or below it.
func within(dir, prefix string) bool { return dir == prefix || strings.HasPrefix(dir, prefix+"/") }

// allowed returns what a package may import.
func allowed(dir string) ([]string, bool) {
	best := ""
	for prefix := range arrows {
		if within(dir, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	return arrows[best], best != ""
}

// sources parses all Go files of the module.
func sources(t *testing.T, f func(dir, name string, fset *token.FileSet, file *ast.File)) {
	fset := token.NewFileSet()
	n := 0
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := e.Name(); e.IsDir() && (name == "testdata" || name == "bin" || len(name) > 2 && name[0] == '.') {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		n++
		rel, _ := filepath.Rel("..", path)
		f(filepath.ToSlash(filepath.Dir(rel)), e.Name(), fset, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 20 {
		t.Errorf("found only %d files: is this the whole module?", n)
	}
}

func imports(file *ast.File) []string {
	var paths []string
	for _, i := range file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

// TestArrowsBetweenPackages: tests included, for what a test imports a package
// can't do without. A test may import its own package.
func TestArrowsBetweenPackages(t *testing.T) {
	sources(t, func(dir, name string, _ *token.FileSet, file *ast.File) {
		may, ok := allowed(dir)
		if !ok {
			t.Errorf("%s/%s: nobody said what %s may import", dir, name, dir)
		}
		for _, p := range imports(file) {
			to, ours := strings.CutPrefix(p, module)
			if !ours || strings.HasSuffix(name, "_test.go") && to == dir {
				continue
			}
			if !slices.ContainsFunc(may, func(prefix string) bool { return within(to, prefix) }) {
				t.Errorf("%s/%s imports %s", dir, name, p)
			}
		}
	})
}

// pureImports are the standard packages that alg and nat may use. time is
// there for its types; see impureTime.
var pureImports = []string{"bytes", "container/heap", "encoding/binary", "errors", "fmt", "maps", "math/rand/v2", "net/netip", "slices", "strings", "time"}

// impureTime is what reads a clock or waits for one.
var impureTime = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Timer", "Ticker"}

// TestCoreIsPure: no sockets, no operating system, no clock, no goroutine, no
// randomness of its own in alg and nat.
func TestCoreIsPure(t *testing.T) {
	sources(t, func(dir, name string, fset *token.FileSet, file *ast.File) {
		if dir != "alg" && dir != "nat" || strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, p := range imports(file) {
			if !strings.HasPrefix(p, module) && !slices.Contains(pureImports, p) {
				t.Errorf("%s/%s imports %s", dir, name, p)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
				t.Errorf("%v: goroutines and channels are not for the core", fset.Position(n.Pos()))
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok {
					break
				}
				// Every function of math/rand/v2 that is not a constructor
				// takes numbers from a source that no seed repeats.
				if x.Name == "time" && slices.Contains(impureTime, n.Sel.Name) ||
					x.Name == "rand" && !slices.Contains([]string{"Rand", "New", "Source", "NewPCG"}, n.Sel.Name) {
					t.Errorf("%v: %s.%s", fset.Position(n.Pos()), x.Name, n.Sel.Name)
				}
			}
			return true
		})
	})
}
