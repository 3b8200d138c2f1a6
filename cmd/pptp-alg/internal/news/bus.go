// Package news carries what happens in the daemon to those who listen: the call
// log, metrics, `pptp-alg watch`.
//
// The one who publishes never waits. Each subscriber has a queue of its own; when
// it is full, the subscriber loses events and is told how many.
package news

import "sync"

// A Bus takes events and hands them to its subscribers. The zero value is ready.
type Bus struct {
	mu          sync.Mutex
	subscribers map[*Subscription]struct{}
	closed      bool
}

// A Subscription is one subscriber's queue.
type Subscription struct {
	bus    *Bus
	events chan Event
	lost   uint64 // since the last event that fitted; guarded by bus.mu
	closed bool
}

// Subscribe begins to collect events, at most size of them until they are taken.
func (b *Bus) Subscribe(size int) *Subscription {
	s := &Subscription{bus: b, events: make(chan Event, max(size, 1))}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subscribers == nil {
		b.subscribers = map[*Subscription]struct{}{}
	}
	b.subscribers[s] = struct{}{}
	if b.closed {
		s.close()
	}
	return s
}

// Heard reports whether anybody listens: an event that costs something to describe
// need not be made for nobody.
func (b *Bus) Heard() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subscribers) > 0
}

// Publish hands an event to everybody, and does not wait for anybody.
func (b *Bus) Publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subscribers {
		e.Lost = s.lost
		select {
		case s.events <- e:
			s.lost = 0
		default:
			s.lost++
		}
	}
}

// Close tells all subscribers that nothing more will come, when they have taken
// what is in their queues.
func (b *Bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subscribers {
		s.close()
	}
}

// Events is the queue. It is closed when the subscription or the bus is.
func (s *Subscription) Events() <-chan Event { return s.events }

// Lost is how many events have been lost since the last one that fitted into the
// queue, and will be told with the next.
func (s *Subscription) Lost() uint64 {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	return s.lost
}

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	s.close()
}

func (s *Subscription) close() {
	if !s.closed {
		s.closed = true
		delete(s.bus.subscribers, s)
		close(s.events)
	}
}
