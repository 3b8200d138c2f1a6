package queue

import "fmt"

// Accept lets the packet pass as the kernel has it. Changes to Data are lost.
func (q *Queue) Accept(p *Packet) error {
	return q.settle(p, verdictAccept, nil)
}

// AcceptModified lets the packet pass with the bytes of Data. They must be as
// many as they were, with the checksums right: the kernel recomputes none.
func (q *Queue) AcceptModified(p *Packet) error {
	return q.settle(p, verdictAccept, p.Data)
}

// Drop discards the packet.
func (q *Queue) Drop(p *Packet) error {
	return q.settle(p, verdictDrop, nil)
}

// settle sends the verdict. The kernel answers only if it cannot follow it, later
// and on the receiving side: see [Counters.LateVerdicts].
func (q *Queue) settle(p *Packet, verdict uint32, changed []byte) error {
	if !p.settled.CompareAndSwap(false, true) {
		return fmt.Errorf("verdict on packet %d: %w", p.ID, ErrSettled)
	}
	err := q.socket.verdict(q.number, p.ID, verdict, changed)
	switch {
	case err != nil && q.ctx.Err() != nil:
		return fmt.Errorf("verdict on packet %d: %w", p.ID, ErrClosed)
	case err != nil:
		q.stats.failed.Add(1)
		return fmt.Errorf("verdict on packet %d: %w", p.ID, err)
	case verdict == verdictDrop:
		q.stats.dropped.Add(1)
	case changed != nil:
		q.stats.modified.Add(1)
	default:
		q.stats.accepted.Add(1)
	}
	return nil
}
