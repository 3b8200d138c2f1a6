package bench

import (
	"math"
	"slices"
	"time"
)

// Sample is a figure that was measured in several rounds.
type Sample struct {
	Rounds []float64 `json:"rounds"` // in the order of the rounds
}

// Median is the middle of the rounds.
func (s Sample) Median() float64 { return quantile(s.Rounds, 0.5) }

// Spread is half the distance between the quartiles, as a share of the median.
func (s Sample) Spread() float64 {
	if m := s.Median(); m != 0 {
		return (quantile(s.Rounds, 0.75) - quantile(s.Rounds, 0.25)) / 2 / math.Abs(m)
	}
	return 0
}

// over divides round by round: competitors that were measured in one round had
// the machine in the same condition.
func (s Sample) over(other Sample) Sample {
	var q Sample
	for i := range min(len(s.Rounds), len(other.Rounds)) {
		if other.Rounds[i] != 0 {
			q.Rounds = append(q.Rounds, s.Rounds[i]/other.Rounds[i])
		}
	}
	return q
}

// minus subtracts round by round.
func (s Sample) minus(other Sample) Sample {
	var q Sample
	for i := range min(len(s.Rounds), len(other.Rounds)) {
		q.Rounds = append(q.Rounds, s.Rounds[i]-other.Rounds[i])
	}
	return q
}

// quantile is the value below which a share of all values lies, interpolated
// between neighbours; 0 of none.
func quantile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := share * float64(len(sorted)-1)
	low := int(at)
	if low == len(sorted)-1 {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// microseconds are durations as numbers.
func microseconds(times []time.Duration) []float64 {
	us := make([]float64, len(times))
	for i, t := range times {
		us[i] = float64(t) / float64(time.Microsecond)
	}
	return us
}
