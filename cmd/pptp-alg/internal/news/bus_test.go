package news

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/status"
)

func of(id uint64) Event { return Event{Kind: CallEnded, Call: &status.Call{ID: id}} }

// A subscriber that does not take its events loses some, is told how many, and holds
// nobody up.
func TestSlowSubscriber(t *testing.T) {
	var b Bus
	if b.Heard() {
		t.Error("heard by nobody")
	}
	b.Publish(of(0)) // to nobody
	slow, quick := b.Subscribe(2), b.Subscribe(10)
	for id := range uint64(5) {
		b.Publish(of(id + 1))
	}
	if slow.Lost() != 3 || quick.Lost() != 0 {
		t.Errorf("lost %d and %d, want 3 and 0", slow.Lost(), quick.Lost())
	}
	<-slow.Events()
	b.Publish(of(6))
	b.Publish(of(7))
	b.Close()
	var got []uint64
	for e := range slow.Events() {
		got = append(got, e.Call.ID, e.Lost)
	}
	if want := []uint64{2, 0, 6, 3}; len(got) != 4 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("the slow one got %v, want %v", got, want)
	}
	if slow.Lost() != 1 {
		t.Errorf("%d lost at the end, want 1", slow.Lost())
	}
	n := uint64(0)
	for e := range quick.Events() {
		if n++; e.Call.ID != n || e.Lost != 0 {
			t.Errorf("the quick one got %d (%d lost), want %d", e.Call.ID, e.Lost, n)
		}
	}
	if n != 7 {
		t.Errorf("the quick one got %d, want 7", n)
	}
	if _, open := <-b.Subscribe(1).Events(); open {
		t.Error("a bus that is closed has news")
	}
}

// Subscribers come and go while events are published.
func TestComeAndGo(t *testing.T) {
	var b Bus
	var group sync.WaitGroup
	stay := b.Subscribe(1000)
	for range 4 {
		group.Go(func() {
			for range 100 {
				s := b.Subscribe(1)
				s.Close()
				s.Close()
				for range s.Events() {
				}
			}
		})
	}
	for id := range uint64(1000) {
		b.Publish(of(id))
	}
	group.Wait()
	stay.Close()
	n := 0
	for range stay.Events() {
		n++
	}
	if n != 1000 {
		t.Errorf("got %d events, want 1000", n)
	}
	if b.Heard() {
		t.Error("somebody is left")
	}
	b.Publish(of(1))
}

// The JSON form is an interface.
func TestJSON(t *testing.T) {
	e := Event{Time: time.Date(2025, 3, 4, 5, 6, 7, 8e6, time.UTC), Kind: TableRestored, Message: "it was gone", Lost: 2}
	got, err := json.Marshal(e)
	want := `{"time":"2025-03-04T05:06:07.008Z","event":"table_restored","message":"it was gone","lost":2}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}
