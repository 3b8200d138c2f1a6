package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The program starts no other one, loads no code, and offers nobody a look inside: what
// it could do that with is not in it.
func TestForbiddenImports(t *testing.T) {
	forbidden := []string{"os/exec", "plugin", "net/http/pprof", "runtime/pprof", "runtime/trace", "expvar"}
	list := exec.Command("go", "list", "-deps", ".")
	out, err := list.Output()
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	packages := strings.Fields(string(out))
	if !slices.Contains(packages, "pptp-alg/cmd/pptp-alg/internal/daemon") {
		t.Fatalf("is this the daemon? %q", packages)
	}
	for _, p := range forbidden {
		if slices.Contains(packages, p) {
			t.Errorf("the program contains %s", p)
		}
	}
}

// The functions below os/exec are not called by our own code either.
func TestStartsNothing(t *testing.T) {
	fset := token.NewFileSet()
	files := 0
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files++
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				switch s.Sel.Name {
				case "ForkExec", "StartProcess", "Exec", "RawSyscall", "Execve":
					t.Errorf("%s: %s", fset.Position(n.Pos()), s.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || files < 20 {
		t.Errorf("%d files, %v", files, err)
	}
}
