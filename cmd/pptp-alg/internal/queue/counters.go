package queue

import "sync/atomic"

// Counters are what happened since [Open].
type Counters struct {
	Packets uint64 // packets received

	// Verdicts sent. Accepted includes the packets that never reached the channel.
	Accepted, Modified, Dropped uint64

	// Packets accepted at once because they are no segments for us: IP
	// fragments, other protocols, headers that cannot be right, and packets
	// longer than the queue copies.
	Fragments, NotTCP, Malformed, Truncated uint64

	Overflows      uint64 // times that the receive buffer was full (ENOBUFS): packets were dropped
	LateVerdicts   uint64 // verdicts on packets that were gone by then (ENOENT)
	FailedVerdicts uint64 // verdicts that could not be sent
	Faults         uint64 // other errors while receiving
}

// Counters returns the counters as they stand.
func (q *Queue) Counters() Counters {
	s := &q.stats
	return Counters{
		Packets:        s.packets.Load(),
		Accepted:       s.accepted.Load(),
		Modified:       s.modified.Load(),
		Dropped:        s.dropped.Load(),
		Fragments:      s.fragments.Load(),
		NotTCP:         s.notTCP.Load(),
		Malformed:      s.malformed.Load(),
		Truncated:      s.truncated.Load(),
		Overflows:      s.overflows.Load(),
		LateVerdicts:   s.late.Load(),
		FailedVerdicts: s.failed.Load(),
		Faults:         s.faults.Load(),
	}
}

type stats struct {
	packets, accepted, modified, dropped    atomic.Uint64
	fragments, notTCP, malformed, truncated atomic.Uint64
	overflows, late, failed, faults         atomic.Uint64
}

// passed counts a packet that is no segment for us.
func (s *stats) passed(why error) {
	switch why {
	case errFragment:
		s.fragments.Add(1)
	case errNotTCP:
		s.notTCP.Add(1)
	case errTruncated:
		s.truncated.Add(1)
	default:
		s.malformed.Add(1)
	}
}
