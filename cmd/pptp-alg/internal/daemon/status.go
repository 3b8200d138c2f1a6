package daemon

import (
	"maps"
	"time"

	"pptp-alg/alg"
	"pptp-alg/cmd/pptp-alg/internal/queue"
	"pptp-alg/cmd/pptp-alg/internal/status"
	"pptp-alg/conntrack"
	"pptp-alg/nat"
)

// call describes a call, as it is now or as it was at its end.
func (d *daemon) call(now time.Time, c *nat.Call, count counter) status.Call {
	return describeCall(now, c, count, d.config.Timeouts.Silence)
}

func describeCall(now time.Time, c *nat.Call, count counter, silence time.Duration) status.Call {
	s := status.Call{
		ID: c.ID, Direction: c.Direction.String(), State: c.State.String(), Initiator: c.Initiator.String(), Since: wall(now, c.Since),
		Client: endpoint(c, nat.Client), Server: endpoint(c, nat.Server),
		Established: wall(now, c.Up), Ended: wall(now, c.Over), Reason: c.Reason, Refused: c.Refused,
	}
	// GRE from one side flows in the mapping of the other one's Call ID.
	s.PacketsFromClient, s.BytesFromClient = count(c.End(nat.Server))
	s.PacketsFromServer, s.BytesFromServer = count(c.End(nat.Client))
	if words := s.Diagnose(now, silence); c.Live() {
		s.Warning = words
	} else {
		s.Diagnosis = words
	}
	return s
}

func endpoint(c *nat.Call, side nat.Side) status.Endpoint {
	h := c.Connection.Path.Hosts[side]
	e := status.Endpoint{Address: h.Real, TranslatedAddress: h.Told}
	if m := c.End(side); m != nil {
		e.CallID, e.TranslatedCallID = status.Known(m.Real), status.Known(m.Told)
	}
	return e
}

// traffic returns packets and bytes, or nil where the kernel does not count.
func traffic(m *nat.Mapping, flows map[conntrack.GRE]conntrack.Stored) (packets, bytes *uint64) {
	if m == nil {
		return status.Known[uint64](0), status.Known[uint64](0)
	}
	t := m.Past
	if m.Open() {
		e, ok := flows[gre(m.Arrives())]
		if ok && !e.Accounted {
			return nil, nil
		}
		t = sum(t, e.Counters)
	}
	return status.Known(t.Packets), status.Known(t.Bytes)
}

func connection(c *alg.Connection) status.Connection {
	ends := noteOf(c).ends
	return status.Connection{
		Client: status.Peer{Address: ends[nat.Client].real, TranslatedAddress: ends[nat.Client].told},
		Server: status.Peer{Address: ends[nat.Server].real, TranslatedAddress: ends[nat.Server].told},
		State:  c.State.String(), Since: wall(time.Now(), c.Since), Calls: c.Calls().Live(), Unparsed: c.Unparsed, Reason: c.Reason,
	}
}

// count collects the counters of all parts.
func (d *daemon) count() map[string]uint64 {
	t, a, q, own := d.table.Counters, d.alg.Counters, d.queue.Counters(), d.counters
	all := map[string]uint64{
		"calls":                    uint64(d.table.Len()),
		"calls_requested":          t.CallsRequested,
		"calls_established":        t.CallsEstablished,
		"calls_ended":              t.CallsEnded,
		"calls_refused_limit":      t.RefusedLimit,
		"calls_refused_exhausted":  t.RefusedExhausted,
		"calls_refused_ambiguous":  t.RefusedAmbiguous,
		"calls_refused_kernel":     t.RefusedKernel,
		"calls_half_open_expired":  t.HalfOpenExpired,
		"call_ids_translated":      t.Translated,
		"connections":              uint64(d.alg.Len()),
		"connections_opened":       a.Connections,
		"connections_looked_up":    own.lookups,
		"connections_unparsed":     a.Unparsed,
		"connections_untracked":    own.untracked,
		"connections_refused":      own.refusedConnections,
		"connections_pptp_helper":  own.kernelHelped,
		"connections_detached":     own.detached,
		"connections_reclaimed":    own.reclaimed,
		"connections_removed":      own.removedConnections,
		"connections_restored":     own.restoredConnections,
		"messages":                 a.Messages,
		"messages_unknown_call_id": a.UnknownCallID.Sum(),
		"segments_changed":         a.Changed,
		"segments_retransmitted":   a.Retransmitted.Sum(),
		"segments_held":            a.Held,
		"segments_dropped_held":    a.DroppedHeld,
		"segments_dropped_unknown": a.DroppedUnknown,
		"segments_dropped_budget":  a.DroppedBudget,
		"segments_dropped_excess":  d.overdone.Load(),
		"streams_resynchronised":   a.Resynchronised,
		"entries_removed":          own.removedEntries,
		"entries_failed":           d.plane.errors,
		"events_lost":              own.eventsLost,
		"table_restored":           own.tableRestored,
		"calls_taken_over":         own.callsTakenOver,
		"entries_revived":          own.entriesRevived,
		"entries_swept":            own.entriesSwept,
		"records_refused":          own.recordsRefused,
		"state_failures":           d.journal.failures,
	}
	maps.Copy(all, queueCounters(q))
	if d.fast != nil {
		n := d.fast.count()
		maps.Copy(all, map[string]uint64{
			"fast_path_calls": n.calls, "fast_path_entered": n.entered, "fast_path_closed": n.halts, "fast_path_errors": n.errors,
		})
	}
	if packets, err := d.plane.rules.Counters(); err == nil {
		for name, c := range packets {
			all["packets_"+name] = c.Packets
		}
	}
	return all
}

func queueCounters(q queue.Counters) map[string]uint64 {
	return map[string]uint64{
		"queue_packets":         q.Packets,
		"queue_accepted":        q.Accepted,
		"queue_modified":        q.Modified,
		"queue_dropped":         q.Dropped,
		"queue_passed":          q.Fragments + q.NotTCP + q.Malformed + q.Truncated,
		"queue_overflows":       q.Overflows,
		"queue_late_verdicts":   q.LateVerdicts,
		"queue_failed_verdicts": q.FailedVerdicts,
		"queue_faults":          q.Faults,
	}
}
