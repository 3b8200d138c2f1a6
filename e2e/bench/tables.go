package bench

import (
	"fmt"
	"slices"
	"strings"
)

// table is a Markdown table.
type table struct {
	head []string
	rows [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// String aligns the columns; all but the first to the right.
func (t *table) String() string {
	width := make([]int, len(t.head))
	for _, r := range append([][]string{t.head}, t.rows...) {
		for i, cell := range r {
			width[i] = max(width[i], len([]rune(cell)), 4)
		}
	}
	var b strings.Builder
	line := func(cells []string) {
		for i, cell := range cells {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if i == 0 {
				b.WriteString("| " + cell + pad + " |")
			} else {
				b.WriteString(" " + pad + cell + " |")
			}
		}
		b.WriteByte('\n')
	}
	line(t.head)
	for i := range t.head {
		if i == 0 {
			b.WriteString("|" + strings.Repeat("-", width[i]+2) + "|")
		} else {
			b.WriteString(strings.Repeat("-", width[i]+1) + ":|")
		}
	}
	b.WriteByte('\n')
	for _, r := range t.rows {
		line(r)
	}
	return b.String()
}

// none is what stands where nothing was measured.
const none = "–"

// hundreds writes a rate, rounded, and its spread.
func hundreds(s Sample) string {
	if len(s.Rounds) == 0 {
		return none
	}
	return fmt.Sprintf("%s ±%.0f %%", grouped(100*float64(int(s.Median()/100+0.5))), 100*s.Spread())
}

func ratio(s Sample) string {
	if len(s.Rounds) == 0 {
		return none
	}
	return fmt.Sprintf("%.2f", s.Median())
}

func us(v float64) string { return fmt.Sprintf("%.1f", v) }

// stages are the numbers of calls that were measured, in order.
func stages(rates []Rate) []int {
	var n []int
	for _, r := range rates {
		if !slices.Contains(n, r.Stage) {
			n = append(n, r.Stage)
		}
	}
	slices.Sort(n)
	return n
}

// both is a competitor's rate in a stage over both directions: as many packets
// each way. calls is 1 for the one call of pptp-alg that every stage has, else 0.
func both(rates []Rate, stage int, k Kind, calls int) (s Sample, carried int) {
	var way [2]Sample
	for i, d := range directions {
		for _, r := range rates {
			if r.Stage == stage && r.Kind == k && r.Direction == d && (calls == 0 && (stage == 1 || r.Calls > 1) || r.Calls == calls && calls > 0) {
				way[i], carried = r.CPU, r.Calls
			}
		}
	}
	for i := range min(len(way[0].Rounds), len(way[1].Rounds)) {
		s.Rounds = append(s.Rounds, 2/(1/way[0].Rounds[i]+1/way[1].Rounds[i]))
	}
	return s, carried
}

// rateTable is packets a second by number of calls.
func rateTable(d *Data) string {
	t := &table{head: []string{"calls", Plain.Name(), Masq.Name(), Helper.Name(), ALG.Name(), "to helper", "to plain", "to one call"}}
	var notes []string
	for _, n := range stages(d.Rates) {
		plain, _ := both(d.Rates, n, Plain, 0)
		masq, _ := both(d.Rates, n, Masq, 0)
		helper, carried := both(d.Rates, n, Helper, 0)
		alg, _ := both(d.Rates, n, ALG, 0)
		one, _ := both(d.Rates, n, ALG, 1)
		name := hundreds(helper)
		if carried > 0 && carried < n {
			name += " *"
			notes = append(notes, fmt.Sprintf("\\* Of %s calls the helper carried %s.", grouped(float64(n)), grouped(float64(carried))))
		}
		t.row(grouped(float64(n)), hundreds(plain), hundreds(masq), name, hundreds(alg), ratio(alg.over(helper)), ratio(alg.over(plain)), ratio(alg.over(one)))
	}
	if entries, n := both(d.Rates, 1, Entries, 0); n > 0 {
		helper, _ := both(d.Rates, 1, Helper, 0)
		notes = append(notes, fmt.Sprintf("Without our nftables rules, with nothing but the conntrack entries of one call: %s packets a second, %s of the helper's.",
			hundreds(entries), ratio(entries.over(helper))))
	}
	text := t.String()
	if len(notes) > 0 {
		text += "\n" + strings.Join(notes, "\n\n") + "\n"
	}
	return text
}

// fastTable is packets a second by number of calls, through a bridge.
func fastTable(rates []Rate) string {
	t := &table{head: []string{"calls", Plain.Name(), ALG.Name(), Fast.Name(), "to plain", "to " + ALG.Name()}}
	for _, n := range stages(rates) {
		plain, _ := both(rates, n, Plain, 0)
		alg, _ := both(rates, n, ALG, 0)
		fast, _ := both(rates, n, Fast, 0)
		t.row(grouped(float64(n)), hundreds(plain), hundreds(alg), hundreds(fast), ratio(fast.over(plain)), ratio(fast.over(alg)))
	}
	return t.String()
}

// wayTable is the rates of each direction, without ratios.
func wayTable(d *Data, kinds ...Kind) string {
	t := &table{head: []string{"calls"}}
	for _, k := range kinds {
		t.head = append(t.head, k.Name()+", out", "in")
	}
	for _, n := range stages(d.Rates) {
		row := []string{grouped(float64(n))}
		for _, k := range kinds {
			for _, way := range directions {
				cell := none
				for _, r := range d.Rates {
					if r.Stage == n && r.Kind == k && r.Direction == way && (n == 1 || r.Calls > 1) {
						cell = grouped(100 * float64(int(r.CPU.Median()/100+0.5)))
					}
				}
				row = append(row, cell)
			}
		}
		t.row(row...)
	}
	return t.String()
}

func throughputTable(d *Data) string {
	t := &table{head: []string{"calls", Plain.Name(), Helper.Name(), ALG.Name(), "to helper", "to plain"}}
	gigabits := func(s Sample) string {
		if len(s.Rounds) == 0 {
			return none
		}
		return fmt.Sprintf("%.2f Gbit/s", s.Median()*float64(d.Large)*8/1e9)
	}
	for _, n := range stages(d.Throughput) {
		plain, _ := both(d.Throughput, n, Plain, 0)
		helper, _ := both(d.Throughput, n, Helper, 0)
		alg, _ := both(d.Throughput, n, ALG, 0)
		t.row(grouped(float64(n)), gigabits(plain), gigabits(helper), gigabits(alg), ratio(alg.over(helper)), ratio(alg.over(plain)))
	}
	return t.String()
}

func latencyTable(d *Data) string {
	t := &table{head: []string{"", "calls", "direction", "median, µs", "added", "99th percentile, µs", "added"}}
	for _, p := range d.Latency {
		var plain *Percentile
		for i, q := range d.Latency {
			if q.Kind == Plain && q.Direction == p.Direction && (plain == nil || distance(q.Calls, p.Calls) < distance(plain.Calls, p.Calls)) {
				plain = &d.Latency[i]
			}
		}
		added, added99 := none, none
		if plain != nil && p.Kind != Plain {
			added, added99 = us(p.Median.minus(plain.Median).Median()), us(p.P99.minus(plain.P99).Median())
		}
		t.row(p.Kind.Name(), grouped(float64(p.Calls)), string(p.Direction), us(p.Median.Median()), added, us(p.P99.Median()), added99)
	}
	return t.String()
}

func distance(a, b int) int { return max(a-b, b-a) }

func setupTable(c *Control) string {
	t := &table{head: []string{"", "clients at once", "calls a second", "to helper", "CPU for a call, µs", "of it the daemon's"}}
	for _, s := range c.Setup {
		var helper Sample
		for _, q := range c.Setup {
			if q.Kind == Helper && q.Clients == s.Clients {
				helper = q.Rate
			}
		}
		share, daemon := none, none
		if s.Kind == ALG {
			share, daemon = ratio(s.Rate.over(helper)), fmt.Sprintf("%.0f", s.Daemon.Median())
		}
		t.row(s.Kind.Name(), fmt.Sprint(s.Clients), fmt.Sprintf("%s ±%.0f %%", grouped(s.Rate.Median()), 100*s.Rate.Spread()), share,
			fmt.Sprintf("%.0f", s.All.Median()), daemon)
	}
	return t.String()
}

// message finds the figures of a kind of message.
func (c *Control) message(what string, k Kind) *Percentile {
	for i, p := range c.Messages {
		if p.What == what && p.Kind == k {
			return &c.Messages[i]
		}
	}
	return nil
}

// added is what one of two messages there and back takes longer than without
// anything that knows PPTP, in microseconds: median and 99th percentile.
func (c *Control) added(what string, k Kind) (median, p99 float64) {
	p, without := c.message(what, k), c.message(what, Masq)
	if p == nil || without == nil {
		return 0, 0
	}
	return p.Median.minus(without.Median).Median() / 2, p.P99.minus(without.P99).Median() / 2
}

func messageTable(c *Control) string {
	t := &table{head: []string{"there and back", "", "median, µs", "99th percentile, µs", "added to one message", "99th percentile"}}
	for _, p := range c.Messages {
		added, added99 := none, none
		if p.Kind != Masq {
			m, h := c.added(p.What, p.Kind)
			added, added99 = us(m), us(h)
		}
		t.row(p.What, p.Kind.Name(), us(p.Median.Median()), us(p.P99.Median()), added, added99)
	}
	return t.String()
}

func scaleTable(s *Scale) string {
	t := &table{head: []string{"calls", "connections", "set up", "status", "status --json", "resident", "at rest", "per call", "stop", "restart until all are adopted", "its CPU", "cleared"}}
	sec := func(v float64) string {
		if v == 0 {
			return none
		}
		return fmt.Sprintf("%.2f s", v)
	}
	for _, p := range s.Points {
		t.row(grouped(float64(p.Calls)), grouped(float64(p.Connections)), sec(p.SetupSeconds), sec(p.StatusSeconds), sec(p.StatusJSONSeconds),
			fmt.Sprintf("%.1f MB", float64(p.Resident)/1e6), fmt.Sprintf("%.1f MB", float64(p.AtRest)/1e6), fmt.Sprintf("%.0f bytes", p.PerCall), sec(p.StopSeconds), sec(p.RestartSeconds), sec(p.RestartCPU), sec(p.ClearSeconds))
	}
	i := s.Idle
	return t.String() + fmt.Sprintf("\nWith %s calls up and nothing to do, over %.0f seconds: %.4f %% of a core, %.0f wake-ups an hour.\n",
		grouped(float64(i.Calls)), i.Seconds, 100*i.CPU, i.WakeupsPerHour)
}

func sizeTable(s *Size) string {
	t := &table{head: []string{"program, stripped", "bytes", "compressed with xz"}}
	for _, b := range s.Binaries {
		t.row(b.Architecture, grouped(float64(b.Bytes)), grouped(float64(b.Compressed)))
	}
	return t.String() + fmt.Sprintf("\nWithout calls: %.1f MB resident, %.1f MB of it private. From start to ready: %.0f ms.\n",
		s.Resident.Median()/1e6, s.Private.Median()/1e6, s.Ready.Median())
}
