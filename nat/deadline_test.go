package nat

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func at(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }

func TestDeadlineMovedEarlier(t *testing.T) {
	var a agenda
	var d Deadline
	var ran []string
	a.set(&d, at(10), func(time.Time) { ran = append(ran, "first") })
	a.set(&d, at(5), func(time.Time) { ran = append(ran, "second") })
	if next, ok := a.next(); !ok || next != at(5) {
		t.Errorf("next is %v %v", next, ok)
	}
	a.run(at(20), 1<<30)
	if !slices.Equal(ran, []string{"second"}) {
		t.Errorf("ran %v", ran)
	}
}

func TestDeadlineMovedLater(t *testing.T) {
	var a agenda
	var d Deadline
	ran := 0
	a.set(&d, at(5), func(time.Time) { t.Error("ran what was replaced") })
	a.set(&d, at(10), func(time.Time) { ran++ })
	a.run(at(9), 1<<30)
	if next, _ := a.next(); ran != 0 || next != at(10) {
		t.Errorf("ran %d times before its time; next %v", ran, next)
	}
	a.run(at(10), 1<<30) // to the point
	a.run(at(10), 1<<30)
	if ran != 1 {
		t.Errorf("ran %d times", ran)
	}
}

func TestDeadlineCleared(t *testing.T) {
	var a agenda
	var d, other Deadline
	ran := 0
	a.set(&d, at(5), func(time.Time) { t.Error("ran what was cleared") })
	a.set(&other, at(7), func(time.Time) { ran++ })
	d.Clear()
	d.Clear()
	if next, _ := a.next(); next != at(7) {
		t.Errorf("next is %v", next)
	}
	a.run(at(6), 1<<30)
	a.set(&d, at(8), func(time.Time) { ran++ })
	a.run(at(8), 1<<30)
	if _, ok := a.next(); ran != 2 || ok || len(a.items) != 0 {
		t.Errorf("ran %d times, %d left", ran, len(a.items))
	}
}

func TestDeadlinesOfTheSameTime(t *testing.T) {
	var a agenda
	d := make([]Deadline, 9)
	ran := 0
	for i := range d {
		a.set(&d[i], at(5), func(time.Time) { ran++ })
	}
	d[4].Clear()
	a.run(at(5), 1<<30)
	if ran != 8 {
		t.Errorf("ran %d of 8", ran)
	}
}

// What is due may set deadlines, its own too. What it sets for now runs now.
func TestDeadlineSetWhileDue(t *testing.T) {
	var a agenda
	var d, other Deadline
	var ran []string
	a.set(&d, at(1), func(now time.Time) {
		ran = append(ran, "one")
		a.set(&d, at(9), func(time.Time) { ran = append(ran, "three") })
		a.set(&other, now, func(time.Time) { ran = append(ran, "two") })
	})
	a.run(at(5), 1<<30)
	if !slices.Equal(ran, []string{"one", "two"}) {
		t.Errorf("ran %v", ran)
	}
	a.run(at(9), 1<<30)
	if len(ran) != 3 {
		t.Errorf("ran %v", ran)
	}
}

// Any deadline runs at the first run that is not before it, in order of time.
func TestAgendaModel(t *testing.T) {
	for range 300 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 3))
		var a agenda
		d := make([]Deadline, 8)
		due := map[int]time.Time{}
		now := epoch
		for range 200 {
			i := rng.IntN(len(d))
			switch rng.IntN(4) {
			case 0, 1:
				when := now.Add(time.Duration(rng.IntN(20)-2) * time.Second)
				due[i] = when
				a.set(&d[i], when, func(time.Time) {
					for _, other := range due {
						if other.Before(when) {
							t.Fatalf("seed %d: %v ran before %v", seed, when, other)
						}
					}
					if due[i] != when {
						t.Fatalf("seed %d: ran what was replaced", seed)
					}
					delete(due, i)
				})
			case 2:
				d[i].Clear()
				delete(due, i)
			case 3:
				now = now.Add(time.Duration(rng.IntN(6)) * time.Second)
				a.run(now, 1<<30)
				for _, when := range due {
					if !when.After(now) {
						t.Fatalf("seed %d: did not run what was due", seed)
					}
				}
			}
			next, ok := a.next()
			want := make([]time.Time, 0, len(due))
			for _, when := range due {
				want = append(want, when)
			}
			slices.SortFunc(want, time.Time.Compare)
			if ok != (len(want) > 0) || ok && next != want[0] || len(a.items) > len(d) {
				t.Fatalf("seed %d: next is %v %v, want %v; %d items", seed, next, ok, fmt.Sprint(want), len(a.items))
			}
		}
	}
}
