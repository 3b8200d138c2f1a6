//go:build !nofastpath

package fastpath

import (
	"os"
	"testing"
)

// What is read of a ring whose memory is older than it says comes to an end: a length may lead past what was written.
func TestStaleRing(t *testing.T) {
	page := os.Getpagesize()
	r := &ring{consumer: make([]byte, page), producer: make([]byte, page+2*ringSize)}
	data := r.producer[page:]
	ne.PutUint32(data, sightSize)
	ne.PutUint32(data[recordHeader+sightSize:], 4096) // where 16 bytes are written
	*position(r.producer) = uintptr(recordHeader + sightSize + 16)
	if got := len(r.take()); got != 1 {
		t.Errorf("%d sights", got)
	}
	if got := len(r.take()); got != 0 {
		t.Errorf("then %d sights", got)
	}
	// Positions go round.
	clear(data)
	last := ^uintptr(0) - uintptr(recordHeader+sightSize) + 1
	*position(r.consumer), *position(r.producer) = last, uintptr(recordHeader+sightSize)
	ne.PutUint32(data[last%ringSize:], sightSize)
	ne.PutUint32(data, sightSize)
	if got := len(r.take()); got != 2 {
		t.Errorf("%d sights where positions go round", got)
	}
}
