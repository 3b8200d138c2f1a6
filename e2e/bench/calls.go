package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"pptp-alg/e2e/peer"
)

// pair is a call as its two ends see it.
type pair struct{ client, server *peer.Call }

// Direction of GRE.
type Direction string

// Directions: from the inside to the outside, and back.
const (
	Out Direction = "out"
	In  Direction = "in"
)

var directions = []Direction{Out, In}

// manner is how calls are set up.
type manner struct {
	echo bool // each call carries a packet and its answer in both directions
	// vanish has both ends let go of the control connection without a word. The
	// router does not notice, and a process may not have as many sockets as there
	// are calls.
	vanish bool
}

// mostFailures is how many calls may fail before a competitor of ours is believed
// to have got as far as it gets.
const mostFailures = 100

// atOnce is how many calls are set up before their control connections vanish.
const atOnce = 4000

// quiet is how long nothing is sent on control connections before they vanish: TCP
// may have sent something twice that has not arrived.
const quiet = time.Second

// place sets up calls until there are so many.
func (w *world) place(ctx context.Context, count, perConnection int, m manner) error {
	if !m.vanish {
		return w.placeAll(ctx, count, perConnection, m)
	}
	for len(w.pairs)+w.failures < count {
		before := len(w.pairs)
		if err := w.placeAll(ctx, min(before+w.failures+atOnce, count), perConnection, m); err != nil {
			return err
		}
		time.Sleep(quiet)
		gone := map[*peer.Session]bool{}
		for _, p := range w.pairs[before:] {
			// The server first: it spoke last.
			for _, s := range []*peer.Session{p.server.Session(), p.client.Session()} {
				if !gone[s] {
					gone[s] = true
					if err := s.Vanish(); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// placeAll sets up calls until there are so many, failed ones included, as many at
// once as there are clients: perConnection of them on each control connection. Calls
// that fail are left out; pptp-alg may not fail any, and others only mostFailures.
func (w *world) placeAll(ctx context.Context, count, perConnection int, m manner) error {
	most := mostFailures
	if w.kind.ours() {
		most = 0
	}
	var next atomic.Int64
	next.Store(int64(len(w.pairs) + w.failures))
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failure error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range w.clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				first := next.Add(int64(perConnection)) - int64(perConnection)
				n := min(perConnection, count-int(first))
				if n <= 0 {
					return
				}
				pairs, err := w.connect(ctx, w.clients[i], n, m)
				mu.Lock()
				w.pairs = append(w.pairs, pairs...)
				if err != nil && ctx.Err() == nil {
					w.failures++
					if failure = err; w.failures > most {
						cancel()
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if w.failures > most {
		return fmt.Errorf("place %d calls with %s: stopped at %d, the last error: %w", count, w.kind.Name(), len(w.pairs), failure)
	}
	return nil
}

// Ports of the clients' control connections.
const firstPort, portCount = 4000, 60000

// echoPatience is how long an answer over GRE may take.
const echoPatience = 5 * time.Second

// connect opens a control connection and places calls on it.
func (w *world) connect(ctx context.Context, client *peer.Node, count int, m manner) ([]pair, error) {
	// A port of its own for every connection: the kernel would give away again those of
	// connections that have vanished, and a router takes that for the end of the old one.
	port := uint16(firstPort + w.ports.Add(1)%portCount)
	session, err := client.ConnectFrom(ctx, port, netip.AddrPortFrom(wanServer, peer.Port))
	if err != nil {
		return nil, err
	}
	if err := session.Start(ctx); err != nil {
		return nil, err
	}
	var pairs []pair
	for range count {
		c, err := session.OutgoingCall(ctx)
		if err != nil {
			return pairs, err
		}
		far, err := w.server.FindCall(ctx, c.Token())
		if err != nil {
			return pairs, err
		}
		if m.echo {
			if err := errors.Join(c.EchoWithin(ctx, echoPatience, 1, 64), far.EchoWithin(ctx, echoPatience, 1, 64)); err != nil {
				return pairs, err
			}
		}
		pairs = append(pairs, pair{c, far})
	}
	return pairs, nil
}

// flow is the GRE of a call: how it looks where it is sent, and where it arrives,
// by direction.
type flow struct{ sent, arrives map[Direction]tuple }

// flows gives the GRE of all calls. Labs without calls have as many as asked for,
// made up; masquerading alone can carry one, which has the same Call ID, 0, in both
// directions: then both belong to one entry of connection tracking.
func (w *world) flows(count int) []flow {
	var flows []flow
	switch w.kind {
	case Plain:
		for i := range count {
			client := clientAddress(i % clientCount)
			out, in := tuple{client, wanServer, uint16(i + 1)}, tuple{wanServer, client, uint16(i + 1)}
			both := map[Direction]tuple{Out: out, In: in}
			flows = append(flows, flow{both, both})
		}
	case Masq:
		flows = []flow{{
			sent:    map[Direction]tuple{Out: {clientAddress(0), wanServer, 0}, In: {wanServer, wanRouter, 0}},
			arrives: map[Direction]tuple{Out: {wanRouter, wanServer, 0}, In: {wanServer, clientAddress(0), 0}},
		}}
	default:
		for _, p := range w.pairs[:min(count, len(w.pairs))] {
			client, public := p.client.Session().Local().Addr(), p.server.Remote()
			flows = append(flows, flow{
				sent:    map[Direction]tuple{Out: {client, wanServer, p.client.PeerID()}, In: {wanServer, public, p.server.PeerID()}},
				arrives: map[Direction]tuple{Out: {public, wanServer, p.server.ID()}, In: {wanServer, client, p.client.ID()}},
			})
		}
	}
	return flows
}
