package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// documents are the files with blocks that are made of results.
var documents = []string{"README.md", "docs/performance.md"}

// A block begins and ends with a line of its own.
const (
	blockBegin = "<!-- bench: "
	blockEnd   = "<!-- end of bench -->"
)

// blockNames are the blocks, in the order in which a terminal shows them.
var blockNames = []string{"machine", "rates", "ways", "throughput", "latency", "setup", "messages", "scale", "size", "fast", "fast-throughput", "fast-watched", "fast-ways", "fast-latency", "targets", "summary"}

// blocks makes the text of every block.
func blocks(r *Results) map[string]string {
	b := map[string]string{}
	for _, name := range blockNames {
		b[name] = "Not measured: `make bench`.\n"
	}
	b["targets"] = targetTable(r)
	if d := r.Data; d != nil {
		b["summary"] = summary(d)
		b["rates"], b["ways"], b["throughput"], b["latency"], b["machine"] = rateTable(d), wayTable(d, Plain, Helper, ALG), throughputTable(d), latencyTable(d), machineText(d.Machine)
	}
	if d := r.Fast; d != nil {
		b["fast-watched"] = fastTable(d.Watched)
		b["fast"], b["fast-throughput"], b["fast-ways"], b["fast-latency"] = fastCurveLink+fastTable(d.Rates), fastTable(d.Throughput), wayTable(d, Plain, ALG, Fast), latencyTable(d)
	}
	if c := r.Control; c != nil {
		b["setup"], b["messages"] = setupTable(c), messageTable(c)
	}
	if s := r.Scale; s != nil {
		b["scale"] = scaleTable(s)
	}
	if s := r.Size; s != nil {
		b["size"] = sizeTable(s)
	}
	return b
}

// Tables is everything, for a terminal.
func Tables(r *Results) string {
	b := blocks(r)
	var out strings.Builder
	for _, name := range blockNames {
		out.WriteString(b[name] + "\n")
	}
	return out.String()
}

// summary is the data plane in few words.
func summary(d *Data) string {
	t := &table{head: []string{"calls", "to the kernel helper", "to plain forwarding", "to one call"}}
	for _, n := range stages(d.Rates) {
		plain, _ := both(d.Rates, n, Plain, 0)
		helper, _ := both(d.Rates, n, Helper, 0)
		alg, _ := both(d.Rates, n, ALG, 0)
		one, _ := both(d.Rates, n, ALG, 1)
		t.row(grouped(float64(n)), ratio(alg.over(helper)), ratio(alg.over(plain)), ratio(alg.over(one)))
	}
	return t.String()
}

func machineText(m Machine) string {
	where := "processor"
	if m.Virtual {
		where = "processor, in a virtual machine"
	}
	return fmt.Sprintf("%s (%s; %d cores, %.0f GB of memory), Linux %s, %s, pptp-alg %s, on %s; load average at the beginning: %s. "+
		"Medians of %d rounds; ± is half the distance between the quartiles.\n", m.Processor, where, m.Cores, float64(m.Memory)/(1<<30), m.Kernel, m.Go,
		strings.TrimPrefix(m.Version, "pptp-alg "), m.Date, m.Load, m.Rounds)
}

// curves are the files that are drawn, by name.
func curves(r *Results) map[string]string {
	all := map[string]string{}
	if r.Data != nil {
		all["rates.svg"], all["share.svg"] = dataCurves(r.Data)
	}
	if r.Fast != nil {
		all["fast.svg"] = fastCurve(r.Fast)
	}
	return all
}

// fastCurveLink shows the curve in a document in docs.
const fastCurveLink = "![share of plain forwarding, by number of calls](../bench/results/fast.svg)\n\n"

// fastCurve is the fast path's share of plain forwarding, and that without it.
func fastCurve(d *Data) string {
	share := chart{title: "Share of plain forwarding, through a bridge", x: "calls", y: "share", most: 1.5, format: percent}
	for _, k := range []struct {
		kind   Kind
		colour string
	}{{Fast, "#009e73"}, {ALG, "#0072b2"}} {
		c := curve{name: k.kind.Name(), colour: k.colour}
		for _, n := range stages(d.Rates) {
			s, carried := both(d.Rates, n, k.kind, 0)
			plain, _ := both(d.Rates, n, Plain, 0)
			if carried > 0 {
				c.points = append(c.points, point{float64(carried), s.over(plain).Median()})
			}
		}
		if len(c.points) > 0 {
			share.curves = append(share.curves, c)
		}
	}
	return share.svg()
}

func percent(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }

// dataCurves are packets a second and the share of plain forwarding.
func dataCurves(d *Data) (rates, shares string) {
	rate, share := chart{
		title: "GRE through a router: packets a second of one core", x: "calls", y: "packets a second", log: true, format: grouped,
	}, chart{
		title: "Share of plain forwarding", x: "calls", y: "share", most: 1, format: percent,
	}
	for _, k := range []struct {
		kind   Kind
		colour string
	}{{Plain, "#7a7a7a"}, {ALG, "#0072b2"}, {Helper, "#d55e00"}} {
		a, b := curve{name: k.kind.Name(), colour: k.colour}, curve{name: k.kind.Name(), colour: k.colour}
		for _, n := range stages(d.Rates) {
			s, carried := both(d.Rates, n, k.kind, 0)
			if carried == 0 {
				continue
			}
			plain, _ := both(d.Rates, n, Plain, 0)
			a.points = append(a.points, point{float64(carried), s.Median()})
			b.points = append(b.points, point{float64(carried), s.over(plain).Median()})
		}
		if len(a.points) > 0 {
			rate.curves = append(rate.curves, a)
			if k.kind != Plain {
				share.curves = append(share.curves, b)
			}
		}
	}
	return rate.svg(), share.svg()
}

// fill replaces the blocks of a document.
func fill(document []byte, blocks map[string]string) ([]byte, error) {
	var out bytes.Buffer
	inside := false
	for line := range bytes.Lines(document) {
		text := strings.TrimSpace(string(line))
		switch {
		case strings.HasPrefix(text, blockBegin):
			name := strings.TrimSuffix(strings.TrimPrefix(text, blockBegin), " -->")
			content, ok := blocks[name]
			if inside || !ok {
				return nil, fmt.Errorf("block %q: there is nothing of that name, or it is inside another", name)
			}
			inside = true
			out.Write(line)
			out.WriteString("\n" + content + "\n")
		case text == blockEnd:
			if !inside {
				return nil, fmt.Errorf("a block ends that has not begun")
			}
			inside = false
			out.Write(line)
		case !inside:
			out.Write(line)
		}
	}
	if inside {
		return nil, fmt.Errorf("a block does not end")
	}
	return out.Bytes(), nil
}

// Outdated names the files that are not as the results would make them.
func Outdated(root, results string) ([]string, error) {
	var names []string
	err := derive(root, results, func(path string, old, made []byte) error {
		if !bytes.Equal(old, made) {
			names = append(names, path)
		}
		return nil
	})
	return names, err
}

// WriteDocs writes tables and curves from the results.
func WriteDocs(root, results string) error {
	return derive(root, results, func(path string, old, made []byte) error {
		if bytes.Equal(old, made) {
			return nil
		}
		return os.WriteFile(path, made, 0o644)
	})
}

// derive makes everything that depends on results.
func derive(root, results string, take func(path string, old, made []byte) error) error {
	r, err := Load(results)
	if err != nil {
		return err
	}
	for name, drawing := range curves(r) {
		path := filepath.Join(results, name)
		old, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		if err := take(path, old, []byte(drawing)); err != nil {
			return err
		}
	}
	made := blocks(r)
	for _, name := range documents {
		path := filepath.Join(root, name)
		old, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		document, err := fill(old, made)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := take(path, old, document); err != nil {
			return err
		}
	}
	return nil
}
