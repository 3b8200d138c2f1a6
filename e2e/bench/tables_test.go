package bench

import (
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
)

// someData has round figures: the helper carries 100,000 packets at one call and
// 25,000 at 4,000, pptp-alg 100,000 always.
func someData() *Data {
	d := &Data{Payload: 100, Large: 1000}
	add := func(k Kind, stage, calls int, out, in float64) {
		for _, r := range []Rate{{Direction: Out, CPU: Sample{[]float64{out, out, out}}}, {Direction: In, CPU: Sample{[]float64{in, in, in}}}} {
			r.Kind, r.Stage, r.Calls = k, stage, calls
			d.Rates = append(d.Rates, r)
		}
	}
	for _, n := range []int{1, 4000} {
		add(Plain, n, n, 200_000, 200_000)
		add(ALG, n, n, 100_000, 100_000)
	}
	add(Helper, 1, 1, 100_000, 100_000)
	add(Helper, 4000, 3999, 20_000, 100_000/3.)
	add(ALG, 4000, 1, 80_000, 80_000)
	add(Masq, 1, 1, 150_000, 150_000)
	add(Entries, 1, 1, 120_000, 120_000)
	d.Throughput = d.Rates
	d.Latency = []Percentile{
		{Kind: Plain, Calls: 1, Direction: Out, Median: Sample{[]float64{3, 5, 4}}, P99: Sample{[]float64{9, 9, 9}}},
		{Kind: ALG, Calls: 1, Direction: Out, Median: Sample{[]float64{5, 7, 6.5}}, P99: Sample{[]float64{10, 10, 10}}},
	}
	return d
}

func lines(t *testing.T, table string, wants ...string) {
	t.Helper()
	squeezed := strings.Join(strings.Fields(table), " ")
	for _, w := range wants {
		if !strings.Contains(squeezed, w) {
			t.Errorf("%q is not in\n%s", w, table)
		}
	}
}

func TestTables(t *testing.T) {
	d := someData()
	lines(t, rateTable(d),
		"| 1 | 200,000 ±0 % | 150,000 ±0 % | 100,000 ±0 % | 100,000 ±0 % | 1.00 | 0.50 | 1.00 |",
		"| 4,000 | 200,000 ±0 % | – | 25,000 ±0 % * | 100,000 ±0 % | 4.00 | 0.50 | 1.25 |",
		"one call: 120,000 ±0 % packets a second, 1.20 of the helper's.",
		`\* Of 4,000 calls the helper carried 3,999.`)
	lines(t, wayTable(d, Plain, Helper, ALG), "| 4,000 | 200,000 | 200,000 | 20,000 | 33,300 | 100,000 | 100,000 |")
	lines(t, throughputTable(d), "| 1 | 1.60 Gbit/s | 0.80 Gbit/s | 0.80 Gbit/s | 1.00 | 0.50 |")
	// The difference is taken round by round: 2, 2 and 2.5.
	lines(t, latencyTable(d), "| plain forwarding | 1 | out | 4.0 | – | 9.0 | – |", "| pptp-alg | 1 | out | 6.5 | 2.0 | 10.0 | 1.0 |")

	f := &Data{}
	for i, k := range []Kind{Plain, ALG, Fast} {
		for _, n := range []int{1, 4000} {
			for _, way := range directions {
				f.Rates = append(f.Rates, Rate{Kind: k, Stage: n, Calls: n, Direction: way, CPU: Sample{[]float64{[]float64{200_000, 150_000, 240_000 - 30_000*float64(n/4000)}[i]}}})
			}
			f.Latency = append(f.Latency, Percentile{Kind: k, Calls: n, Direction: Out, Median: Sample{[]float64{[]float64{5, 6, 5 + float64(n/4000)}[i]}}})
		}
	}
	f.Watched = f.Rates
	lines(t, fastTable(f.Rates), "| 1 | 200,000 ±0 % | 150,000 ±0 % | 240,000 ±0 % | 1.20 | 1.60 |", "| 4,000 | 200,000 ±0 % | 150,000 ±0 % | 210,000 ±0 % | 1.05 | 1.40 |")
	lines(t, wayTable(f, Plain, ALG, Fast), "| 4,000 | 200,000 | 200,000 | 150,000 | 150,000 | 210,000 | 210,000 |")
	if drawing := fastCurve(f); strings.Count(drawing, "<circle") != 4 || !strings.Contains(drawing, "fast path") {
		t.Errorf("the curve is\n%s", drawing)
	}

	c := &Control{
		Setup: []Setup{
			{Kind: Helper, Clients: 64, Rate: Sample{[]float64{2000, 4000}}, All: Sample{[]float64{50}}},
			{Kind: ALG, Clients: 64, Rate: Sample{[]float64{500, 1500}}, All: Sample{[]float64{90}}, Daemon: Sample{[]float64{40}}},
		},
		Messages: []Percentile{
			{What: messageEcho, Kind: Masq, Median: Sample{[]float64{40}}, P99: Sample{[]float64{50}}},
			{What: messageEcho, Kind: ALG, Median: Sample{[]float64{140}}, P99: Sample{[]float64{450}}},
		},
	}
	lines(t, setupTable(c), "| pptp-alg | 64 | 1,000 ±25 % | 0.31 | 90 | 40 |", "| kernel helper | 64 | 3,000 ±17 % | – | 50 | – |")
	lines(t, messageTable(c), "| pptp-alg | 140.0 | 450.0 | 50.0 | 200.0 |")

	r := &Results{Data: d, Fast: f, Control: c, Scale: &Scale{
		Points: []Point{{Calls: 50_000, RestartSeconds: 1.5, Adopted: 50_000, Carried: 49_999, PerCall: 900}},
		Idle:   Idle{Calls: 10_000, CPU: 0.001},
	}, Size: &Size{Binaries: []Binary{{"a", 8_000_000, 2_600_000}, {"b", 9_500_000, 1}}, Resident: Sample{[]float64{14e6}}, Ready: Sample{[]float64{50}}}}
	met := map[string]bool{}
	for _, g := range targets(r) {
		met[g.what] = g.met
	}
	for what, want := range map[string]bool{
		"packets a second at one call, to the helper's":             true,
		"packets a second at 4,000 calls, to the helper's":          false,
		"calls a second with 64 clients at once, to the helper's":   false,
		"added to one message (Echo-Request and its reply), median": true,
		"restart with adoption of 50,000 calls":                     false, // one was not carried
		"resident memory of a call at rest, with 50,000 calls":      true,
		"CPU of an idle daemon with 10,000 calls":                   true,
		"stripped program, the largest":                             false,
		"stripped program, compressed, the largest":                 false,
		"start to ready": true,
		"fast path, packets a second at one call, to plain forwarding":               true,
		"fast path, packets a second at 4,000 calls, to plain forwarding":            false,
		"fast path, packets a second at one call, to without it":                     true,
		"fast path, packets a second at 4,000 calls, to without it":                  false,
		"the same with bridge-nf-call-iptables, at one call, to without it":          true,
		"the same with bridge-nf-call-iptables, at 4,000 calls, to plain forwarding": false,
		"fast path, one packet at one call, out, to plain forwarding":                true,
		"fast path, one packet at 4,000 calls, out, to plain forwarding":             false,
	} {
		if got, ok := met[what]; !ok || got != want {
			t.Errorf("target %q: %v, judged: %v", what, got, ok)
		}
	}
	lines(t, targetTable(r), "| stripped program, the largest | at most 9 MB | 9.5 MB | **no** |")
}

func TestSample(t *testing.T) {
	s := Sample{[]float64{5, 1, 3, 2, 4}}
	if s.Median() != 3 || s.Spread() != 1./3 {
		t.Errorf("median %v, spread %v", s.Median(), s.Spread())
	}
	if got := quantile([]float64{1, 2}, 0.5); got != 1.5 {
		t.Errorf("the middle of 1 and 2 is %v", got)
	}
	if got := (Sample{}).Median(); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	if got := s.over(Sample{[]float64{5, 1, 0}}).Rounds; len(got) != 2 || got[0] != 1 {
		t.Errorf("ratios %v", got)
	}
}

// TestChart: the drawing is XML, has every point where it belongs, and is the same
// every time.
func TestChart(t *testing.T) {
	c := chart{title: "a < b", x: "x", y: "y", log: true, format: grouped, curves: []curve{
		{"one", "#000000", []point{{1, 1000}, {10, 1000}, {100, 10}}},
		{"dot", "#111111", []point{{100, 11}}},
	}}
	drawing := c.svg()
	if drawing != c.svg() {
		t.Error("two drawings differ")
	}
	d := xml.NewDecoder(strings.NewReader(drawing))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	// The corners of the plot: least abscissa and most ordinate, and the reverse.
	for _, want := range []string{`points="78.0,44.0 344.0,44.0 610.0,348.0"`, `<circle cx="78.0" cy="44.0"`, `a &lt; b`, `>1,000</text>`} {
		if !strings.Contains(drawing, want) {
			t.Errorf("%s is not in\n%s", want, drawing)
		}
	}
	at := c.labels(func(y float64) float64 { return y })
	if math.Abs(at[0]-at[1]) < labelHeight {
		t.Errorf("names at %v cover each other", at)
	}
}
