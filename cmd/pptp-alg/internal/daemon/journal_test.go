package daemon

import (
	"runtime"
	"testing"

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
	for range 100_000 {
		j.callChanged(new(nat.Call))
	}
	j.forget()
	if len(j.calls) > 0 {
		t.Errorf("%d calls are not forgotten", len(j.calls))
	}
	if took := heap() - before; took > 200_000 {
		t.Errorf("%d bytes stay", took)
	}
	runtime.KeepAlive(j)
}
