package daemon

import (
	"runtime"
	"testing"

	"pptp-alg/cmd/pptp-alg/internal/state"
	"pptp-alg/nat"
)

// What has changed once, and was much, takes neither memory nor time of the segments to come: a map that is cleared keeps
// its size, and clearing it again costs that.
func TestForget(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	j := newJournal(nil)
	before := heap()
	j.table = nat.NewTable(nat.Config{}, nil, nil)
	for i := range 100_000 {
		j.callChanged(new(nat.Call))
		j.places[place{greKey{callID: uint16(i)}, uint16(i >> 16)}] = struct{}{}
	}
	j.file = &state.Journal{}
	j.putPlaces(&coder{})
	j.file = nil // what it would write is not looked at here
	j.forget()
	if len(j.calls)+len(j.places) > 0 {
		t.Errorf("%d calls and %d places are not forgotten", len(j.calls), len(j.places))
	}
	if took := heap() - before; took > 200_000 {
		t.Errorf("%d bytes stay", took)
	}
	runtime.KeepAlive(j)
}
