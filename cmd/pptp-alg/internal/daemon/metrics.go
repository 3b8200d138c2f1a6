package daemon

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/fastpath"
	"pptp-alg/cmd/pptp-alg/internal/metrics"
	"pptp-alg/cmd/pptp-alg/internal/queue"
	"pptp-alg/nat"
	"pptp-alg/rules"
)

// measures is what the owner gives to those who measure: copies.
type measures struct {
	calls       [nat.Ended + 1]int
	connections [alg.Closed + 1]int
	unparsed    int
	table       nat.Counters
	alg         alg.Counters
	queue       queue.Counters
	own         counters
	entryErrors uint64
	overdone    uint64
	lostRecords uint64
	gre         map[string]rules.Counter
	carried     nat.Traffic // in all calls that there ever were; see carry
	counted     bool        // whether the kernel counts what they carry
	path        *fastpath.Path
	fast        fastNumbers
}

// measure is called by the owner.
func (d *daemon) measure() (measures, error) {
	s := measures{
		table: d.table.Counters, alg: d.alg.Counters, queue: d.queue.Counters(), own: d.counters,
		entryErrors: d.plane.errors, overdone: d.overdone.Load(), lostRecords: d.lostRecords.Load(),
	}
	d.table.Calls(func(c *nat.Call) { s.calls[c.State]++ })
	d.alg.Connections(func(c *alg.Connection) {
		if s.connections[c.State]++; c.Unparsed != "" && c.State != alg.Closed {
			s.unparsed++
		}
	})
	if gre, err := d.plane.rules.Counters(); err == nil {
		s.gre = gre
	}
	if d.fast != nil {
		s.path, s.fast = d.fast.path, d.fast.count()
	}
	s.carried = d.plane.carried
	d.table.Mappings(func(m *nat.Mapping) { s.carried = plus(s.carried, m.Past) })
	return s, nil
}

// carry adds what the kernel has counted for the entries that there are now. One that went away in between is missing
// until the next time; but the sum never goes back, since that would mean that everything began anew.
func (d *daemon) carry(s *measures) error {
	entries, err := d.counting.ct.List()
	if err != nil {
		return fmt.Errorf("read the calls' counters: %w", err)
	}
	s.counted = true
	for _, e := range entries {
		s.counted = s.counted && e.Accounted
		s.carried = sum(s.carried, e.Counters)
	}
	if s.path != nil {
		all, err := s.path.All()
		if err != nil {
			return err
		}
		for _, t := range all {
			s.carried = plus(s.carried, nat.Traffic(t))
		}
	}
	last := &d.counting.carried
	last.Packets, last.Bytes = max(last.Packets, s.carried.Packets), max(last.Bytes, s.carried.Bytes)
	s.carried = *last
	return nil
}

// metrics asks the owner to measure and puts it into words.
func (d *daemon) metrics(ctx context.Context) ([]metrics.Family, error) {
	d.counting.mu.Lock()
	defer d.counting.mu.Unlock()
	s, err := ask(ctx, d, d.measure)
	if err != nil {
		return nil, err
	}
	if err := d.carry(&s); err != nil {
		return nil, err
	}
	return append(s.families(d.version, d.started), metrics.Process()...), nil
}

// families are the metrics. Their names are an interface: dashboards and alerts
// of users rely on them. No label has the address of anybody.
func (s *measures) families(version string, started time.Time) []metrics.Family {
	var all []metrics.Family
	// The value of one metric, or the samples with the values of a label.
	count := func(name, help string, v uint64) {
		all = append(all, metrics.One("pptp_alg_"+name, help, metrics.Counter, float64(v)))
	}
	family := func(kind metrics.Kind, name, help, label string, values ...any) {
		f := metrics.Family{Name: "pptp_alg_" + name, Help: help, Kind: kind}
		for i := 0; i < len(values); i += 2 {
			v, ok := values[i+1].(float64)
			if !ok {
				v = float64(values[i+1].(uint64))
			}
			f.Samples = append(f.Samples, metrics.Sample{Labels: []string{label, values[i].(string)}, Value: v})
		}
		all = append(all, f)
	}
	sides := func(name, help string, v alg.BySide) {
		family(metrics.Counter, name, help, "side", nat.Client.String(), v[nat.Client], nat.Server.String(), v[nat.Server])
	}
	all = append(all, metrics.Family{Name: "pptp_alg_build_info", Help: "Always 1; says what was built.", Kind: metrics.Gauge,
		Samples: []metrics.Sample{{Labels: []string{"version", version, "goversion", runtime.Version()}, Value: 1}}})
	all = append(all, metrics.One("pptp_alg_start_time_seconds", "When the daemon began to translate, in seconds since 1970.", metrics.Gauge, float64(started.Unix())))

	var states []any
	for state := nat.Requested; state < nat.Ended; state++ {
		states = append(states, state.String(), float64(s.calls[state]))
	}
	family(metrics.Gauge, "calls", "Calls in progress.", "state", states...)
	t := s.table
	count("calls_requested_total", "Calls that were announced and not refused by this router.", t.CallsRequested)
	count("calls_established_total", "Calls that both sides agreed upon.", t.CallsEstablished)
	count("calls_ended_total", "Calls that ended, established or not.", t.CallsEnded)
	count("calls_failed_total", "Calls that ended without having been established, those that this router refused included.", s.own.failedCalls)
	family(metrics.Counter, "calls_refused_total", "Calls that this router refused: a limit was reached, no Call ID was free, nobody could tell two calls apart, or the kernel failed.",
		"reason", "limit", t.RefusedLimit, "exhausted", t.RefusedExhausted, "ambiguous", t.RefusedAmbiguous, "kernel", t.RefusedKernel)
	count("calls_unanswered_total", "Calls that ended because nobody answered their announcement.", t.HalfOpenExpired)
	count("call_ids_translated_total", "Call IDs in place of which another one was told.", t.Translated)

	if s.path != nil {
		all = append(all, metrics.One("pptp_alg_fast_path_calls", "Calls whose packets take the fast path both ways.", metrics.Gauge, float64(s.fast.calls)))
		count("fast_path_entered_total", "Times that a call came onto the fast path.", s.fast.entered)
		count("fast_path_closed_total", "Times that all calls were put back onto the ordinary path, because the firewall, a route or a device had changed.", s.fast.halts)
		count("fast_path_errors_total", "Requests of the fast path that the kernel refused.", s.fast.errors)
	}

	states = nil
	for state := alg.Starting; state < alg.Closed; state++ {
		states = append(states, state.String(), float64(s.connections[state]))
	}
	family(metrics.Gauge, "connections", "Control connections.", "state", states...)
	all = append(all, metrics.One("pptp_alg_connections_unparsed", "Control connections that are not understood and pass as they are.", metrics.Gauge, float64(s.unparsed)))
	a := s.alg
	count("connections_opened_total", "Control connections that were opened.", a.Connections)
	count("connections_unparsed_total", "Control connections that were not understood.", a.Unparsed)
	count("connections_untracked_total", "Segments of control connections whose conntrack entry was not found: they passed untranslated.", s.own.untracked)
	count("connections_refused_total", "Segments of control connections that a limit refused.", s.own.refusedConnections)
	count("messages_total", "Control messages that were understood.", a.Messages)
	sides("messages_split_total", "Control messages that came in several segments, by the side that sent them.", a.Split)
	sides("messages_truncated_total", "Control messages that are shorter than their type has it, by the side that sent them.", a.Short)
	sides("call_id_mismatches_total", "Call IDs in control messages that belong to no call, by the side that sent them.", a.UnknownCallID)
	sides("segments_retransmitted_total", "Segments of control connections without a new byte, by the side that sent them.", a.Retransmitted)
	count("segments_changed_total", "Segments of control connections that were changed.", a.Changed)
	count("segments_held_total", "Segments of control connections that had to wait for others.", a.Held)
	dropped := []any{"held", a.DroppedHeld, "unknown", a.DroppedUnknown, "excess", s.overdone}
	if s.gre != nil {
		dropped = append(dropped, rules.Stray, s.gre[rules.Stray].Packets)
	}
	family(metrics.Counter, "segments_dropped_total", "Segments of control connections that were dropped, for their sender to send again. "+
		"stray: no conntrack entry fitted them.", "reason", dropped...)
	count("streams_resynchronised_total", "Streams that were taken up again behind bytes that never came by.", a.Resynchronised)

	q := s.queue
	family(metrics.Counter, "queue_packets_total", "Packets from the kernel's queue, by verdict.", "verdict",
		"accepted", q.Accepted, "modified", q.Modified, "dropped", q.Dropped)
	family(metrics.Counter, "queue_unreadable_packets_total", "Packets from the queue that are no segments of a control connection and passed.", "reason",
		"fragment", q.Fragments, "not_tcp", q.NotTCP, "malformed", q.Malformed, "truncated", q.Truncated)
	count("queue_overflows_total", "Times that the kernel dropped packets because the queue was full.", q.Overflows)
	count("queue_errors_total", "Verdicts that came too late or could not be sent, and other errors of the queue.", q.LateVerdicts+q.FailedVerdicts+q.Faults)

	if s.gre != nil {
		what := []string{rules.Guarded, rules.Unmapped, rules.Truncated, rules.Unknown}
		if _, ok := s.gre[rules.Blocked]; ok {
			what = append(what, rules.Blocked)
		}
		var packets, bytes []any
		if s.counted {
			packets, bytes = append(packets, "mapped", s.carried.Packets), append(bytes, "mapped", s.carried.Bytes)
		}
		for _, w := range what {
			packets, bytes = append(packets, w, s.gre[w].Packets), append(bytes, w, s.gre[w].Bytes)
		}
		const says = "mapped: of calls, where the kernel counts those; guarded: dropped for want of the call's entry; unmapped: of no call; truncated: too short for a Call ID; unknown: not PPTP's protocol; blocked: dropped as of no call."
		family(metrics.Counter, "gre_packets_total", "Enhanced GRE packets. "+says, "kind", packets...)
		family(metrics.Counter, "gre_bytes_total", "Bytes of enhanced GRE packets. "+says, "kind", bytes...)
	}
	count("entries_removed_total", "Conntrack entries of calls that others removed.", s.own.removedEntries)
	count("entry_errors_total", "Requests about conntrack entries and the guard set that the kernel refused.", s.entryErrors)
	count("kernel_news_lost_total", "Times that news of removed conntrack entries was lost.", s.own.eventsLost)
	count("call_log_lost_records_total", "Records of the call log that were lost because its destination was down; counted when it works again.", s.lostRecords)
	count("table_restored_total", "Times that the nftables table of the daemon was gone and was put back.", s.own.tableRestored)
	return all
}
