//go:build nofastpath

package fastpath

import "errors"

// Built says whether the program has a fast path.
const Built = false

// A Path is nothing in a program that was built without the fast path: Open fails.
type Path struct{}

// Options of Open.
type Options struct {
	Entries int
	Clsact  bool
}

// errNone is the error of everything.
var errNone = errors.New("this program was built without the fast path (build tag nofastpath)")

func Open(Options) (*Path, error)             { return nil, errNone }
func Try() error                              { return errNone }
func (*Path) NeedsBPF() bool                  { return false }
func (*Path) Halt() error                     { return errNone }
func (*Path) Begin(uint32) error              { return errNone }
func (*Path) Put(Tuple, Call) error           { return errNone }
func (*Path) Move(Tuple, int, int) error      { return errNone }
func (*Path) Others(int) bool                 { return false }
func (*Path) Take(Tuple) (Traffic, error)     { return Traffic{}, errNone }
func (*Path) Traffic(Tuple) Traffic           { return Traffic{} }
func (*Path) All() (map[Tuple]Traffic, error) { return nil, errNone }
func (*Path) Await(Tuple) error               { return errNone }
func (*Path) Forget(Tuple) error              { return errNone }
func (*Path) Sights() ([]Sight, error)        { return nil, errNone }
func (*Path) Carry(int, bool) error           { return errNone }
func (*Path) CarryAtPort(int, [6]byte) error  { return errNone }
func (*Path) Keep([]int) error                { return errNone }
func (*Path) Watch([]int) error               { return errNone }
func (*Path) Close() error                    { return nil }
func (*Path) Port() uint32                    { return 0 }
