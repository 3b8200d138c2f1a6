package daemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/impersonate"
	"pptp-alg/cmd/pptp-alg/internal/status"
	"pptp-alg/nat"
)

// This file ends control connections when the user asks for it.
//
// A message that we put into a TCP stream would shift all sequence numbers behind
// it, for as long as the stream lives. So the whole connection ends: each side
// gets what ends its calls in PPTP's words, from a socket that has the other side's
// place in the stream, and then a reset.

// readingTime is how long a side may read the message before the reset, which makes
// some forget what they have not read.
const readingTime = time.Second

// farewell is what was sent on a connection that we ended, by the side in whose
// name. Its segments pass through our own queue.
type farewell [2]alg.Parting

// verdict lets pass what we sent, and what carries nothing. What the ends still
// have to say has the sequence numbers of our messages.
func (f *farewell) verdict(s *alg.Segment) alg.Verdict {
	sent := f[s.From]
	if at := s.Seq - sent.Seq; len(s.Payload) == 0 ||
		at < uint32(len(sent.Message)) && bytes.HasPrefix(sent.Message[at:], s.Payload) {
		return alg.Accept
	}
	return alg.Drop
}

// drop answers the command "drop". Any goroutine may call it.
func (d *daemon) drop(ctx context.Context, args json.RawMessage) (any, error) {
	var r status.DropRequest
	if err := json.Unmarshal(args, &r); err != nil {
		return nil, fmt.Errorf("not a request to drop something: %w", err)
	}
	return ask(ctx, d, func() (status.Dropped, error) { return d.dropChosen(time.Now(), r) })
}

func (d *daemon) dropChosen(now time.Time, r status.DropRequest) (status.Dropped, error) {
	chosen, err := d.choose(r)
	if err != nil {
		return status.Dropped{}, err
	}
	done := status.Dropped{Connections: []status.DroppedConnection{}}
	var errs []error
	for _, c := range chosen {
		one, err := d.dropConnection(now, c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done.Connections = append(done.Connections, one)
	}
	if len(done.Connections) == 0 {
		return done, errors.Join(errs...)
	}
	for _, err := range errs { // the others were ended: that is the answer
		d.log.Error("cannot drop a control connection", "error", err)
	}
	return done, nil
}

// choose finds the connections that are meant.
func (d *daemon) choose(r status.DropRequest) (chosen []*alg.Connection, err error) {
	var calls *nat.Connection
	if r.Call != 0 {
		d.table.Calls(func(c *nat.Call) {
			if c.ID == r.Call {
				calls = c.Connection
			}
		})
		switch {
		case calls == nil:
			return nil, fmt.Errorf("there is no call %d; `pptp-alg status` has the numbers", r.Call)
		case calls.Live() > 1 && !r.Others:
			return nil, fmt.Errorf("call %d shares its control connection with calls %v: a router can end them only together; "+
				"give --connection to do that, or have the client hang up", r.Call, slices.DeleteFunc(callNumbers(calls), func(n uint64) bool { return n == r.Call }))
		}
	}
	d.alg.Connections(func(c *alg.Connection) {
		if lives(c) && (calls != nil && c.Calls() == calls || calls == nil && c.Flow.Client.Addr() == r.Client) {
			chosen = append(chosen, c)
		}
	})
	slices.SortFunc(chosen, func(a, b *alg.Connection) int { return cmp.Compare(a.Calls().ID, b.Calls().ID) })
	switch {
	case len(chosen) > 0:
		return chosen, nil
	case calls != nil:
		return nil, fmt.Errorf("call %d ends already: its control connection is being closed", r.Call)
	}
	return nil, fmt.Errorf("client %v has no control connection; `pptp-alg status --connections` lists those that there are", r.Client)
}

// callNumbers are those of a connection's calls.
func callNumbers(c *nat.Connection) []uint64 {
	list := []uint64{}
	c.Each(func(call *nat.Call) {
		if !call.Refused {
			list = append(list, call.ID)
		}
	})
	return list
}

// dropConnection ends a connection, or leaves it as it is.
func (d *daemon) dropConnection(now time.Time, c *alg.Connection) (done status.DroppedConnection, err error) {
	failed := func(err error) (status.DroppedConnection, error) {
		return done, fmt.Errorf("the control connection of %v with %v stays as it is: %w", c.Flow.Client, c.Flow.Server, err)
	}
	ends, path := noteOf(c).ends, c.Path()
	if path.Zone.ID != 0 {
		return failed(fmt.Errorf("it is in conntrack zone %d, where the router cannot speak for its ends; have the client hang up", path.Zone.ID))
	}
	var last farewell
	var sockets [2]*impersonate.Socket
	for _, to := range [...]nat.Side{nat.Client, nat.Server} {
		from := to.Other()
		if last[from], err = c.Parting(to); err == nil {
			sockets[from], err = impersonate.Open(impersonate.Place{
				Local: ends[from].real, Remote: ends[to].told, Mark: path.Mark,
				Next: last[from].Seq, Received: last[from].Ack,
			})
		}
		if err != nil {
			if from == nat.Client && sockets[nat.Server] != nil {
				sockets[nat.Server].Leave()
			}
			return failed(because(err))
		}
	}
	done = status.DroppedConnection{Client: c.Flow.Client, Server: c.Flow.Server, Calls: callNumbers(c.Calls()), Told: []string{}}
	for _, to := range [...]nat.Side{nat.Client, nat.Server} {
		if from := to.Other(); len(last[from].Message) > 0 {
			if err := sockets[from].Send(last[from].Message); err != nil {
				d.log.Warn("a side of a dropped control connection is not told", "side", to, "connection", c.Flow, "error", err)
				continue
			}
			done.Told = append(done.Told, to.String())
		}
	}
	// Ours are decided after this: they wait in the queue, which we read.
	for old := range d.dropped {
		if d.alg.Find(old.Flow) != old {
			delete(d.dropped, old)
		}
	}
	d.dropped[c] = last
	c.Abort(now, status.DroppedByAdministrator)
	d.log.Info("dropped a control connection on request", "client", c.Flow.Client, "server", c.Flow.Server, "calls", done.Calls, "told", done.Told)
	time.AfterFunc(readingTime, func() {
		for _, s := range sockets {
			s.Reset()
		}
	})
	return done, nil
}

// because says what the user can do.
func because(err error) error {
	switch {
	case errors.Is(err, impersonate.ErrLocal):
		return errors.New("one of its ends is a program on this router; end it there")
	case errors.Is(err, alg.ErrUnseen):
		return fmt.Errorf("%w; its keepalives come every minute, try again after the next one", err)
	}
	return err
}
