package bench

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// chart is a diagram of curves over a logarithmic abscissa.
type chart struct {
	title, x, y string
	curves      []curve
	log         bool    // the ordinate is logarithmic as well
	most        float64 // end of a linear ordinate, which begins at 0
	format      func(float64) string
}

// curve is one line; a single point is drawn as a dot.
type curve struct {
	name, colour string
	points       []point
}

type point struct{ x, y float64 }

// Measures of a chart, in pixels.
const (
	chartWidth, chartHeight                 = 760, 400
	chartLeft, chartRight, chartTop, chartB = 78, 150, 44, 52
	plotWidth                               = chartWidth - chartLeft - chartRight
	plotHeight                              = chartHeight - chartTop - chartB
	labelHeight                             = 15 // of a curve's name
)

// svg draws the chart. The output depends on nothing but the chart.
func (c chart) svg() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#222">`,
		chartWidth, chartHeight, chartWidth, chartHeight)
	p(`<title>%s</title>`, html.EscapeString(c.title))
	p(`<rect width="%d" height="%d" fill="#fff"/>`, chartWidth, chartHeight)
	p(`<text x="%d" y="24" font-size="15" font-weight="bold">%s</text>`, chartLeft, html.EscapeString(c.title))
	left, right := c.xRange()
	low, high := c.yRange()
	px := func(x float64) float64 {
		return chartLeft + plotWidth*(math.Log10(x)-left)/(right-left)
	}
	py := func(y float64) float64 {
		if c.log {
			y = math.Log10(y)
		}
		return chartTop + plotHeight*(high-y)/(high-low)
	}
	for e := left; e <= right; e++ {
		x := px(math.Pow(10, e))
		p(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/>`, x, chartTop, x, chartTop+plotHeight)
		p(`<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, x, chartTop+plotHeight+18, grouped(math.Pow(10, e)))
	}
	for _, y := range c.ticks() {
		p(`<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/>`, chartLeft, py(y), chartLeft+plotWidth, py(y))
		p(`<text x="%d" y="%.1f" text-anchor="end">%s</text>`, chartLeft-8, py(y)+4, c.format(y))
	}
	p(`<text x="%d" y="%d" text-anchor="middle">%s</text>`, chartLeft+plotWidth/2, chartHeight-12, html.EscapeString(c.x))
	p(`<text transform="translate(16 %d) rotate(-90)" text-anchor="middle">%s</text>`, chartTop+plotHeight/2, html.EscapeString(c.y))
	labels := c.labels(py)
	for i, v := range c.curves {
		var at []string
		for _, q := range v.points {
			at = append(at, fmt.Sprintf("%.1f,%.1f", px(q.x), py(q.y)))
		}
		if len(at) > 1 {
			p(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2.5"/>`, strings.Join(at, " "), v.colour)
		}
		for _, q := range v.points {
			p(`<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`, px(q.x), py(q.y), v.colour)
		}
		p(`<text x="%d" y="%.1f" fill="%s" font-weight="bold">%s</text>`, chartLeft+plotWidth+12, labels[i]+4, v.colour, html.EscapeString(v.name))
	}
	p(`</svg>`)
	return b.String()
}

// xRange is the abscissa in powers of ten.
func (c chart) xRange() (low, high float64) {
	least, most := math.Inf(1), 1.0
	for _, v := range c.curves {
		for _, q := range v.points {
			least, most = min(least, q.x), max(most, q.x)
		}
	}
	low, high = math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	return low, max(high, low+1)
}

// yRange is the ordinate: in powers of ten, or from 0 on.
func (c chart) yRange() (low, high float64) {
	if !c.log {
		return 0, c.most
	}
	low, high = math.Inf(1), math.Inf(-1)
	for _, v := range c.curves {
		for _, q := range v.points {
			low, high = min(low, math.Floor(math.Log10(q.y))), max(high, math.Ceil(math.Log10(q.y)))
		}
	}
	return low, max(high, low+1)
}

func (c chart) ticks() []float64 {
	var ticks []float64
	low, high := c.yRange()
	if !c.log {
		for i := range 6 {
			ticks = append(ticks, high*float64(i)/5)
		}
		return ticks
	}
	for e := low; e <= high; e++ {
		ticks = append(ticks, math.Pow(10, e))
		if e < high {
			ticks = append(ticks, 2*math.Pow(10, e), 5*math.Pow(10, e))
		}
	}
	return ticks
}

// labels places the curves' names beside their ends, apart from each other.
func (c chart) labels(py func(float64) float64) []float64 {
	at := make([]float64, len(c.curves))
	order := make([]int, len(c.curves))
	for i, v := range c.curves {
		at[i], order[i] = py(v.points[len(v.points)-1].y), i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(math.Round(at[a] - at[b])) })
	for n, i := range order[1:] {
		at[i] = max(at[i], at[order[n]]+labelHeight)
	}
	return at
}

// grouped writes a whole number with commas between its thousands.
func grouped(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
