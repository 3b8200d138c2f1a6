package daemon

import (
	"fmt"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/calllog"
	"pptp-alg/cmd/pptp-alg/internal/evidence"
	"pptp-alg/cmd/pptp-alg/internal/metrics"
	"pptp-alg/cmd/pptp-alg/internal/news"
	"pptp-alg/cmd/pptp-alg/internal/queue"
	"pptp-alg/cmd/pptp-alg/internal/status"
	"pptp-alg/nat"
)

// This file starts what writes down what happens: the call log, metrics, and the
// packets of connections that fail. Each has a goroutine of its own; the owner
// never waits for a file or a socket of theirs.

// callLogQueue is how many events the call log may be behind.
const callLogQueue = 8192

// observe starts what the configuration asks for. stop ends it, when the owner
// has ended: what happened last is written first.
func (d *daemon) observe() (stop func(), err error) {
	var stops []func()
	end := func() {
		d.news.Close()
		for _, f := range stops {
			f()
		}
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	if c := d.config.Metrics; c.Listen != "" {
		l, err := metrics.Listen(c.Listen)
		if err != nil {
			return nil, fmt.Errorf("offer metrics (metrics.listen): %w", err)
		}
		s := metrics.NewServer(l, d.metrics)
		go s.Serve()
		stops = append(stops, func() { _ = s.Close() })
	}
	if c := d.config.Capture; c.Directory != "" {
		d.evidence, err = evidence.New(evidence.Config{
			Directory: c.Directory, Total: int64(c.Total) * 1e6, Connection: c.Connection * 1e3,
			Say: func(err error) { d.log.Warn("capture", "error", err) },
		})
		if err != nil {
			return nil, fmt.Errorf("capture.directory: %w", err)
		}
		stops = append(stops, d.evidence.Close)
	}
	if c := d.config.CallLog; c.To != "" {
		log, err := calllog.New(c.To, d.callLogState)
		if err != nil {
			return nil, fmt.Errorf("write the call log (call_log.to): %w", err)
		}
		s, done := d.news.Subscribe(callLogQueue), make(chan struct{})
		go func() {
			defer close(done)
			log.Open()
			logCalls(log, s, c.ServerAddress)
		}()
		stops = append(stops, func() { <-done })
	}
	return end, nil
}

// callLogState logs that the call log fails, or works again. It is called by the
// call log's goroutine.
func (d *daemon) callLogState(err error, lost uint64) {
	if err != nil {
		d.log.Error("the call log loses records from here on", "error", err)
		return
	}
	d.lostRecords.Add(lost)
	d.log.Info("the call log works again", "records lost", lost)
}

// logCalls writes the calls of a subscription until that is closed.
func logCalls(log *calllog.Log, s *news.Subscription, server bool) {
	defer log.Close()
	for e := range s.Events() {
		if e.Lost > 0 {
			log.Missed(e.Lost)
		}
		if r, ok := callRecord(e, server); ok {
			log.Write(r)
		}
	}
}

// callRecord makes a record of an event, if it is one of calls that is logged.
func callRecord(e news.Event, server bool) (calllog.Record, bool) {
	event := ""
	switch {
	case e.Kind == news.CallEstablished:
		event = "made"
	case e.Kind == news.CallEnded && !e.Call.Established.IsZero():
		event = "ended"
	case e.Kind == news.CallEnded, e.Kind == news.CallRefused:
		event = "failed"
	default:
		return calllog.Record{}, false
	}
	c := e.Call
	r := calllog.Record{
		Time: e.Time, Event: event, ID: c.ID,
		Client: c.Client.Address, ClientCallID: c.Client.CallID, Public: c.Client.TranslatedAddress, PublicCallID: c.Client.TranslatedCallID,
		ServerCallID: c.Server.CallID, ServerToldCallID: c.Server.TranslatedCallID,
		Duration:          e.Time.Sub(c.Since),
		PacketsFromClient: c.PacketsFromClient, BytesFromClient: c.BytesFromClient,
		PacketsFromServer: c.PacketsFromServer, BytesFromServer: c.BytesFromServer,
		Reason: c.Reason,
	}
	if server {
		r.Server = c.Server.Address
	}
	return r, true
}

// witness takes note of a call that fails.
func (d *daemon) witness(now time.Time, kind news.Kind, c *nat.Call, s *status.Call) {
	what := ""
	switch {
	case kind == news.CallRefused:
		what = "refused"
	case kind == news.CallEnded && s.Established.IsZero():
		what = "failed"
	case kind == news.CallWarning:
		d.evidence.Failed(c.Connection, now, "silent")
		return
	default:
		return
	}
	d.counters.failedCalls++
	d.evidence.Failed(c.Connection, now, what)
}

// witnessConnection takes note of a control connection that is not understood, or
// that is over.
func (d *daemon) witnessConnection(now time.Time, kind news.Kind, c *alg.Connection) {
	switch kind {
	case news.ConnectionUnparsed:
		d.evidence.Failed(c.Calls(), now, "unparsed")
	case news.ConnectionClosed:
		d.evidence.Closed(c.Calls())
	}
}

// observed has a segment translated, and keeps it as the client has it: what comes
// from there before that, what goes there afterwards. So a capture of them is one
// that could have been made at the client, and can be replayed.
func (d *daemon) observed(now time.Time, c *alg.Connection, s *alg.Segment, p *queue.Packet) {
	if d.evidence == nil || c.State == alg.Closed {
		c.Segment(now, s)
		return
	}
	keep := func() { d.evidence.Add(c.Calls(), c.Flow.Client, c.Flow.Server, now, p.Data) }
	if s.From == nat.Client {
		keep()
		c.Segment(now, s)
		return
	}
	c.Segment(now, s)
	keep()
}
