package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/cmd/pptp-alg/internal/status"
	"pptp-alg/nat"
)

// This file tells the log and the subscribers what happens. Subscribers get copies:
// nothing of the owner's state leaves its goroutine.

// callEvent is nat.Config.Notify.
func (d *daemon) callEvent(e nat.Event) {
	c := e.Call
	kind := news.CallRequested
	count := past // GRE is not counted where there was no time for any
	switch {
	case e.Kind == nat.CallEstablished:
		kind = news.CallEstablished
		d.watchGRE(e.Time, c)
	case e.Kind == nat.CallEnded && c.Refused:
		kind = news.CallRefused
	case e.Kind == nat.CallEnded:
		kind = news.CallEnded
		if !c.Up.IsZero() {
			count = d.counted
		}
	}
	if kind == news.CallRequested {
		d.log.Debug(e.Kind.String(), d.callArgs(c)...)
		if !d.news.Heard() {
			return
		}
	}
	s := d.call(e.Time, c, count)
	d.news.Publish(news.Event{Time: e.Time, Kind: kind, Call: &s})
	d.witness(e.Time, kind, c, &s)
	switch kind {
	case news.CallEstablished:
		d.bounded(slog.LevelInfo, callBurst, e.Kind.String(), d.callArgs(c)...)
	case news.CallEnded, news.CallRefused:
		if w, ok := c.Note.(*watched); ok {
			w.look.Clear()
		}
		c.Note = &s
		args := append(d.callArgs(c), "duration", e.Time.Sub(c.Since).Round(time.Millisecond), "reason", c.Reason)
		if s.Diagnosis != "" {
			args = append(args, "diagnosis", s.Diagnosis)
		}
		if c.Refused {
			d.limited("call refused", args...)
			return
		}
		d.bounded(slog.LevelInfo, callBurst, e.Kind.String(), args...)
	}
}

// callArgs names a call in the log.
func (d *daemon) callArgs(c *nat.Call) []any {
	args := []any{"call", c.ID, "direction", c.Direction.String()}
	for side := nat.Client; side <= nat.Server; side++ {
		h := c.Connection.Path.Hosts[side]
		args = append(args, side.String(), h.Real)
		if m := c.End(side); m != nil {
			args = append(args, side.String()+" Call ID", callID(m))
		}
	}
	return args
}

// callID names a Call ID in both forms, where they differ.
func callID(m *nat.Mapping) string {
	if m.Real == m.Told {
		return fmt.Sprint(m.Real)
	}
	return fmt.Sprintf("%d (told %d)", m.Real, m.Told)
}

// connectionEvent is alg.Config.Notify.
func (d *daemon) connectionEvent(e alg.Event) {
	c := e.Connection
	kind := news.ConnectionOpened
	switch e.Kind {
	case alg.ConnectionUnparsed:
		kind = news.ConnectionUnparsed
		d.limited(e.Kind.String()+"; it passes untranslated", "client", c.Flow.Client, "server", c.Flow.Server, "reason", c.Unparsed)
	case alg.ConnectionClosed:
		kind = news.ConnectionClosed
		delete(d.unheard, c)
		fallthrough
	default:
		d.log.Debug(e.Kind.String(), "client", c.Flow.Client, "server", c.Flow.Server, "reason", c.Reason)
	}
	d.witnessConnection(e.Time, kind, c)
	if kind != news.ConnectionOpened { // its ends are not known yet: open tells of it
		d.tellConnection(e.Time, kind, c)
	}
}

// tellConnection tells the subscribers what happened to a control connection.
func (d *daemon) tellConnection(now time.Time, kind news.Kind, c *alg.Connection) {
	if d.news.Heard() {
		s := connection(c)
		d.news.Publish(news.Event{Time: now, Kind: kind, Connection: &s})
	}
}

// connectionRefused tells of a control connection that this router does not let pass.
func (d *daemon) connectionRefused(now time.Time, client, server netip.AddrPort, err error) {
	d.limited("refused a control connection", "client", client, "server", server, "error", err)
	if d.news.Heard() {
		d.news.Publish(news.Event{Time: now, Kind: news.ConnectionRefused, Message: err.Error(), Connection: &status.Connection{
			Client: status.Peer{Address: client, TranslatedAddress: client},
			Server: status.Peer{Address: server, TranslatedAddress: server},
			State:  alg.Refused.String(), Since: now, Reason: "refused by this router: " + err.Error(),
		}})
	}
}

// report publishes what concerns no call and no connection.
func (d *daemon) report(kind news.Kind, format string, args ...any) {
	d.news.Publish(news.Event{Time: time.Now(), Kind: kind, Message: fmt.Sprintf(format, args...)})
}
