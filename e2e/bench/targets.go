package bench

import "fmt"

// target is something that the project wants to reach.
type target struct {
	what, want string
	got        string
	met        bool
}

// targets compares results with what the project wants. Parts that were not
// measured have none.
func targets(r *Results) []target {
	var all []target
	add := func(what, want, got string, met bool) { all = append(all, target{what, want, got, met}) }
	least := func(what string, want float64, s Sample, unit string) {
		if len(s.Rounds) > 0 {
			add(what, fmt.Sprintf("at least %v%s", want, unit), fmt.Sprintf("%.2f%s", s.Median(), unit), s.Median() >= want)
		}
	}
	most := func(what string, want, got float64, unit string) {
		add(what, fmt.Sprintf("at most %v%s", want, unit), fmt.Sprintf("%.4g%s", got, unit), got <= want)
	}
	if d := r.Data; d != nil {
		for _, t := range []struct {
			calls int
			want  float64
		}{{1, 0.97}, {4000, 7}} {
			alg, _ := both(d.Rates, t.calls, ALG, 0)
			helper, _ := both(d.Rates, t.calls, Helper, 0)
			least(fmt.Sprintf("packets a second at %s, to the helper's", calls(t.calls)), t.want, alg.over(helper), "")
		}
		many, _ := both(d.Rates, 50_000, ALG, 0)
		one, _ := both(d.Rates, 50_000, ALG, 1)
		least("packets a second at 50,000 calls, to those at one", 0.8, many.over(one), "")
	}
	if d := r.Fast; d != nil {
		for _, n := range stages(d.Rates) {
			plain, _ := both(d.Rates, n, Plain, 0)
			alg, _ := both(d.Rates, n, ALG, 0)
			fast, _ := both(d.Rates, n, Fast, 0)
			least(fmt.Sprintf("fast path, packets a second at %s, to plain forwarding", calls(n)), 1.15, fast.over(plain), "")
			least(fmt.Sprintf("fast path, packets a second at %s, to without it", calls(n)), 1.5, fast.over(alg), "")
		}
		for _, n := range stages(d.Watched) {
			plain, _ := both(d.Watched, n, Plain, 0)
			alg, _ := both(d.Watched, n, ALG, 0)
			fast, _ := both(d.Watched, n, Fast, 0)
			least(fmt.Sprintf("the same with bridge-nf-call-iptables, at %s, to plain forwarding", calls(n)), 1.15, fast.over(plain), "")
			least(fmt.Sprintf("the same with bridge-nf-call-iptables, at %s, to without it", calls(n)), 1.5, fast.over(alg), "")
		}
		for _, p := range d.Latency {
			if p.Kind != Fast {
				continue
			}
			for _, q := range d.Latency {
				if q.Kind == Plain && q.Calls == p.Calls && q.Direction == p.Direction {
					most(fmt.Sprintf("fast path, one packet at %s, %s, to plain forwarding", calls(p.Calls), p.Direction), 1.05, p.Median.over(q.Median).Median(), "")
				}
			}
		}
	}
	if c := r.Control; c != nil {
		var alg, helper Sample
		for _, s := range c.Setup {
			switch {
			case s.Clients > 1 && s.Kind == ALG:
				alg = s.Rate
			case s.Clients > 1 && s.Kind == Helper:
				helper = s.Rate
			}
		}
		least("calls a second with 64 clients at once, to the helper's", 0.5, alg.over(helper), "")
		for _, what := range []string{messageEcho, messageCall} {
			m, _ := c.added(what, ALG)
			most("added to one message ("+what+"), median", 150, m, " µs")
		}
	}
	if s := r.Scale; s != nil {
		for _, p := range s.Points {
			add(fmt.Sprintf("restart with adoption of %s", calls(p.Calls)), "at most 2 s",
				fmt.Sprintf("%.2f s, %s adopted, %s carried", p.RestartSeconds, grouped(float64(p.Adopted)), grouped(float64(p.Carried))),
				p.RestartSeconds <= 2 && p.Adopted == p.Calls && p.Carried == p.Calls)
			most(fmt.Sprintf("resident memory of a call at rest, with %s", calls(p.Calls)), 1024, p.PerCall, " bytes")
		}
		most(fmt.Sprintf("CPU of an idle daemon with %s", calls(s.Idle.Calls)), 0.5, 100*s.Idle.CPU, " % of a core")
	}
	if s := r.Size; s != nil {
		most("resident memory without calls", 15, s.Resident.Median()/1e6, " MB")
		var largest, compressed int64
		for _, b := range s.Binaries {
			largest, compressed = max(largest, b.Bytes), max(compressed, b.Compressed)
		}
		most("stripped program, the largest", 9, float64(largest)/1e6, " MB")
		most("stripped program, compressed, the largest", 2.5, float64(compressed)/1e6, " MB")
		most("start to ready", 100, s.Ready.Median(), " ms")
	}
	return all
}

func calls(n int) string {
	if n == 1 {
		return "one call"
	}
	return grouped(float64(n)) + " calls"
}

func targetTable(r *Results) string {
	t := &table{head: []string{"target", "wanted", "measured", "met"}}
	for _, g := range targets(r) {
		met := "yes"
		if !g.met {
			met = "**no**"
		}
		t.row(g.what, g.want, g.got, met)
	}
	return t.String()
}
